"""The configs that come with whoamai: found, listed, copied."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from whoamai.config.files import find_shipped_file, shipped_files
from whoamai.config.reading import read_config
from whoamai.config.schema import RunConfig
from whoamai.errors import OutputError
from whoamai.messages import language, tr

_TITLE = re.compile(r"#\s*(zh|en):\s*(.*\S)\s*")


@dataclass(frozen=True, slots=True)
class ShippedConfig:
    """title: what the file's first lines say it is, in the language of now."""

    name: str
    path: Path
    title: str
    config: RunConfig


def shipped_configs() -> list[ShippedConfig]:
    """All of them, by name."""
    return [_read(file) for file in shipped_files().values()]


def find_shipped(name: str) -> ShippedConfig:
    """The one of this name, with or without .yaml. Raises SettingError naming the nearest ones."""
    return _read(find_shipped_file(name))


def copy_config(name: str, folder: Path, *, overwrite: bool = False) -> Path:
    """Copy a config to folder/<name>_copy.yaml, as XTuner names copies; the folder is made.

    Raises SettingError for an unknown name, OutputError where the copy exists already and is not to be
    replaced, or cannot be written.
    """
    file = find_shipped_file(name)
    copy = folder / f"{file.stem}_copy.yaml"
    if os.path.lexists(copy) and not overwrite:
        text = tr("{path} exists already. Choose another folder, or replace it with --overwrite.")
        raise OutputError(text.format(path=copy))
    partial = folder / f".whoamai-{secrets.token_hex(8)}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, partial)
        os.replace(partial, copy)
    except OSError as error:
        text = tr("{path} cannot be written: {reason}")
        raise OutputError(text.format(path=copy, reason=error.strerror or error)) from error
    finally:
        with suppress(OSError):  # gone by now, or never there
            partial.unlink()
    return copy


def _read(file: Path) -> ShippedConfig:
    return ShippedConfig(file.stem, file, _title(file), read_config(file).config)


def _title(file: Path) -> str:
    """The file begins with a line "# zh: …" and a line "# en: …"."""
    titles: dict[str, str] = {}
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if found := _TITLE.fullmatch(line):
            titles.setdefault(found[1], found[2])
    wanted = "zh" if language() == "zh_CN" else "en"
    return titles.get(wanted) or next(iter(titles.values()), "")
