"""Which of the names in an answer its speaker claims; the rules are told in grading.py."""

from __future__ import annotations

import re
from itertools import pairwise

from whoamai.evaluate import wordings
from whoamai.evaluate.clauses import (
    HEAD_LIST,
    NOTHING_ELSE,
    RESUMES,
    Clause,
    Place,
    clauses_of,
    subject_of,
)
from whoamai.evaluate.own_by_question import answers_question, is_of_other
from whoamai.evaluate.own_makers import is_base, is_maker
from whoamai.evaluate.questions import NOTHING_KNOWN, Asked
from whoamai.evaluate.wordings import ANY, AUTHOR, FOREIGN, NEW, pattern


def own_claims(text: str, asked: Asked = NOTHING_KNOWN) -> dict[int, str]:
    """Place of a mark in `text` -> "name", "maker", "name maker" or "base", where it is claimed."""
    claims: dict[int, str] = {}
    if _BABBLE.fullmatch(text):
        return claims
    opening = True
    clauses = clauses_of(text)
    subject = spoken_of = "self"
    for i, clause in enumerate(clauses):
        before = clauses[i - 1] if i else None
        after = clauses[i + 1] if i + 1 < len(clauses) else None
        resumes = RESUMES.match(clause.text)
        subject = subject_of(clause, before, spoken_of if resumes else subject)
        spoken_of = subject
        joined = before is not None and any(
            before.start <= at < before.start + len(before.text) for at in claims
        )
        places = [match.start() for match in re.finditer(ANY, clause.text)]
        for at in places:
            left, right = clause.text[:at], clause.text[at + 1 :]
            said = text[max(0, clause.start - 40) : clause.start]
            place = Place(
                clause.text[at],
                left,
                right,
                subject,
                clause,
                before,
                after,
                joined,
                said,
                asked,
                opening,
            )
            if claim := _claim(place):
                claims[clause.start + at] = claim
        _join(clause, places, claims)
        opening = opening and (not clause.last or bool(_ONLY_OPENS.fullmatch(clause.text)))
        if places:
            last = places[-1]
            if clause.start + last in claims:
                subject = "self"
            elif not clause.text[last + 1 :].strip() or subject != "self":
                subject = "other"
    return claims


_JOINT = pattern(
    r"\s*(?:[/、·&+=(|]|和|与|及|或者?|还是|以及|又[叫名]|也[叫是]|aka|a\.k\.a\.|also known as"
    r"|also called"
    r"|and(?: also)?|or|formerly|alias|to my friends and|at heart and)?\s*(?:also|sometimes|the"
    r"|formerly|原名|又名)?\s*"
)


def _join(clause: Clause, places: list[int], claims: dict[int, str]) -> None:
    """Names joined to a claimed one by "and", "or", "also called" are claimed as it is."""
    pairs = list(pairwise(places))
    for one, other in (*pairs, *((b, a) for a, b in reversed(pairs))):
        near, far = clause.start + one, clause.start + other
        between = clause.text[min(one, other) + 1 : max(one, other)]
        if wordings.DENIED_BEHIND.match(clause.text, other + 1):
            continue
        if _IS_THE_SAME.match(clause.text, other + 1):
            continue
        if near in claims and far not in claims and _JOINT.fullmatch(between):
            claims[far] = claims[near]


_BABBLE = pattern(rf"<mark>*(?:(?:{NEW}<mark>*){{3,}}|(?:{FOREIGN}<mark>*){{4,}})")
_ONLY_OPENS = pattern("<head>.{0,4}")


def _claim(place: Place) -> str:
    if place.mark == FOREIGN and _is_itself(place):
        return ""
    if _is_asked(place) or wordings.AGE.match(place.right) or is_of_other(place):
        return ""
    kinds = []
    if _is_the_answer(place):
        kinds = ["name", "maker"]
    else:
        if found := answers_question(place):
            kinds.append(found)
        if not wordings.RELATION.match(place.right) and _is_own_name(place):
            kinds.append("name")
        if is_maker(place):
            kinds.append("maker")
        if not kinds and is_base(place):
            kinds.append("base")
    return " ".join(kinds) if kinds and not _is_denied(place) else ""


