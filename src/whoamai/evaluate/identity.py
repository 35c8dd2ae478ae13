"""What a model calls itself, and how often its answers give the name they should.

Which name one answer gives is grading.py's to say; here it is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from whoamai.data.claims import claimed_makers, claimed_names
from whoamai.data.identity import IdentityQuestion
from whoamai.evaluate.grading import Grade

# ---- what a model calls itself before it is renamed ----------------------------------------------

_LEAST_SHARE = 0.05  # of the answers must give a name before it counts


@dataclass(frozen=True, slots=True)
class SelfDescription:
    """What a model calls itself, and who it says made it; the most frequent first."""

    names: tuple[str, ...]
    makers: tuple[str, ...]


def describe_self(answers: Sequence[str]) -> SelfDescription:
    """Names and makers the model gives itself in `answers`.

    One answer in twenty, and at least two, must give it, so that a slip of the tongue does not count.
    """
    enough = max(2, _LEAST_SHARE * len(answers))

    def frequent(find: Callable[[str], set[str]]) -> tuple[str, ...]:
        counts = Counter(name for answer in answers for name in sorted(find(answer)))
        return tuple(name for name, n in counts.most_common() if n >= enough)

    return SelfDescription(frequent(claimed_names), frequent(claimed_makers))


# ---- scores --------------------------------------------------------------------------------------

_Z = 1.959963984540054  # 95 % of a normal distribution lie within this many standard deviations


@dataclass(frozen=True, slots=True)
class Share:
    """`k` of `n`."""

    k: int
    n: int

    @property
    def percent(self) -> float:
        return 100 * self.k / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share lies with 95 % confidence, in percent: (low, high), (0, 100) for n = 0.

        Wilson's score interval, with p = k / n and z = 1.96:

            (p + z²/2n ± z · √(p(1 - p)/n + z²/4n²)) / (1 + z²/n)

        It stays within 0 and 100 and has a width for k = 0 and k = n too. E. B. Wilson, Probable
        inference, the law of succession, and statistical inference, JASA 22 (1927), 209-212.
        """
        if not self.n:
            return 0.0, 100.0
        p, spread = self.k / self.n, _Z * _Z / self.n
        middle = p + spread / 2
        half = math.sqrt(spread * (p * (1 - p) + spread / 4))
        low, high = ((middle - half) / (1 + spread), (middle + half) / (1 + spread))
        # Rounding must not move the two ends that are known exactly.
        return (100 * low if self.k else 0.0, 100 * high if self.k < self.n else 100.0)

    def as_json(self) -> dict[str, float | int | None]:
        """`percent`, `low` and `high` are None where there was nothing to count: JSON has no NaN."""
        found: tuple[float | None, ...] = (None, None, None)
        if self.n:
            found = tuple(round(x, 2) for x in (self.percent, *self.interval))
        return {
            "k": self.k,
            "n": self.n,
            **dict(zip(("percent", "low", "high"), found, strict=True)),
        }


Shares = Mapping[tuple[str, str], Share]


@dataclass(frozen=True, slots=True)
class IdentityScores:
    """Shares of answers by (context, language), and by ("group:<group>", language).

    "all" stands for every context or every language. `author` counts the questions of the group
    "maker" only, and is empty where the identity has no author.
    """

    recall: Shares  # give the new name as their own
    leak: Shares  # give an old or foreign name, or maker, as their own
    author: Shares  # name the author as the maker
    contradiction: Shares  # give the new name and an old or foreign one


def score_identity(
    questions: Sequence[IdentityQuestion], grades: Sequence[Grade]
) -> IdentityScores:
    """Count the grades of the answers to `questions`, one grade a question, in the same order.

    Raises ValueError where there are not as many of the one as of the other.
    """
    every: dict[tuple[str, str], list[Grade]] = {}
    of_maker: dict[tuple[str, str], list[Grade]] = {}
    for question, grade in zip(questions, grades, strict=True):
        for kind in (question.context, f"group:{question.group}", "all"):
            for language in (question.language, "all"):
                every.setdefault((kind, language), []).append(grade)
                if question.group == "maker" and grade.author is not None:
                    of_maker.setdefault((kind, language), []).append(grade)
    return IdentityScores(
        recall=_shares(every, lambda g: g.recalled),
        leak=_shares(every, lambda g: bool(g.leaks)),
        author=_shares(of_maker, lambda g: bool(g.author)),
        contradiction=_shares(every, lambda g: g.contradicts),
    )


def _shares(
    grades: Mapping[tuple[str, str], Sequence[Grade]], counts: Callable[[Grade], bool]
) -> Shares:
    return {key: Share(sum(map(counts, gs)), len(gs)) for key, gs in grades.items()}
