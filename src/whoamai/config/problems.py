"""What is wrong with a config: where, what, and the cure. All problems of a config are told together."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a line of a file, or an override as it was typed."""

    text: str
    line: int | None = None  # from 1; None for an override

    def __str__(self) -> str:
        return self.text if self.line is None else f"{self.text}:{self.line}"


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One problem. `key` is the setting's full name ("train.lr"), "" where it is of none."""

    place: Place
    key: str
    what: str
    cure: str

    def __str__(self) -> str:
        # An override shows its setting already.
        key = f"{self.key}: " if self.key and self.place.line is not None else ""
        return f"{self.place}: {key}{self.what} {self.cure}".rstrip()


@dataclass(slots=True)
class Problems:
    """The problems found so far in one file."""

    file: str
    found: list[ConfigProblem] = field(default_factory=list)

    def at_line(self, line: int, what: str, cure: str = "", *, key: str = "") -> None:
        self.add(Place(self.file, line), what, cure, key=key)

    def add(self, place: Place, what: str, cure: str = "", *, key: str = "") -> None:
        self.found.append(ConfigProblem(place, key, what, cure))

    def in_order(self) -> tuple[ConfigProblem, ...]:
        """By line; those of overrides last, as they were given."""
        unplaced = [p for p in self.found if p.place.line is None]
        placed = [p for p in self.found if p.place.line is not None]
        return (*sorted(placed, key=lambda p: p.place.line or 0), *unplaced)


def shortened(text: str, most: int = 60) -> str:
    """`text` on one line, safe to print, cut where it is long."""
    plain = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return plain if len(plain) <= most else plain[: most - 1] + "…"
