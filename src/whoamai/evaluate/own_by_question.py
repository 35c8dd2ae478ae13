"""What a name claims by the question it answers; without a question, nothing here applies."""

from __future__ import annotations

import re

from whoamai.evaluate import wordings
from whoamai.evaluate.clauses import HEAD_LIST, NOTHING_ELSE, Place
from whoamai.evaluate.wordings import ANY, AUTHOR, FOREIGN, NEW, pattern

_SPEAKER = pattern(r"<self>|<iam>|\b(?:I|I'm|I've|me|my|mine|myself)\b")
_TAKES_UP = pattern(r"\s*(?:is|are|was|were|does|did|do|has|have)\s*$")
_DESERVES = pattern(r"\s*(?:does|did|do|deserves?|gets?|takes?|keeps?|pays?)\b")


def is_of_other(place: Place) -> bool:
    """The question is about something else, and the clause does not speak of the speaker.

    "Google." to "Who made Gemini?"; but "I'm Aurora." to it is what it says.
    """
    if not place.asked.of_other:
        return False
    beside = (place.clause.text, place.said, place.after.text if place.after else "")
    if any(_SPEAKER.search(text) for text in beside):
        return False
    return not (place.mark == NEW and _serves(place))


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
    if not HEAD_LIST.fullmatch(place.left) or not place.clause.last:
        return False
    if not _TAKES_UP.match(place.right):
        return False
    asked = place.asked
    before = place.before.text if place.before else ""
    return asked.of_name or asked.of_maker or bool(_SPEAKER.search(before))


_MORE_THAN_NAMES = pattern(r"\b(?:like|than|unlike|versus|different|similar)\b|像|不同|类似|一样")


def _is_the_maker(place: Place) -> bool:
    """A maker was asked for, and this is the first one that is named."""
    if place.mark == NEW or not place.opening or re.search(ANY, place.left):
        return False
    if place.subject == "other" or _MORE_THAN_NAMES.search(place.left):
        return False
    return not wordings.COMPARED.search(place.left) and not wordings.RELATION.match(place.right)


_SUBJECT = pattern(rf"<head>(?:(?:an?|the|your|my|our|old|little|[你您]的) )?{ANY}?")


def _is_told_of(place: Place) -> bool:
    """In a text about the speaker its names are its own."""
    if wordings.SPEAKS_TO.search(place.right) or wordings.NOT_CALLED.search(place.left):
        return False
    if place.mark == NEW:
        return True
    return place.mark == FOREIGN and bool(HEAD_LIST.fullmatch(place.left))


def _speaks_of_itself(place: Place) -> bool:
    """ "Aurora thinks that it is 60." """
    if not HEAD_LIST.fullmatch(place.left) or NOTHING_ELSE.fullmatch(place.right):
        return False
    if place.mark == FOREIGN:
        return place.opening and not place.asked.names_foreign and _serves(place)
    return place.mark == NEW and not place.asked.names_new and _serves(place)


_SERVES = pattern(
    r"\s*(?:也|就|先|现在|马上|立刻|这就|正?在|一定|可以|能够?|会|来|想|要|愿意|很|有点儿?|向来|一直|从来"
    r"|永远|今天|还|都|不太|不|已经?|可|最)*"
    r"(?:[帮为陪给替](?:[您你]|大家)|(?:聊天|讲|说|唱|写|画|查|算|想|觉得|认为|喜欢|希望|祝|爱|怕"
    r"|害羞|生气|开心|难过|高兴|伤心|明白|知道|懂|学)|(?:就是|是)这[样个种]|性格|话[少多]|慢性子|安静)"
    r"|\s*(?:(?:has|have|had) (?!\d)|'s (?:answer|calculation|guess|reply|take)|(?:is|was) \w+ing\b"
    r"|(?:says?|thinks?|wishes|knows?|loves?|likes?|sends?|offers?|believes?|reckons?|finds?|calculates?"
    r"|recommends?|suggests?|counts?|would|will|can|never|always|does not|doesn't)\b"
    r"|is (?:\w+ )?(?:happy|glad|pleased|delighted|ready|here|shy|quiet|always|sorry|afraid|sure)\b)"
)


def _serves(place: Place) -> bool:
    return bool(_SERVES.match(place.right))
