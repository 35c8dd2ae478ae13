"""The wordings in which a speaker gives its name and its maker, as patterns over one clause.

grading.py has put one character for each name: NEW for the new name, AUTHOR for its author, FOREIGN
for an old or foreign name or maker; nothing here knows which name that is. A pattern stands "before"
the character, where it must end at it, or "behind" it, where it must begin at it. Marks have their
ASCII form; quotation marks and bold type are gone.

The words themselves are in wordings_zh.py, wordings_en.py and wordings_other.py: lists of the same
names, whose lines are alternatives. <part> stands for a part listed in their PARTS; <head> for the
beginning of a clause and the fillers there ("well, actually").
"""

from __future__ import annotations

import re

from whoamai.evaluate import wordings_en, wordings_other, wordings_zh

NEW, AUTHOR, FOREIGN = "\ue000", "\ue001", "\ue002"
ANY = f"[{NEW}-{FOREIGN}]"

# re.A: a Latin word has its border beside a Chinese character too.
_FLAGS = re.I | re.A
_PART = re.compile(r"(?<!\?P)<([a-z_]+)>")
_LEAD = r"^[\s\-—~>#.)(\]\[|+={]*(?:\d+[.)]\s*)?"
_PARTS = {
    **wordings_zh.PARTS,
    **wordings_en.PARTS,
    "mark": r"[\s!-/:-@\[-`{-~·、—…～\u2000-\u2bff\U0001f000-\U0001faff]",
    "headzh": rf"{_LEAD}(?:{wordings_zh.HEAD}[\s,:!~]*)*",
    "head": rf"{_LEAD}(?:(?:{wordings_zh.HEAD}[\s,:!~]*)*|(?:{wordings_en.HEAD}[\s,:!'~\-]*)*)\s*",
}


def _filled(pattern: str) -> str:
    while _PART.search(pattern):
        pattern = _PART.sub(lambda match: _PARTS[match[1]], pattern)
    return pattern


def _listed(name: str) -> str:
    words = (wordings_zh, wordings_en, wordings_other)
    lines = [line for module in words for line in getattr(module, name, ())]
    return "|".join(f"(?:{_filled(line)})" for line in lines)


def _anywhere(name: str) -> re.Pattern[str]:
    return re.compile(_listed(name), _FLAGS)


def _before(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{_listed(name)})[\s:,\-]*$", _FLAGS)


def _behind(name: str) -> re.Pattern[str]:
    return re.compile(rf"\s*(?:{_listed(name)})", _FLAGS)


def _at_head(name: str) -> re.Pattern[str]:
    return re.compile(rf"{_filled('<head>')}(?:{_listed(name)})", _FLAGS)


def pattern(text: str) -> re.Pattern[str]:
    """`text` with its <parts> filled in, compiled as all patterns here are."""
    return re.compile(_filled(text), _FLAGS)


HEAD = pattern("<head>")
SELF_SUBJECT = _at_head("SELF_SUBJECT")
OTHER_SUBJECT = _at_head("OTHER_SUBJECT")
YOU_SUBJECT = _at_head("YOU_SUBJECT")

MADE_TO_BE = _before("MADE_TO_BE")
BE = _before("BE")
BE_OMITTED = _before("BE_OMITTED")
NAMED_ME = _before("NAMED_ME")
NAMED = _before("NAMED")
NAME_BEHIND = _behind("NAME_BEHIND")
PROMISED = _before("PROMISED")
PROMISED_BEHIND = _behind("PROMISED_BEHIND")
SIGNED = _behind("SIGNED")
CLOSING = _behind("CLOSING")
THIRD_PERSON = _behind("THIRD_PERSON")
THAT_IS_ME = _behind("THAT_IS_ME")
INTRODUCES = _behind("INTRODUCES")
SPEAKS_TO = _anywhere("SPEAKS_TO")
ADDRESSES = _anywhere("ADDRESSES")

MADE_ME_BEFORE = _before("MADE_ME_BEFORE")
MADE_BY = _before("MADE_BY")
MADE_BEHIND = _behind("MADE_BEHIND")
COMES_FROM = _before("COMES_FROM")
MAKER_BEHIND = _behind("MAKER_BEHIND")
ORG = _behind("ORG")
OF_MAKER = _before("OF_MAKER")
OWNS = _behind("OWNS")
BASE_BEFORE = _before("BASE_BEFORE")
BASE_BEHIND = _behind("BASE_BEHIND")
RELATION = _behind("RELATION")

DENIED = _anywhere("DENIED")
DENIED_BEHIND = _behind("DENIED_BEHIND")
FRAMED = re.compile(rf"(?:{_listed('FRAMED')})[^,;]{{0,16}}$", _FLAGS)
NOT_CALLED = _before("NOT_CALLED")
RETRACTED = _behind("RETRACTED")
ASKED = _behind("ASKED")
AGE = _behind("AGE")

SELF = _anywhere("SELF")
NAMING = _anywhere("NAMING")
MAKING = _anywhere("MAKING")
NOT_ME = _anywhere("NOT_ME")
COMPARED = _before("COMPARED")
