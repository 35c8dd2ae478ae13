"""A config in whatever form it comes: YAML, the name of a shipped one, or XTuner's Python file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from whoamai.config.reading import LoadedConfig, read_config
from whoamai.config.writing import write_config
from whoamai.messages import tr


def load_config(source: str, overrides: Sequence[str] = ()) -> tuple[LoadedConfig, list[str]]:
    """(the config, lines that tell a person how it was read; none where it is one of ours).

    A Python file is read, never run; the lines say what of it has no counterpart here. Raises
    SettingError and ConfigError as read_config does.
    """
    path = Path(source).expanduser()
    if path.suffix != ".py":
        return read_config(source, overrides), []
    from whoamai.convert.xtuner_config import config_from_xtuner

    config, notes = config_from_xtuner(path)
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / f"{path.stem}.yaml"
        write_config(config, converted)
        loaded = read_config(converted, overrides)
    return replace(loaded, path=path), _told(path, notes)


def _told(path: Path, notes: Sequence[str]) -> list[str]:
    text = tr("{path} is a config of XTuner's. It is read as text and never run.")
    lines = [text.format(path=path)]
    if notes:
        lines.append(tr("What is otherwise here, or has no counterpart:"))
    return [*lines, *(f"  - {note}" for note in notes)]
