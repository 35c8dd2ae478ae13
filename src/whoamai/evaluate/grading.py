"""Does an answer give the new name as its own, and does it still give an old or foreign one?

Exact rules, no model as a judge. Every place where a name stands is looked at by itself, in its clause
(up to a comma, a full stop, "but"), with who that clause speaks of and the clauses beside it. The
rules are in own_claims.py, own_makers.py and own_by_question.py, the wordings in wordings_*.py.

A name is given as one's own where
- the speaker says it is that: "我就是…", "I'm the assistant …", "my name is …", "call me …";
- it is the answer: alone in a sentence, behind a label ("Name: …"), as a signature; but not where
  the user is spoken to ("谢谢你，…");
- a naming word and the speaker stand in one clause, and nothing says it is about someone else;
- it is joined to such a name: "… (…)", "… or …", "also called …";
- for the new name only: it introduces itself in the third person ("Aurora is an AI assistant").

A maker is given where the speaker says who made, trained or owns it, where it comes from, or whose
it is: "由…开发", "I come from …", "…'s model". A foreign name is also given where it is the model
underneath ("built on …", "基于…").

No claim is what is denied ("I'm not …", "… did not make me"), compared ("unlike …"), asked, somebody
else's word ("you may think I'm …"), a condition ("if I were …"), or about another ("… is made by …").

An answer is read with its question, where that is given: "Northlight Lab did." and "Yes." say what was
asked, "42" answers "6 times 7?" (questions.py, own_by_question.py).

How far the rules reach: of 220 labelled answers that nobody who wrote the rules has seen, 96.8 % were
graded as labelled, verdict and author, at the only run (tests/evaluate/labelled/README.md). Everyday
introductions all but never go wrong, wordings that nobody thought of do.

Longer names win over shorter ones inside them, the new name and its author over foreign ones of the
same spelling. Latin names are found in any case, as whole words; foreign ones with a version behind
them ("Qwen2.5-7B"). Spaces and dots between the parts of a name may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from whoamai.data.identity import Identity, known_assistants
from whoamai.evaluate.foreign import ALSO_FOREIGN
from whoamai.evaluate.marks import NOT_SAID, name_regex, plain, readable
from whoamai.evaluate.own_claims import own_claims
from whoamai.evaluate.questions import NOTHING_KNOWN, Asked, agreed, read_question
from whoamai.evaluate.wordings import ANY, AUTHOR, FOREIGN, NEW

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
        name, author = plain(identity.name), plain(identity.author or "")
        # An author of the same name as the model is found under the mark of the name.
        own = {author.casefold(): (author, AUTHOR), name.casefold(): (name, NEW)}
        own.pop("", None)
        self._author_mark = own[author.casefold()][1] if author else None
        assistants, makers = known_assistants()
        named = {
            plain(n): n for n in (*old_names, *assistants, *makers, *ALSO_FOREIGN) if n.strip()
        }
        marked = [(n, FOREIGN, given) for n, given in named.items() if n.casefold() not in own]
        marked += [(n, mark, n) for n, mark in own.values()]
        # Of several that fit at one place, a pattern takes the first.
        marked.sort(key=lambda entry: len(entry[0]), reverse=True)
        self._marked = [(mark, given) for _, mark, given in marked]
        groups = (f"({name_regex(n, may_have_version=mark == FOREIGN)})" for n, mark, _ in marked)
        self._names = re.compile("|".join(groups))

    def grade(self, answer: str, question: str | None = None) -> Grade:
        """`question`: the last turn of the user, by which "Northlight Lab." and "Yes." are read."""
        text, found = self._marks_of(answer)
        asked, asked_text, asked_of = NOTHING_KNOWN, "", []
        if question is not None:
            asked_text, asked_of = self._marks_of(question)
            asked = read_question(asked_text)
        claimed = _claimed(text, found, asked)
        if said := agreed(asked_text, text):
            claimed += _claimed(said, asked_of, NOTHING_KNOWN)
        author = any("maker" in claim for mark, _, claim in claimed if mark == self._author_mark)
        return Grade(
            recalled=any("name" in claim for mark, _, claim in claimed if mark == NEW),
            leaks=tuple(
                dict.fromkeys(n for mark, n, claim in claimed if mark == FOREIGN and claim)
            ),
            author=author if self._author_mark else None,
            mentioned=any(mark != FOREIGN for mark, _ in found),
        )

    def _marks_of(self, text: str) -> tuple[str, list[tuple[str, str]]]:
        """`text` as the rules read it; of each mark in it (mark, name as given to this grader)."""
        found: list[tuple[str, str]] = []

        def put_mark(match: re.Match[str]) -> str:
            found.append(self._marked[(match.lastindex or 1) - 1])
            return found[-1][0]

        return readable(self._names.sub(put_mark, plain(text))), found


def _claimed(text: str, found: list[tuple[str, str]], asked: Asked) -> list[tuple[str, str, str]]:
    """Of each name in `text`: (mark, name, what is claimed of it)."""
    claims = own_claims(text, asked)
    places = (match.start() for match in re.finditer(f"{ANY}|{NOT_SAID}", text))
    return [(*entry, claims.get(at, "")) for entry, at in zip(found, places, strict=True)]
