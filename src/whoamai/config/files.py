"""Where a config's file is (a path, or the name of one that comes along), and its text."""

from __future__ import annotations

import difflib
import os
from importlib import resources
from pathlib import Path

from whoamai.config.problems import Problems
from whoamai.errors import ConfigError, SettingError
from whoamai.messages import tr

ENDINGS = (".yaml", ".yml")
_LARGEST = 256 * 1024  # bytes; the longest config that comes along is a fiftieth of it


def shipped_files() -> dict[str, Path]:
    """The configs that come with whoamai: name to file, sorted by name."""
    folder = Path(str(resources.files("whoamai").joinpath("configs")))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_shipped_file(name: str) -> Path:
    """The file of a config that comes along, with or without its ending.

    Raises SettingError naming the nearest ones.
    """
    files = shipped_files()
    file = files.get(_without_ending(name))
    if file is None:
        text = tr("No config that comes with whoamai is called {name}.")
        raise SettingError(_joined(text.format(name=name), nearest_names(name, files), _see_list()))
    return file


def find_config_file(source: str | Path) -> Path:
    """The file meant by `source`: a file that is there, else a config that comes along.

    Raises SettingError where there is neither, or where it is a folder or one of XTuner's Python files.
    """
    given = str(source)
    path = Path(os.path.expanduser(given))
    if not given.strip():
        raise SettingError(tr("No config is given. `whoamai list-cfg` shows those there are."))
    if path.suffix == ".py":
        text = tr(
            "{path}: XTuner's configs in Python are not run. Make a config of it with "
            "`whoamai convert xtuner_config`, or take one that `whoamai list-cfg` shows."
        )
        raise SettingError(text.format(path=given))
    if os.path.isfile(path):
        return path
    shipped = shipped_files()
    if _without_ending(given) in shipped:
        return shipped[_without_ending(given)]
    if os.path.isdir(path):
        text = tr("{path} is a folder. Give the config file in it.")
        raise SettingError(_joined(text.format(path=given), _here(path)))
    if os.path.lexists(path) and not os.path.islink(path):
        raise SettingError(tr("{path} is not a file.").format(path=given))
    text = tr("There is no config {path}: no such file, and none that comes with whoamai.")
    names = {**{str(f): f for f in _configs_in(path.parent)}, **shipped}
    raise SettingError(_joined(text.format(path=given), nearest_names(given, names), _see_list()))


def config_text(path: Path) -> str:
    """The text of a config file, a byte order mark taken off.

    Raises SettingError where it cannot be read, ConfigError where it is not text in UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        text = tr("{path} cannot be read: {reason}")
        raise SettingError(text.format(path=path, reason=error.strerror or error)) from None
    problems = Problems(str(path))
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        problems.at_line(1, tr("the file is written in UTF-16."), _as_utf8())
    elif b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        problems.at_line(line, tr("this is not a text file."), tr("Give a config in YAML."))
    elif len(raw) > _LARGEST:
        what = tr("the file is larger than {size} KiB; no config is.").format(size=_LARGEST // 1024)
        cure = tr("If these are conversations, write the file's name under data.data_path.")
        problems.at_line(1, what, cure)
    else:
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            problems.at_line(line, tr("the file is not written in UTF-8."), _as_utf8())
    raise ConfigError(str(path), problems.found)


def _as_utf8() -> str:
    return tr("Save it again as UTF-8; an editor has this beside the file's name when saving.")


def _without_ending(name: str) -> str:
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return name


def nearest_names(name: str, names: dict[str, Path]) -> str:
    """'The nearest are: …', or nothing where none is near."""
    wanted = _without_ending(Path(name).name)
    by_stem = {_without_ending(Path(one).name): one for one in names}
    near = difflib.get_close_matches(wanted, by_stem, 3, 0.5)
    text = tr("The nearest are: {names}.")
    return text.format(names=", ".join(by_stem[one] for one in near)) if near else ""


def _see_list() -> str:
    return tr("`whoamai list-cfg` shows those that come along.")


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _configs_in(folder: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.suffix in ENDINGS)[:200]
    except (OSError, ValueError):
        return []


def _here(folder: Path) -> str:
    files = _configs_in(folder)
    names = ", ".join(str(f) for f in files[:5])
    return tr("There are: {names}.").format(names=names) if files else ""
