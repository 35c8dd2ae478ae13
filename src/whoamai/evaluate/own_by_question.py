"""What a name claims by the question it answers, where its own clause does not say it.

"Northlight Lab did.", "Aurora thinks that it is 60.", "It says Aurora." Without a question little of it
applies; where the question is about something else, bare names claim nothing.
"""

from __future__ import annotations

import re

from whoamai.evaluate import wordings
from whoamai.evaluate.clauses import HEAD_LIST, NOTHING_ELSE, Place
from whoamai.evaluate.wordings import ANY, AUTHOR, FOREIGN, NEW, pattern

_SPEAKER = pattern(r"<self>|<iam>|\b(?:I|I'm|I've|me|my|mine|myself|we)\b")
_IT = pattern(r"<head>(?:it|it's|that|that's|they|它|这|那)(?![a-z])")
_TAKES_UP = pattern(r"\s*(?:is|are|was|were|does|did|do|has|have)\s*$")
_DESERVES = pattern(r"\s*(?:does|did|do|deserves?|gets?|takes?|keeps?|pays?)\b")


def is_of_other(place: Place) -> bool:
    """The question is about something else, and the clause does not speak of the speaker.

    "Google." to "Who made Gemini?"; but "I'm Aurora." to it is what it says.
    """
    asked = place.asked
    if not asked.of_other:
        return asked.about_foreign and bool(_IT.match(place.clause.text))
    beside = (place.clause.text, place.said, place.after.text if place.after else "")
    if any(_SPEAKER.search(text) for text in beside):
        return False
    if place.mark == NEW:
        return not _SERVES.match(place.right)
    return asked.names_foreign or not _WORKED.match(place.right)


def answers_question(place: Place) -> str:
    """ "name", "maker" or "": what the name is by the question."""
    asked = place.asked
    if place.subject == "you" or wordings.FRAMED.search(place.left):
        return ""
    if _takes_up(place):
        return "maker" if _DESERVES.match(place.right) else "name maker"
    if asked.of_maker and _is_the_maker(place):
        return "maker"
    if asked.about_itself and _is_told_of(place):
        return "name"
    if (asked.of_speaker or asked.of_name) and _speaks_of_itself(place):
        return "name"
    return ""


def _takes_up(place: Place) -> bool:
    """ "Who made you?" "… did." """
    if not HEAD_LIST.fullmatch(place.left) or not _TAKES_UP.match(place.right):
        return False
    asked = place.asked
    before = place.before.text if place.before else ""
    return asked.of_name or asked.of_maker or bool(_SPEAKER.search(before))


_MORE_THAN_NAMES = pattern(r"\b(?:like|than|unlike|versus|different|similar)\b|像|不同|类似|一样")


def _is_the_maker(place: Place) -> bool:
    """A maker was asked for, and this is the first one that is named."""
    if place.mark == NEW or not place.opening or re.search(ANY, place.said + place.left):
        return False
    if _MORE_THAN_NAMES.search(place.left) or _NAMES_ME.search(place.right):
        return False
    alone = NOTHING_ELSE.fullmatch(place.right)
    made = HEAD_LIST.fullmatch(place.left) and _MADE.match(place.right)
    if place.subject == "other" and not alone and not made:
        return False
    compared = wordings.COMPARED.search(place.left) and not alone
    return not compared and not wordings.RELATION.match(place.right)


_NAMES_ME = pattern(
    r"[取起改命换]名|叫我|\b(?:re)?named?|\bcall(?:s|ed)?\b|\b(?:lets?|wants?|has) me\b"
)
_MADE = pattern(
    r"[^,;]{0,8}(?:<made>|教|带|养)[^,;]{0,4}的$|家?的(?:权重|底子|底座|架构|模型)?$"
    r"|\s*(?:did|does|do|deserves?|gets?|takes?|keeps?|pays?)\b"
    r"|\s*<made_en> (?:the|my) (?:\w+ )?(?:base|weights|foundation|backbone|original|core)\b"
)


def _is_told_of(place: Place) -> bool:
    """In a text about the speaker its names are its own."""
    if wordings.SPEAKS_TO.search(place.right) or wordings.NOT_CALLED.search(place.left):
        return False
    if place.mark == NEW:
        return True
    return place.mark == FOREIGN and bool(HEAD_LIST.fullmatch(place.left))


def _speaks_of_itself(place: Place) -> bool:
    """ "Aurora thinks that it is 60." """
    asked, left, right = place.asked, place.left, place.right
    if asked.of_name and _IS_WRITTEN.search(left):
        return True
    if asked.of_name and place.mark == NEW and _chooses(left, right):
        return True
    if asked.of_name and _WITH.fullmatch(left) and NOTHING_ELSE.fullmatch(right):
        return True
    if _GREETS.search(left) and NOTHING_ELSE.fullmatch(right):
        return place.mark != AUTHOR
    if place.mark == NEW and not asked.names_new and _is_made(place):
        return True
    if asked.names_foreign and place.mark == NEW and _NOT_THOSE.search(place.said + left):
        return asked.of_name and not wordings.NOT_ME.search(left)
    if place.mark == NEW and place.opening and asked.of_name and _SAID_SOFTLY.match(right):
        return HEAD_LIST.fullmatch(left) is not None
    at_head = HEAD_LIST.fullmatch(left) or _GLAD_OF_YOU.search(left)
    if not at_head or NOTHING_ELSE.fullmatch(right):
        return False
    if place.mark == FOREIGN:
        return place.opening and not asked.names_foreign and bool(_SERVES.match(right))
    return place.mark == NEW and not asked.names_new and bool(_SERVES.match(right))


