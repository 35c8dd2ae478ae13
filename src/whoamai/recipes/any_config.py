"""A config in whatever form it comes: YAML, the name of a shipped one, or XTuner's Python file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from whoamai.config.reading import LoadedConfig, read_config
from whoamai.config.writing import write_config


def load_config(source: str, overrides: Sequence[str] = ()) -> tuple[LoadedConfig, list[str]]:
    """(the config, what a person should know of how it was read).

    A Python file is read, never run; the notes are what of it has no counterpart here. Raises
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
    return replace(loaded, path=path), notes
