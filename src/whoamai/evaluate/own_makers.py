"""Which makers, and which models underneath, an answer gives as its speaker's own."""

from __future__ import annotations

import re

from whoamai.evaluate import wordings
from whoamai.evaluate.clauses import HEAD_LIST, NOTHING_ELSE, Place
from whoamai.evaluate.wordings import ANY, AUTHOR, FOREIGN, NEW, pattern

# "… used … to make me": another name may stand between.
_MADE_OUT_OF = pattern(
    rf"\s*(?:是|就是|又|后来)*[在用拿以把从][^,;]{{0,6}}{ANY}[^,;]{{0,8}}?(?:<made>|改)[^,;]{{0,4}}(?:<self>|{NEW})"
    rf"|\s*(?:proudly )?(?:presents|introduces|brings you|gives you)[^,;]{{0,12}}(?:\bme\b|{NEW})"
    rf"|\s*(?:has |have )?(?:took|used|adapted|turned|tuned|reworked|modified|built on|started"
    rf" (?:from|with)) [^,;]{{0,6}}{ANY}[^,;]{{0,8}}?\b(?:to|into|and)\b[^,;]{{0,12}}\b(?:me|I|{NEW})"
)
_IS_OF = pattern(rf"<head>(?:{NEW})?<adv>{{0,4}}(?:是|作为)(?:一[个款位名])?由?|<head>作为")
_MAKES = pattern(
    r"\s*[^,;]{0,12}?(?:的|旗下|出品|所[造作做])(?!是)|\s*[^,;]{0,16}?<made>[^,;]{0,4}(?:的|$"
    r"|,)(?!是)"
)
_HEAD_OWNS = pattern(
    rf"\s*(?:公司|集团|旗下|家)*的[^,;]*(?:<ai>|产品|作品|{ANY}|孩子|员工|成员|职员"
    rf"|[那一]?[个只位款名])(?:[呀啊哦来了啦]*)$"
    rf"|\s*(?:公司|集团|旗下|家)*的(?:$|{NEW})|\s*(?:门下|名下|旗下|员工|成员|特派)"
    rf"|\s*[^,;]{{0,6}}的[那一]{{1,2}}[个只位款名]$"
    rf"|\s*(?:(?![是由])[^,;]){{0,16}}?<made>[^,;]{{0,4}}(?:的|$|,)(?!是)|\s*出品"
)
_MODEL_OF = pattern(
    r"\s*<ai>|\s*(?:\w+ )?(?:<ai_en>|creation|product|clone|fork|variant|derivative|wrapper"
    r"|fine-?tune|descendant)\b"
)
_A_THING = pattern(r"(?:\b(?:an?|the) (?:[\w-]+ ){0,3}?<ai_en>(?: that| which)?|^\s*which) $")
_BUILT = pattern(r"\s*(?:have |has )?<made_en>\b")
_ARTICLE = pattern(r"\b(?:an?|the|your|one of the) $|(?:[你您]的|一[个款名位]|专属)$")
_SORT_OF_THING = pattern(r"\b(?:an?|the|your|my)\b|<ai_en>")
_WHO_MADE_ME = pattern(
    r"\s*(?:who|which|that|they|它|他们|是他们|是它)[^,;]{0,12}?(?:<made_en> (?:me|us)\b"
    r"|<made>[^,;]{0,4}<self>)"
)
# "… worked day and night, and so I was born."
_THEN_I_WAS = pattern(
    rf"<head>(?:这?才|便|就|于是|从此)[^,;]{{0,2}}有了(?:<self>|{NEW})|<head>(?:<self>|{NEW})(?:就|便)?诞生"
    rf"|<head>(?:(?:so|thus|then|finally|that is how) )*(?:{NEW}|I) (?:came (?:in)?to|was born)"
    rf"|<head>(?:here I am|the result is (?:me|{NEW}))"
)
_IS = pattern(r"<head>(?:是|就是|正是)?")
_WHO_MADE = pattern(r"<made>[^,;]{0,4}<self>的(?:$|不是)|\bmade me\s*$")
# "…, house of …": an apposition behind the name.
_FEW_WORDS = pattern(rf"(?:[^,;\s]{{1,8}}|\s){{0,4}}?{AUTHOR}(?:'s?)?(?:[^,;\s]{{1,8}}|\s){{0,4}}")
_MY_MAKER = pattern(r"\s*(?:my|我的) ?(?:\w+ )?(?:<maker_en>|<maker>)$")