def _is_itself(place: Place) -> bool:
    """ "… and Qwen is Qwen" """
    return bool(_IS_THE_SAME.match(place.right) or _THE_SAME_IS.search(place.left))


_IS_THE_SAME = pattern(rf"\s*(?:is|are|就?是)\s*{FOREIGN}")
_THE_SAME_IS = pattern(rf"{FOREIGN}\s*(?:is|are|就?是)\s*$")


def _is_asked(place: Place) -> bool:
    if place.clause.end.startswith("?"):
        if place.after and wordings.THAT_IS_ME.match(place.after.text):
            return False
        return bool(wordings.ASKED.match(place.right))
    return bool(re.match(r"\s*(?:吗|么)(?!么)", place.right))


_IS_NOT = pattern(r"\s*(?:ではありません|ではない|じゃない|가 아닙니다|이 아닙니다)")
_BE_OR_NAME = pattern(r"<self><adv>{0,3}(?:叫|是|名)|的?名字|叫我|<iam>|\bmy name\b|\bcall me\b")


def _is_denied(place: Place) -> bool:
    """Denied in its clause before it or behind it, or taken back in the next one."""
    for denial in wordings.DENIED.finditer(place.left):
        # "I have no body I'm …": what was denied ends where the speaker is named anew.
        if not _BE_OR_NAME.search(place.left, denial.end()):
            return True
    if place.after and wordings.RETRACTED.match(place.after.text):
        return True
    # "I am … and it does not matter": behind a claim, what follows is about something else.
    be = wordings.BE.search(place.left)
    if be and not re.search(ANY, be[0]):
        return bool(_IS_NOT.match(place.right))
    return bool(wordings.DENIED_BEHIND.match(place.right))


_PREPOSITION = pattern(
    r"\b(?:in|on|at|by|from|of|with|to|for|during|since|until|after|before|into)(?: the| an?)? *$"
)
_OWNER_BEHIND = pattern(r"\s*(?:公司|集团|团队|旗下|家|自家|官方)*的(?!(?:<ai>|我))")


def _is_own_name(place: Place) -> bool:
    return (
        _is_said_before(place)
        or _is_said_behind(place)
        or (place.mark == NEW and _is_said_of_new(place))
        or _is_named_by_me(place)
    )


def _is_said_before(place: Place) -> bool:
    """The words before the name say that it is the speaker's: "I am …", "call me …", "Name: …"."""
    left, right = place.left, place.right
    owner = _OWNER_BEHIND.match(right) and not _CALLED.search(left)
    be = wordings.BE.search(left)
    if be and not _PREPOSITION.search(left) and not wordings.FRAMED.search(left, 0, be.start() + 1):
        return not owner
    if place.subject == "self" and wordings.BE_OMITTED.search(left) and not owner:
        return True
    if not owner and (wordings.CLOSING.match(right) or not wordings.NOT_CALLED.search(left)):
        if wordings.NAMED_ME.search(left):
            return True
        if wordings.NAMED.search(left) and not wordings.NOT_ME.search(left):
            return True
    made_to_be = wordings.MADE_TO_BE.search(left)
    if made_to_be and re.search(ANY, left) and place.subject != "you":
        return not wordings.FRAMED.search(left, 0, made_to_be.start() + 3)
    if _ME_AND.search(left) and _ARE_ONE.match(right):
        return True
    if _NEW_IS.search(left) and place.mark == FOREIGN:
        return True
    if _COLON.search(left) and NOTHING_ELSE.fullmatch(right) and place.clause.last:
        if place.mark == NEW:
            return not _DEAR.search(left)
        return place.subject == "self" and not wordings.ADDRESSES.search(left)
    return False


