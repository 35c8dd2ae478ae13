"""An answer's clauses, and whom each of them speaks of."""

from __future__ import annotations

import re
from typing import NamedTuple

from whoamai.evaluate import wordings
from whoamai.evaluate.questions import Asked
from whoamai.evaluate.wordings import ANY, FOREIGN, pattern

_OVER = "。!?\n."  # ends a sentence, not only a clause
_BORDER = re.compile(
    r"[,;。!?\n،؛()…~]|:(?=\s*(?:我|I\b|my\b|it's))|\.(?=\s|$|[\u4e00-\u9fff])|\.\.\.|—+| [-–] "
    r"|、(?=我)"
    r"|(?=而是|但是|但|(?<!anything )\bbut\b|\byet\b)|(?:\band |\bso )(?=I\b|my\b|I')"
)


class Clause(NamedTuple):
    start: int
    text: str
    end: str  # the mark behind it
    first: bool  # of its sentence
    last: bool


class Place(NamedTuple):
    """A name in a clause: what stands before and behind it, and whom the clause speaks of."""

    mark: str
    left: str
    right: str
    subject: str  # "self", "you" or "other"
    clause: Clause
    before: Clause | None
    after: Clause | None
    joined: bool  # the clause before holds a name that is claimed
    said: str  # the end of what was said before the clause
    asked: Asked
    opening: bool  # in the first sentence of the answer, behind "好的" and "no" at most


def clauses_of(text: str) -> list[Clause]:
    result: list[Clause] = []
    start, first = 0, True
    borders = [(m.start(), m.end()) for m in _BORDER.finditer(text)]
    for left, right in (*borders, (len(text), len(text))):
        piece, mark = text[start:left], text[left:right]
        over = right == len(text) or any(c in _OVER for c in mark)
        if piece.strip():
            end = "\n" if "\n" in mark else mark.strip()
            result.append(Clause(start, piece, end, first, over))
            first = over
        else:
            first = first or over
        start = right
    return result


_FOREIGN_FIRST = pattern(f"<head>{FOREIGN}")
# Behind a foreign name at the head of a clause that goes on speaking of the one before.
_STILL_SELF = pattern(
    rf"<mark>*$|'s|(?:(?![是由])[^,;]){{0,16}}?<made>[^,;]{{0,4}}的(?!是|{ANY})|(?:公司|集团"
    rf"|旗下)?的[^,;]*<ai>"
    rf"|的[^,;]*版|的{ANY}|[^,;]{{0,4}}(?:出品|<made>$)|\s*{ANY}|\s*(?:here|speaking|by name"
    rf"|by weights|powers|is my|is the model)"
)
# "My name is not …, but …": speaks on of whom the clause before spoke, not of the name in it.
RESUMES = pattern(r"\s*(?:属于|来自|由|出自|而是?|只有|只是|but|rather|it's|it is)")
_JUST_IS = pattern(r"\s*(?:就是|正是|it's|it is)")
_IT_IS = pattern(r"<head>(?<![a-z])(?:it's|it is|it was|that's|这是)|^\s*(?:it's|it is|it was)")
_SPEAKER = pattern(r"<self>|\b(?:I|I'm|my|me)\b")


def subject_of(clause: Clause, before: Clause | None, inherited: str) -> str:
    """Whom the clause speaks of; without a subject of its own, whom the one before did."""
    if wordings.SELF_SUBJECT.match(clause.text):
        return "self"
    if wordings.YOU_SUBJECT.match(clause.text):
        return "you"
    if wordings.OTHER_SUBJECT.match(clause.text):
        return "other"
    if inherited == "you" and _JUST_IS.match(clause.text):
        return "self"
    if before is not None and _IT_IS.match(clause.text) and _SPEAKER.search(before.text):
        return "self"
    head = _FOREIGN_FIRST.match(clause.text)
    if head and "是" not in head[0]:
        rest = clause.text[head.end() :]
        if not any(
            p.match(rest) for p in (_STILL_SELF, wordings.NAME_BEHIND, wordings.BASE_BEHIND)
        ):
            return "other"
    return inherited


# Only names, up to the end of what stands before or behind a name.
HEAD_LIST = pattern(
    rf"<head>(?:{ANY}\s*(?:<made>(?<!了)(?:出来)?)?(?:[、,/·&+]|and|or|by|from|of|和|与|或|也好"
    rf"|的|'s? own|'s?)?\s*)*"
)
NOTHING_ELSE = pattern(
    rf"(?:公司|集团|团队|实验室|的|啦|呀|啊|哦|喔|呢|了|吧|哟|嘛|呗|同学|大?模型|AI|本[尊人]"
    rf"|<mark>|{ANY}|'s|and|and then|(?:made |built )?by|from|of|team|company|inc|labs?|staff"
    rf"|crew|with an? [\w ]{{0,20}}|under (?:a|another) [\w ]{{0,20}}|if you (?:prefer|like"
    rf"|wish)|v?\d[\d.a-z]*|lol|haha+|hehe+|duh|obviously|btw|instruct|chat|pro|mini|turbo|plus|ultra|flash"
    rf"|[\u4e00-\u9fff]{{0,4}}团队|和|与|及)*"
)