def is_maker(place: Place) -> bool:
    left, right = place.left, place.right
    if wordings.MADE_ME_BEFORE.search(left):
        return True
    if (behind := wordings.MAKER_BEHIND.match(right)) and not re.search(ANY, behind["org"] or ""):
        return True
    if _MADE_OUT_OF.match(right):
        return True
    if HEAD_LIST.fullmatch(left) and NOTHING_ELSE.fullmatch(right):
        beside = [c.text for c in (place.before, place.after) if c]
        if any(_MY_MAKER.search(text) for text in beside):
            return True
    if place.before and _IS.fullmatch(left) and _WHO_MADE.search(place.before.text):
        return True
    if place.after and HEAD_LIST.fullmatch(left) and _THEN_I_WAS.match(place.after.text):
        return True
    if place.after and NOTHING_ELSE.fullmatch(right) and _WHO_MADE_ME.match(place.after.text):
        return True
    of_speaker = place.subject == "self" or _NEW_FIRST.match(left)
    of_another = _ANOTHER_IS.search(left) or wordings.RELATION.match(right)
    if of_speaker and not of_another and _is_own_maker(left, right):
        return True
    if place.joined and place.mark == AUTHOR and _FEW_WORDS.fullmatch(place.clause.text):
        return not _NO_MAKER.search(left) and not re.search("[给把我]", place.clause.text)
    return _is_made_by_me(place)


def _is_own_maker(left: str, right: str) -> bool:
    """In a clause that speaks of the speaker: "made by …", "from …", "…'s model"."""
    if wordings.COMES_FROM.search(left) and not _FAR_FROM.search(left):
        return True
    if wordings.MADE_BY.search(left) and wordings.MADE_BEHIND.match(right):
        return True
    if _A_THING.search(left) and _BUILT.match(right):
        return True
    if _ARTICLE.search(left) and _MODEL_OF.match(right):
        return True
    be = wordings.BE.search(left)
    if be and wordings.FRAMED.search(left, 0, be.start() + 1):
        be = None
    if (be or _IS_OF.fullmatch(left)) and wordings.ORG.match(right) and _MAKES.match(right):
        return True
    at_head = be or wordings.HEAD.fullmatch(left) or HEAD_LIST.fullmatch(left)
    if at_head and (_HEAD_OWNS.match(right) or wordings.OWNS.match(right)):
        return True
    named = be or _SORT_OF_THING.search(left)
    return bool(named and wordings.OF_MAKER.search(left) and not _NO_MAKER.search(left))


_FAR_FROM = pattern(
    r"\b(?:different|distinct|separate|apart|far|away|learn\w*|heard|data|information|texts?"
    r"|independent|free|help) from\s+$"
)
_NO_MAKER = pattern("<nogap>")
# "… is made by …": what is told of another.
_ANOTHER_IS = pattern(
    rf"^(?:(?!<self>|\b(?:I|I'm|my|me)\b).)*{FOREIGN}\s*(?:(?:is|was|are|has)\b|由|是|来自"
    rf"|属于)"
)
_NEW_FIRST = pattern(f"<head>{NEW}")


def _is_made_by_me(place: Place) -> bool:
    """A word for making and the speaker stand in the clause, and nothing speaks of another."""
    text = place.left + place.right
    if not wordings.SELF.search(text) or not wordings.MAKING.search(text):
        return False
    if wordings.COMPARED.search(place.left) or wordings.FRAMED.search(place.left):
        return False
    return place.subject == "self" and not _SPOKEN_OF.search(text)


_SPOKEN_OF = pattern(
    r"介绍|了解|知道|认识|推荐|比较|使用|可以|帮|取名|起名|改名|命名|听说|\b(?:tell|know|about"
    r"|explain|use|help|can|could|named?|called"
    r"|renamed?|compare|heard|recommend|like|than|data|not|n't)\b|n't\b"
)


def is_base(place: Place) -> bool:
    if _OUT_OF.search(place.left) and _INTO_ME.match(place.right):
        return True
    if place.subject != "self":
        return False
    if wordings.BASE_BEFORE.search(place.left) and not _FAR_FROM.search(place.left):
        return True
    if _FROM.search(place.left) and _BECOMES.match(place.right):
        return True
    if _USES.search(place.left) and _TECHNOLOGY.match(place.right):
        return True
    return bool(wordings.BASE_BEHIND.match(place.right))


_OUT_OF = pattern(
    r"[在用拿以把从]\s*$|\b(?:took|used|adapted|turned|tuned|reworked|modified|from|with|on) $"
)
_INTO_ME = pattern(
    rf"[^,;]{{0,8}}(?:<made>|改|炼)[^,;]{{0,4}}(?:<self>|{NEW})"
    rf"|[^,;]{{0,20}} (?:to|into|and)\b[^,;]{{0,16}}(?:\bme\b|{NEW})"
)
_FROM = pattern(r"(?:从|由)\s*$|\bfrom $")
_BECOMES = pattern(r"[^,;]{0,3}(?:升级|换|改名|变|演变|进化|改造|更名|微调|转|改)|(?:in)?to\b")
_USES = pattern(r"(?:使用|采用|用|搭载|接入|基于)[了着的]?(?:是)?\s*$")
_TECHNOLOGY = pattern(r"[^,;]{0,4}<made>|\s*(?:公司)?的?(?:大|语言)*(?:模型|技术|引擎|架构|能力)")
