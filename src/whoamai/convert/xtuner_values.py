"""The values of an XTuner config by their places, and what is to be said of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whoamai.convert.python_values import Dotted, Unknown
from whoamai.convert.xtuner_python import ParsedConfig
from whoamai.messages import tr


@dataclass(slots=True)
class XTunerValues:
    """A parsed file. notes: for people; unknown: settings that are needed and were not worked out."""

    path: Path
    parsed: ParsedConfig
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def value(self, *keys: str | int) -> Any:
        """What is at this place; None where nothing is. What could not be worked out is remembered."""
        found: Any = self.parsed.values
        for key in keys:
            if isinstance(found, dict):
                found = found.get(key)
            elif isinstance(found, list) and isinstance(key, int):
                found = found[key] if key < len(found) else None
            else:
                found = None
            if isinstance(found, Unknown):
                self.remember(".".join(map(str, keys)), found)
                return None
        return found

    def remember(self, name: str, value: Unknown) -> None:
        text = tr("{name} (line {line}: {text})")
        told = text.format(name=name, line=value.line, text=value.text)
        if told not in self.unknown:
            self.unknown.append(told)

    def given(self, **places: tuple[str | int, ...]) -> dict[str, Any]:
        """Our settings that the file gives, from their places there."""
        found = {ours: self.value(*place) for ours, place in places.items()}
        return {ours: plain(value) for ours, value in found.items() if value is not None}

    def note(self, text: str, **values: Any) -> None:
        self.notes.append(text.format(**values))

    def no_counterpart(self, name: str) -> None:
        self.note(tr("{name} has no counterpart and was left out."), name=name)


def last(value: Any) -> str | None:
    """ "LoraConfig" of peft.LoraConfig, as a thing imported or as text."""
    return value.rpartition(".")[2] if isinstance(value, str) else None


def is_name(value: Any) -> bool:
    """A thing of XTuner's by its name: imported, or as text in a checkpoint's config."""
    return isinstance(value, Dotted) or (isinstance(value, str) and value.startswith("xtuner."))


def plain(value: Any) -> Any:
    """500.0 as 500, where XTuner's files write 5e2."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