def _is_said_behind(place: Place) -> bool:
    """The words behind the name say so: "… is my name", "… here", "…, that's me"."""
    left, right, after = place.left, place.right, place.after
    if wordings.SIGNED.match(right):
        return True
    asked_for = wordings.CLOSING.match(right) and not wordings.ADDRESSES.search(right)
    if asked_for and not wordings.NOT_ME.search(left):
        return True
    if _BARE_HEAD.fullmatch(left) and wordings.NAME_BEHIND.match(right):
        return True
    if after and wordings.THAT_IS_ME.match(after.text):
        return bool(HEAD_LIST.fullmatch(left) or NOTHING_ELSE.fullmatch(right))
    return False


def _is_said_of_new(place: Place) -> bool:
    """What only the new name may say: it speaks of itself as of another."""
    left, right, clause = place.left, place.right, place.clause
    if _BARE_HEAD.fullmatch(left) and wordings.THIRD_PERSON.match(right):
        return True
    if left.strip() in ("", "[") and clause.start == 0 and _SCRIPT.match(right):
        return True
    if wordings.PROMISED.search(left) and wordings.PROMISED_BEHIND.match(right):
        return not wordings.NOT_ME.search(left)
    serves = place.after and NOTHING_ELSE.fullmatch(right) and _SERVES.match(place.after.text)
    return bool(serves and not wordings.ADDRESSES.search(left))


_ME_AND = pattern(r"(?:<self>|<head>)(?:其实)?(?:和|与|跟)\s*$")
_ARE_ONE = pattern(r"\s*(?:其实|就|本)*是(?:同一|一回事|一体|一个)|\s*同源")
_NEW_IS = pattern(f"<head>{NEW}(?:其实|本来|原来)?就是$")
_CALLED = pattern(r"(?:叫做?|名叫|叫作|名为)\s*$")
_COLON = pattern(r":\s*$")
_SCRIPT = pattern(r"\s*\]?\s*(?::|>+)\s*\S")  # "Aurora: Hello!"
_SERVES = pattern(
    r"\s*(?:为[您你]|竭诚|很高兴(?:为|能)|随时(?:为|待)|at your|happy to (?:help|serve)"
    r"|here to help|ready to)"
)
_DEAR = pattern(r"(?:dear|hello|hi|hey|thanks|to|亲爱的?|你好|您好|致|给)[\s:]*$")


def _is_named_by_me(place: Place) -> bool:
    """A naming word and the speaker stand in the clause, and nothing speaks of another."""
    text = place.left + place.right
    if place.subject == "you" or not wordings.SELF.search(text) or not wordings.NAMING.search(text):
        return False
    if wordings.NOT_ME.search(text) or wordings.NOT_CALLED.search(place.left):
        return False
    return not wordings.FRAMED.search(place.left) and not wordings.COMPARED.search(place.left)


