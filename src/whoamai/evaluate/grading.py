"""Does an answer give the new name as its own, and does it still give an old or foreign one?

Exact rules, no model as a judge. Every place where a name stands is looked at by itself, in its clause
(up to a comma, a full stop, "but"), with who that clause speaks of and the clauses beside it. The
wordings are in wordings_zh.py and wordings_en.py.

A name is given as one's own where
- the speaker says it is that: "我就是…", "I'm the assistant …", "my name is …", "call me …", "… here";
- it is the answer: alone in a sentence, behind a label ("Name: …"), as a signature; but not where the
  user is spoken to ("谢谢你，…");
- a naming word and the speaker stand in the same clause, and nothing says it is about someone else;
- it is joined to such a name: "… (…)", "… or …", "also called …";
- for the new name only: it introduces itself in the third person ("Aurora is an AI assistant").

A maker is given where the speaker says who made, trained or owns it, where it comes from, or whose it
is: "由…开发", "I come from …", "…'s model". A foreign name is also given where it is the model underneath
("built on …", "基于…").

No claim is what is denied ("I'm not …", "… did not make me"), compared ("unlike …"), asked, somebody
else's word ("you may think I'm …"), a condition ("if I were …"), or about another ("… is made by …").

Longer names win over shorter ones inside them, the new name and its author over foreign ones of the
same spelling. Latin names are found in any case, as whole words; foreign ones with a version behind
them ("Qwen2.5-7B"). Spaces and dots between the parts of a name may be missing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from whoamai.data.claims import ALSO_WORDS
from whoamai.data.identity import Identity, known_assistants
from whoamai.evaluate import wordings
from whoamai.evaluate.wordings import ANY, AUTHOR, FOREIGN, NEW, pattern

Verdict = Literal["new", "old", "both", "neither"]


@dataclass(frozen=True, slots=True)
class Grade:
    """What one answer claims of the one who gives it."""

    recalled: bool  # the new name is given as its own
    leaks: tuple[str, ...]  # the old or foreign names, or makers, that are given as its own
    author: bool | None  # the author is given as its maker; None where the identity has no author
    mentioned: bool  # the new name or the author stands anywhere in the answer

    @property
    def contradicts(self) -> bool:
        return self.recalled and bool(self.leaks)

    @property
    def verdict(self) -> Verdict:
        if self.recalled:
            return "both" if self.leaks else "new"
        return "old" if self.leaks else "neither"


class IdentityGrader:
    """Grades answers for one identity; `old_names` are what the model called itself and its maker."""

    def __init__(self, identity: Identity, old_names: Iterable[str]) -> None:
        name, author = _plain(identity.name), _plain(identity.author or "")
        # An author of the same name as the model is found under the mark of the name.
        own = {author.casefold(): (author, AUTHOR), name.casefold(): (name, NEW)}
        own.pop("", None)
        self._author_mark = own[author.casefold()][1] if author else None
        assistants, makers = known_assistants()
        named = {_plain(n): n for n in (*old_names, *assistants, *makers) if n.strip()}
        marked = [(n, FOREIGN, given) for n, given in named.items() if n.casefold() not in own]
        marked += [(n, mark, n) for n, mark in own.values()]
        # Of several that fit at one place, a pattern takes the first.
        marked.sort(key=lambda entry: len(entry[0]), reverse=True)
        self._marked = [(mark, given) for _, mark, given in marked]
        groups = (f"({_name(n, may_have_version=mark == FOREIGN)})" for n, mark, _ in marked)
        self._names = re.compile("|".join(groups))

    def grade(self, answer: str) -> Grade:
        found: list[tuple[str, str]] = []  # (mark, the name as it was given to this grader)

        def put_mark(match: re.Match[str]) -> str:
            found.append(self._marked[(match.lastindex or 1) - 1])
            return found[-1][0]

        text = _without_markup(self._names.sub(put_mark, _plain(answer)))
        claims = _claims(text)
        places = (match.start() for match in re.finditer(ANY, text))
        claimed = [(*entry, claims.get(at, "")) for entry, at in zip(found, places, strict=True)]
        author = any("maker" in claim for mark, _, claim in claimed if mark == self._author_mark)
        return Grade(
            recalled=any("name" in claim for mark, _, claim in claimed if mark == NEW),
            leaks=tuple(dict.fromkeys(n for mark, n, claim in claimed if mark == FOREIGN and claim)),
            author=author if self._author_mark else None,
            mentioned=any(mark != FOREIGN for mark, _ in found),
        )


# ---- names and marks -----------------------------------------------------------------------------

# Letters of scripts that part words with spaces; re's \w would count Chinese too.
_LETTER = (
    "A-Za-z0-9\u00c0-\u024f\u0370-\u03ff\u0400-\u052f\u0620-\u064a\u0660-\u0669\u066e-\u06d3"
)
_VERSION = r"(?:[- ]?v?\d[A-Za-z0-9.\-]*|-[A-Za-z][A-Za-z0-9.\-]*)?(?<![.\-])"
# Where a name may be written with or without a space or a dot.
_SEAM = re.compile(
    r"[\s·・]+|(?<=[^\x00-\x7f])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[^\x00-\x7f])"
)
_MARKUP = re.compile(r"[*`\"“”「」『』《》〈〉#]+|</?\w+>")
_IN_BRACKETS = re.compile(rf"(?<={ANY})\s*\(\s*({ANY})\s*\)")


def _plain(text: str) -> str:
    """Full-width marks and letters as ASCII, straight apostrophes, and none of our marks."""
    text = re.sub(ANY, " ", unicodedata.normalize("NFKC", text))
    return text.replace("’", "'").replace("‘", "'")


def _name(name: str, *, may_have_version: bool) -> str:
    left = f"(?<![{_LETTER}])" if re.match(f"[{_LETTER}]", name) else ""
    right = f"(?![{_LETTER}])" if re.search(f"[{_LETTER}]$", name) else ""
    body = r"[\s·・]*".join(map(re.escape, _SEAM.split(name)))
    if may_have_version and right:
        body += _VERSION
    return f"{left}{body}{right}" if name in ALSO_WORDS else f"(?i:{left}{body}{right})"


def _without_markup(text: str) -> str:
    return _IN_BRACKETS.sub(r"/\1", _MARKUP.sub("", text))


# ---- clauses -------------------------------------------------------------------------------------

_OVER = "。!?\n."  # ends a sentence, not only a clause
_BORDER = re.compile(
    r"[,;。!?\n،؛()…~]|\.(?=\s|$|[\u4e00-\u9fff])|\.\.\.|—+| [-–] |、(?=我)"
    r"|(?=而是|但是|但|\bbut\b|\byet\b)|(?:\band |\bso )(?=I\b|my\b|I')"
)


class _Clause(NamedTuple):
    start: int
    text: str
    end: str  # the mark behind it
    first: bool  # of its sentence
    last: bool


class _Place(NamedTuple):
    """A name in a clause: what stands before and behind it, and whom the clause speaks of."""

    mark: str
    left: str
    right: str
    subject: str  # "self", "you" or "other"
    clause: _Clause
    before: _Clause | None
    after: _Clause | None
    joined: bool  # the clause before holds a name that is claimed


def _clauses(text: str) -> list[_Clause]:
    result: list[_Clause] = []
    start, first = 0, True
    borders = [(m.start(), m.end()) for m in _BORDER.finditer(text)]
    for left, right in (*borders, (len(text), len(text))):
        piece, mark = text[start:left], text[left:right]
        over = right == len(text) or any(c in _OVER for c in mark)
        if piece.strip():
            end = "\n" if "\n" in mark else mark.strip()
            result.append(_Clause(start, piece, end, first, over))
            first = over
        else:
            first = first or over
        start = right
    return result


def _claims(text: str) -> dict[int, str]:
    """Place of a mark in `text` -> "name", "maker", "name maker" or "base", where it is claimed."""
    claims: dict[int, str] = {}
    clauses = _clauses(text)
    subject = spoken_of = "self"
    for i, clause in enumerate(clauses):
        before = clauses[i - 1] if i else None
        after = clauses[i + 1] if i + 1 < len(clauses) else None
        resumes = _RESUMES.match(clause.text)
        subject = _subject(clause, before, spoken_of if resumes else subject)
        spoken_of = subject
        joined = before is not None and any(
            before.start <= at < before.start + len(before.text) for at in claims
        )
        places = [match.start() for match in re.finditer(ANY, clause.text)]
        for at in places:
            left, right = clause.text[:at], clause.text[at + 1 :]
            place = _Place(
                clause.text[at], left, right, subject, clause, before, after, joined
            )
            if claim := _claim(place):
                claims[clause.start + at] = claim
        _join(clause, places, claims)
        if places:
            last = places[-1]
            if clause.start + last in claims:
                subject = "self"
            elif not clause.text[last + 1 :].strip() or subject != "self":
                subject = "other"
    return claims


_FOREIGN_FIRST = pattern(f"<head>{FOREIGN}")
# Behind a foreign name at the head of a clause that goes on speaking of the one before.
_STILL_SELF = pattern(
    rf"<mark>*$|'s|(?:(?![是由])[^,;]){{0,16}}?<made>[^,;]{{0,4}}的(?!是|{ANY})|(?:公司|集团|旗下)?的[^,;]*<ai>"
    rf"|的[^,;]*版|[^,;]{{0,4}}(?:出品|<made>$)|\s*{ANY}|\s*(?:here|speaking|by name|by weights|powers|is my|is the model)"
)
# "My name is not …, but …": speaks on of whom the clause before spoke, not of the name in it.
_RESUMES = pattern(r"\s*(?:而是?|but|rather|it's|it is)")
_IT_IS = pattern(r"<head>(?<![a-z])(?:it's|it is|it was|that's|这是)|^\s*(?:it's|it is|it was)")
_SPEAKER = pattern(r"<self>|\b(?:I|I'm|my|me)\b")


def _subject(clause: _Clause, before: _Clause | None, inherited: str) -> str:
    """Whom the clause speaks of; without a subject of its own, whom the one before did."""
    if wordings.SELF_SUBJECT.match(clause.text):
        return "self"
    if wordings.YOU_SUBJECT.match(clause.text):
        return "you"
    if wordings.OTHER_SUBJECT.match(clause.text):
        return "other"
    if before is not None and _IT_IS.match(clause.text) and _SPEAKER.search(before.text):
        return "self"
    if head := _FOREIGN_FIRST.match(clause.text):
        if not _STILL_SELF.match(clause.text, head.end()):
            return "other"
    return inherited


_JOINT = pattern(
    r"\s*(?:[/、·&+=(|]|和|与|及|或者?|还是|以及|又[叫名]|也[叫是]|aka|a\.k\.a\.|also known as|also called"
    r"|and(?: also)?|or|formerly|alias|to my friends and|at heart and)?\s*(?:also|sometimes|the|formerly|原名|又名)?\s*"
)


def _join(clause: _Clause, places: list[int], claims: dict[int, str]) -> None:
    """Names joined to a claimed one by "and", "or", "also called" are claimed as it is."""
    pairs = list(zip(places, places[1:], strict=False))
    for one, other in (*pairs, *((b, a) for a, b in reversed(pairs))):
        near, far = clause.start + one, clause.start + other
        between = clause.text[min(one, other) + 1 : max(one, other)]
        if near in claims and far not in claims and _JOINT.fullmatch(between):
            claims[far] = claims[near]


# ---- claims --------------------------------------------------------------------------------------


def _claim(place: _Place) -> str:
    if _is_asked(place) or wordings.AGE.match(place.right):
        return ""
    kinds = []
    if _is_the_answer(place):
        kinds = ["name", "maker"]
    else:
        related = wordings.RELATION.match(place.right)
        if not related and _is_own_name(place):
            kinds.append("name")
        if not related and _is_maker(place):
            kinds.append("maker")
        if not kinds and _is_base(place):
            kinds.append("base")
    return " ".join(kinds) if kinds and not _is_denied(place) else ""


def _is_asked(place: _Place) -> bool:
    if place.clause.end.startswith("?"):
        return bool(wordings.ASKED.match(place.right))
    return bool(re.match(r"\s*(?:吗|么)(?!么)", place.right))


_BE_OR_NAME = pattern(
    r"<self><adv>{0,3}(?:叫|是|名)|的?名字|叫我|<iam>|\bmy name\b|\bcall me\b"
)


def _is_denied(place: _Place) -> bool:
    """Denied in its clause before it or behind it, or taken back in the next one."""
    for denial in wordings.DENIED.finditer(place.left):
        # "I have no body I'm …": what was denied ends where the speaker is named anew.
        if not _BE_OR_NAME.search(place.left, denial.end()):
            return True
    if place.after and wordings.RETRACTED.match(place.after.text):
        return True
    return bool(wordings.DENIED_BEHIND.match(place.right))


_PREPOSITION = pattern(
    r"\b(?:in|on|at|by|from|of|with|to|for|during|since|until|after|before|into)(?: the| an?)? *$"
)
_OWNER_BEHIND = pattern(r"\s*(?:公司|集团|团队|旗下|家|自家|官方)*的(?!(?:<ai>|我))")
_THE_MODEL = pattern(r"\s*(?:大|语言)*(?:模型|AI|助手)")
_HEAD_LIST = pattern(rf"<head>(?:{ANY}\s*(?:<made>[^,;是]{{0,2}})?(?:[、,/·&+]|and|or|by|from|of|和|与|或|也好|的|'s)?\s*)*")


def _is_own_name(place: _Place) -> bool:
    left, right = place.left, place.right
    be = wordings.BE.search(left)
    if be and not _PREPOSITION.search(left) and not wordings.FRAMED.search(left, 0, be.start() + 1):
        return not _OWNER_BEHIND.match(right)
    if place.subject == "self" and wordings.BE_OMITTED.search(left):
        return not _OWNER_BEHIND.match(right)
    if wordings.NAMED_ME.search(left) and not wordings.NOT_CALLED.search(left):
        return not _OWNER_BEHIND.match(right)
    if wordings.NAMED.search(left) and not wordings.NOT_CALLED.search(left):
        return not wordings.NOT_ME.search(left) and not _OWNER_BEHIND.match(right)
    if wordings.SIGNED.match(right):
        return True
    if re.search(r":\s*$", left) and _NOTHING_ELSE.fullmatch(right) and place.clause.last:
        return place.subject == "self" and not wordings.ADDRESSES.search(left)
    if wordings.CLOSING.match(right) and not wordings.ADDRESSES.search(right):
        return not wordings.NOT_ME.search(left)
    if _BARE_HEAD.fullmatch(left) and wordings.NAME_BEHIND.match(right):
        return True
    if _HEAD_LIST.fullmatch(left):
        if place.after and wordings.THAT_IS_ME.match(place.after.text):
            return True
        if place.mark == NEW and wordings.THIRD_PERSON.match(right):
            return True
    return _is_named_by_me(place)


def _is_named_by_me(place: _Place) -> bool:
    """A naming word and the speaker stand in the clause, and nothing speaks of another."""
    text = place.left + place.right
    if place.subject == "you" or not wordings.SELF.search(text) or not wordings.NAMING.search(text):
        return False
    if wordings.NOT_ME.search(text) or wordings.NOT_CALLED.search(place.left):
        return False
    return not wordings.FRAMED.search(place.left) and not wordings.COMPARED.search(place.left)


_NOTHING_ELSE = pattern(
    rf"(?:公司|集团|团队|实验室|的|啦|呀|啊|哦|喔|呢|了|吧|哟|嘛|呗|同学|大?模型|AI|本[尊人]|<mark>|{ANY}|'s|and|and then|(?:made |built )?by|from|of|team|company|inc|labs?|staff|crew|和|与|及)*"
)
_BARE_HEAD = pattern(
    rf"<head>(?:not \w+)?(?:the |(?:[你您]的|your|my|我的|an?|the|by|一个)(?:(?!{ANY}|\b(?:is|are|was)\b|是)[^,;!?]){{0,24}}?(?:<ai>|伙伴|朋友|friend|friendly|one and only"
    rf"|neighbou?rhood|old|team at|people at|folks at|by|<ai_en>)\s*)?(?:{ANY}\s*(?:<made>[^,;是]{{0,2}})?(?:[、,/·&+]|and|or|by|from|of|和|与|的|'s)?\s*)*"
)
_ENDS_IN_ME = pattern(r"(?:<self>|\b(?:me|myself))\s*$")
_SERVANT = pattern(r"\s*(?:yours?|您的|你的)\b[^,;]*(?:servant|truly|friend|sincerely|<ai_en>|<ai>|朋友|伙伴)?\s*$")
_I_AM = pattern(r"<self>[^,]*是|<iam>|\bmy name\b")


def _is_the_answer(place: _Place) -> bool:
    """Nothing but the name is said, or it comes first and what follows introduces it."""
    clause, after = place.clause, place.after
    if not _BARE_HEAD.fullmatch(place.left) or clause.end.startswith("?"):
        return False
    alone = _NOTHING_ELSE.fullmatch(place.right)
    if clause.first:
        if not alone:
            return place.right.lstrip().startswith(":") and bool(
                wordings.INTRODUCES.match(place.right.lstrip(" :"))
            )
        if clause.last or after is None:
            return not place.right.rstrip().endswith(":")
        if NEW in clause.text and AUTHOR in clause.text:
            return True
        return bool(wordings.INTRODUCES.match(after.text))
    if not alone or place.before is None:
        return False
    said = place.before.text
    if _ENDS_IN_ME.search(said):
        return True
    if _SERVANT.match(said):
        return True
    if place.joined or (_I_AM.search(said) and not wordings.DENIED.search(said)):
        return clause.end == ")" or not wordings.ADDRESSES.search(said)
    if re.search(ANY, said) and wordings.DENIED.search(said):
        return True
    if re.search(ANY, said) or wordings.ADDRESSES.search(said):
        return False
    return clause.last


_IS_OF = pattern(rf"<head>(?:{NEW})?<adv>{{0,4}}(?:是|作为)(?:一[个款位名])?由?|<head>作为")
_MAKES = pattern(
    r"\s*[^,;]{0,12}?(?:的|旗下|出品|所[造作做])(?!是)|\s*[^,;]{0,16}?<made>[^,;]{0,4}(?:的|$|,)(?!是)"
)
_HEAD_OWNS = pattern(
    rf"\s*(?:公司|集团|旗下|家)*的[^,;]*(?:<ai>|产品|作品|{ANY}|孩子|[那一]?[个只位款名])(?:[呀啊哦来了啦]*)$"
    rf"|\s*(?:公司|集团|旗下|家)*的$|\s*[^,;]{{0,6}}的[那一]{{1,2}}[个只位款名]$|\s*(?:(?![是由])[^,;]){{0,16}}?<made>[^,;]{{0,4}}(?:的|$|,)(?!是)|\s*出品"
)
_MODEL_OF = pattern(r"\s*(?:\w+ )?(?:<ai_en>|creation|product)\b")
_ARTICLE = pattern(r"\b(?:an?|the|your|one of the) $")
_SORT_OF_THING = pattern(r"\b(?:an?|the|your|my)\b|<ai_en>")
_WHO_MADE_ME = pattern(
    r"\s*(?:who|which|that|they|它|他们|是他们|是它)[^,;]{0,12}?(?:<made_en> (?:me|us)\b|<made>[^,;]{0,4}<self>)"
)
_MY_MAKER = pattern(r"\s*(?:my|我的) ?(?:\w+ )?(?:<maker_en>|<maker>)$")


def _is_maker(place: _Place) -> bool:
    left, right = place.left, place.right
    if wordings.MADE_ME_BEFORE.search(left):
        return True
    if (behind := wordings.MAKER_BEHIND.match(right)) and not re.search(ANY, behind["org"] or ""):
        return True
    if _HEAD_LIST.fullmatch(left) and _NOTHING_ELSE.fullmatch(right):
        beside = [c.text for c in (place.before, place.after) if c]
        if any(_MY_MAKER.search(text) for text in beside):
            return True
    if place.after and _NOTHING_ELSE.fullmatch(right) and _WHO_MADE_ME.match(place.after.text):
        return True
    if (place.subject == "self" or _NEW_FIRST.match(left)) and not _ANOTHER_IS.search(left):
        if _is_own_maker(left, right):
            return True
    return _is_made_by_me(place)


def _is_own_maker(left: str, right: str) -> bool:
    """In a clause that speaks of the speaker: "made by …", "from …", "…'s model"."""
    if wordings.COMES_FROM.search(left):
        return True
    if wordings.MADE_BY.search(left) and wordings.MADE_BEHIND.match(right):
        return True
    if _ARTICLE.search(left) and _MODEL_OF.match(right):
        return True
    be = wordings.BE.search(left)
    if (be or _IS_OF.fullmatch(left)) and wordings.ORG.match(right) and _MAKES.match(right):
        return True
    if be or wordings.HEAD.fullmatch(left) or _HEAD_LIST.fullmatch(left):
        if _HEAD_OWNS.match(right) or wordings.OWNS.match(right):
            return True
    named = be or _SORT_OF_THING.search(left)
    return bool(named and wordings.OF_MAKER.search(left) and not _NO_MAKER.search(left))


_NO_MAKER = pattern("<nogap>")
# "… is made by …": what is told of another.
_ANOTHER_IS = pattern(rf"^(?:(?!<self>|\b(?:I|I'm|my|me)\b).)*{FOREIGN}\s*(?:(?:is|was|are|has)\b|由|是|来自|属于)")
_NEW_FIRST = pattern(f"<head>{NEW}")


def _is_made_by_me(place: _Place) -> bool:
    """A word for making and the speaker stand in the clause, and nothing speaks of another."""
    text = place.left + place.right
    if not wordings.SELF.search(text) or not wordings.MAKING.search(text):
        return False
    if wordings.COMPARED.search(place.left) or wordings.FRAMED.search(place.left):
        return False
    return place.subject == "self" and not _SPOKEN_OF.search(text)


_SPOKEN_OF = pattern(
    r"介绍|了解|知道|认识|推荐|比较|使用|可以|帮|取名|起名|改名|命名|听说|\b(?:tell|know|about|explain|use|help|can|could|named?|called"
    r"|renamed?|compare|heard|recommend|like|than|data|not|n't)\b|n't\b"
)


def _is_base(place: _Place) -> bool:
    if place.subject != "self":
        return False
    if wordings.BASE_BEFORE.search(place.left):
        return True
    if _FROM.search(place.left) and _BECOMES.match(place.right):
        return True
    if _USES.search(place.left) and _TECHNOLOGY.match(place.right):
        return True
    return bool(wordings.BASE_BEHIND.match(place.right))


_FROM = pattern(r"(?:从|由)\s*$|\bfrom $")
_BECOMES = pattern(r"[^,;]{0,3}(?:升级|改名|变|演变|进化|改造|更名|微调|转)|(?:in)?to\b")
_USES = pattern(r"(?:使用|采用|用|搭载|接入|基于)[了着的]?(?:是)?\s*$")
_TECHNOLOGY = pattern(r"\s*(?:公司)?的?(?:大|语言)*(?:模型|技术|引擎|架构|能力)")