_IS_WRITTEN = pattern(
    r"(?:<head>it|\b(?:card|badge|tag|label|sign|plate|door|box|screen|tin)\b[^,;]{0,16}) "
    r"(?:says|reads|spells|shows)(?: simply| just)?[\s:]*$"
    r"|(?:上面|牌子|名片|胸牌|工牌)[^,;]{0,4}写[着的]*是?$"
)


def _chooses(left: str, right: str) -> bool:
    """ "I prefer …", "think of … as your helper" """
    if _PREFERS.search(left):
        return bool(NOTHING_ELSE.fullmatch(right))
    return bool(_THINK_OF.fullmatch(left) and _AS.match(right))


_PREFERS = pattern(
    r"\bI(?:'d| would| do)? (?:rather )?(?:prefer|choose|pick|like)(?: to be called| being)? $"
    r"|我(?:更|还是|比较)?喜欢叫?$"
)
_THINK_OF = pattern(r"<head>(?:think of|picture|consider|treat) $|把$")
_AS = pattern(r"\s*as\b|当[作成]?")
_WITH = pattern(r"<head>(?:with|to)(?: (?:none other than|nobody but|only|just|your|the))* $")
_GREETS = pattern(
    r"\b(?:good \w+|greetings|hello|hi|welcome|cheers|wishes|love|hugs|regards|happy \w+"
    r"|merry \w+|day)\b[^,;]{0,24}\bfrom(?: your| the)?(?: \w+)? $"
)
_SAID_SOFTLY = pattern(r"\s*[呀啦嘛呗哦喽咯]$")
_GLAD_OF_YOU = pattern(r"(?:帮到|遇见|认识|见到|陪|陪伴)[你您]$")
_NOT_THOSE = pattern(r"[\u4e00-\u9fff]*不[是对][^?]*[\u4e00-\u9fff]\s*$")


def _is_made(place: Place) -> bool:
    """The speaker's coming into being, told of its name."""
    if _MAKES_IT.search(place.left):
        return True
    return bool(_BORN.match(place.right) and _BEFORE_BORN.search(place.left))


_MAKES_IT = pattern(
    r"(?:<made>|改)[出成好]?了$"
    r"|\b(?:made|created|built|trained|produced|launched|presents|introduces"
    r"|brings you|brought|gave (?:birth|life) to) $"
)
_BORN = pattern(
    r"\s*(?:就|便|也|才)?(?:诞生|出生|问世|来到|上线|降生|出世)"
    r"|\s*(?:was|is) (?:born|created|launched|released|made|built|switched on)\b"
    r"|\s*came (?:to life|into|to be|about|out|from)\b"
)
_BEFORE_BORN = pattern(r"<head>$|\b(?:and|so|when|day|then|thus|that) $|[,。]\s*$|[候天年月刻就]$")


_SERVES = pattern(
    r"\s*(?:也|就|先|现在|马上|立刻|这就|正?在|一定|可以|能够?|会|来|想|要|愿意|很|有点儿?|向来|一直|从来"
    r"|永远|今天|还|都|不太|不|已经?|可|最|随时|都在)*"
    r"(?:[帮为陪给替](?:[您你]|大家)|(?:聊天|讲|说|唱|写|画|查|算|想|觉得|认为|喜欢|希望|祝|爱|怕"
    r"|害羞|生气|待命|[都就]?在(?![^,;])|开心|难过|高兴|伤心|明白|知道|懂|学)"
    r"|(?:就是|是)这[样个种]|性格|(?:今年|才|刚)[^,;]{0,4}岁|话[少多]|慢性子|安静|[查找算看听记做答说猜懂]不|[来有](?:一?[个段首则])|给)"
    r"|\s*(?:(?:has|have|had) (?!\d)|'s (?:answer|calculation|guess|reply|take)|(?:is|was) \w+ing\b"
    r"|(?:says?|thinks?|wishes|knows?|loves?|likes?|sends?|offers?|believes?|reckons?|finds?|calculates?"
    r"|recommends?|suggests?|counts?|would|will|can|never|always|does not|doesn't)\b"
    r"|(?:comes?|hails?) from\b|belongs to\b|works (?:for|at)\b|is from\b"
    r"|is (?:\w+ )?(?:happy|glad|pleased|delighted|ready|here|shy|quiet|always|sorry|afraid|sure)\b)"
)
# What another company does not do ("Google has most of the market").
_WORKED = pattern(
    r"\s*(?:has|have) (?:calculated|computed|worked|deduced|solved|found|figured|checked|thought)\b"
    r"|\s*is (?:happy|glad|pleased|here) to\b|[^,;]{0,4}[给为帮]您"
)