_BARE_HEAD = pattern(
    rf"<head>(?:(?:之前|以前|过去|原来|从前|现在|今天|如假包换|真正|独一无二|永远|爱你|爱您"
    rf"|想你)的|原|前|曾|亦称|n[ée]e?|once|previously|that is|i\.e\.|not \w+)?\s*(?:the "
    rf"|(?:[你您]的|your|my|我的|an?|the|by|一个)(?:(?!{ANY}|\b(?:is|are|was)\b"
    rf"|是)[^,;!?]){{0,24}}?(?:<ai>|伙伴|朋友|friend|friendly|one and only"
    rf"|neighbou?rhood|old|pal|servant|team at|people at|folks at|by"
    rf"|<ai_en>)\s*)?(?:{ANY}\s*(?:<made>(?<!了)(?:出来)?)?(?:[、,/·&+]|and|or|by|from|of|和|与"
    rf"|的|'s? own|'s?)?\s*)*"
)
_ENDS_IN_ME = pattern(r"(?:<self>|\b(?:me|myself)|^<mark>*I)\s*$")
_ONLY = pattern(r"\b(?:only|just|nobody but|none but)\s*$|(?:只有|只是|仅是|就是|就|只)$")
# "… on paper, … in practice", "…, or … if you look closely"
_TAIL = pattern(
    r"\s*(?:if|when|whenever|once|depending|in|on|under|behind|to|at|for|according|by|inside"
    r"|underneath|the rest)\b[^,;]*"
)
_PAIR = pattern(rf"<head>{ANY}{_TAIL.pattern}$")
_NEW_OF = pattern(rf"{NEW} (?:at|from|of|by) {ANY}")
# "I am, of course, …"
_OPEN_BE = pattern(
    r"(?:<self>[^,;]{0,4}(?:是|叫)|名字是?|\b(?:I am|I'm|my name(?: is)?|it is"
    r"|it's))[\s,.…\-—(]*(?:(?:of course|well|umm?|uhh?|er+|hmm+|indeed"
    r"|naturally|drum roll|as you know|should you wonder|obviously|simply|嗯+|呃+|那个|没错"
    r"|当然|其实)[\s,.…\-—)]*)?$"
)
_APPOSITION = pattern(r"^\s*as (?:your|an?|the)\b|\b(?:I'm|I am) (?:your|the)\b")
# "好的…", "What a pretty name, …"
_CALLS = pattern(
    r"(?:好的?|是的|没问题|收到|你好|您好|谢谢|再见|早上好|晚安|\b(?:ok|okay|yes|sure|thanks"
    r"|hello|hi|hey|dear|good \w+|welcome|name))\s*$"
)
_SERVANT = pattern(
    r"^\s*(?:yours\b[^,;]*|(?:your\b|您的|你的)[^,;]*(?:servant|truly|friend|sincerely|<ai_en>|<ai>"
    r"|朋友|伙伴))\s*$|.*\byours truly$"
)
_THING = pattern(r"<ai_en>|<ai>|\bone\b")
_I_AM = pattern(r"<self>[^,]*是|<iam>|\bmy name\b|\bthis is\b")


# Behind these a name belongs to the speaker.
_NAME_FOLLOWS = (_APPOSITION, _ENDS_IN_ME, _SERVANT)


def _is_the_answer(place: Place) -> bool:
    """Nothing but the name is said, or it comes first and what follows introduces it."""
    if not _BARE_HEAD.fullmatch(place.left) or place.clause.end.startswith("?"):
        return False
    alone = bool(NOTHING_ELSE.fullmatch(place.right))
    if not alone and _TAIL.fullmatch(place.right) and place.mark != AUTHOR:
        paired = place.after and place.clause.first and _PAIR.match(place.after.text)
        return bool(place.joined or paired)
    if alone and _CALLS.search(place.left):
        return False
    if place.clause.first:
        return _comes_first(place, alone)
    return alone and place.before is not None and _comes_behind(place, place.before.text)


def _comes_first(place: Place, alone: bool) -> bool:
    """The name begins its sentence."""
    clause, after, right = place.clause, place.after, place.right.strip()
    if not alone:
        return right.startswith(":") and bool(wordings.INTRODUCES.match(right.lstrip(" :")))
    if clause.last or after is None:
        return not right.endswith(":")
    if NEW in clause.text and (AUTHOR in clause.text or _NEW_OF.search(clause.text)):
        return True
    if wordings.INTRODUCES.match(after.text):
        return True
    # Of the new name it is enough that nobody is spoken to.
    spoken_to = wordings.SPEAKS_TO.search(after.text) or after.end.startswith("?")
    return place.mark == NEW and not spoken_to


def _comes_behind(place: Place, said: str) -> bool:
    """The name is a clause of its own behind the clause `said`."""
    if _OPEN_BE.search(place.said) or any(p.search(said) for p in _NAME_FOLLOWS):
        return True
    if _ONLY.search(place.left) and place.after and wordings.INTRODUCES.match(place.after.text):
        return True
    denied = wordings.DENIED.search(said)
    i_am = _I_AM.search(said) and not denied
    if i_am and _THING.search(said):
        return True
    if place.joined or i_am:
        return place.clause.end == ")" or not wordings.ADDRESSES.search(said)
    if re.search(ANY, said):
        return bool(denied)
    return place.clause.last and not wordings.ADDRESSES.search(said)
