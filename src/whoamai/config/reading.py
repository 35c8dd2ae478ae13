"""From a YAML file and overrides to a RunConfig: defaults < file < overrides.

Whatever is wrong is told at once, each with its line and its cure. Nothing a user can write ends in
another exception than SettingError, of which ConfigError is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whoamai.config import names
from whoamai.config.files import config_text, find_config_file
from whoamai.config.overrides import read_overrides
from whoamai.config.problems import Place, Problems, shortened
from whoamai.config.schema import RunConfig
from whoamai.config.values import Given, check_values, plain
from whoamai.config.yaml_errors import colon_problem
from whoamai.config.yaml_lines import Entries, Items, Node, Refused, Scalar, read_yaml
from whoamai.errors import ConfigError
from whoamai.messages import tr

# What a config without any data is told about.
_DATA = ("data", "data_path")


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config that was read. `name` is its file's, without the ending; `work_dir` where it runs."""

    config: RunConfig
    name: str
    path: Path
    work_dir: Path


def read_config(source: str | Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read a YAML file, or a config that comes along, and put `section.key=value` overrides over it.

    Raises SettingError where there is no such file, ConfigError with all problems of it and of the
    overrides.
    """
    path = find_config_file(source)
    problems = Problems(str(path))
    yaml = read_yaml(config_text(path), problems)
    file = _File(problems)
    file.take(yaml.root)
    given = read_overrides(overrides, file.given, problems)
    config = check_values(given, problems)
    if yaml.complete and file.is_group:
        _check_for_data(given, file)
    _check_data_names(given, problems)
    if problems.found or config is None:
        raise ConfigError(str(path), problems.in_order())
    work_dir = Path(config.work_dir) if config.work_dir else Path("work_dirs") / path.stem
    return LoadedConfig(config=config, name=path.stem, path=path, work_dir=work_dir)


class _File:
    """The settings of one file: which were given, and where. Unknown names are told."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.given: dict[names.Path, Given] = {}
        self.section_lines: dict[str, int] = {}
        self.is_group = True

    def take(self, root: Node | None) -> None:
        if isinstance(root, Entries):
            for key, value in root.entries:
                self._take_top(key, value)
        elif root is not None and not (isinstance(root, Scalar) and root.value is None):
            self.is_group = False
            self._tell_no_group(root)

    def _tell_no_group(self, root: Node) -> None:
        if isinstance(root, Refused):
            return
        if isinstance(root, Scalar) and (found := _misspelt(root)):
            self.problems.at_line(root.line, *found)
            return
        found = tr("a list") if isinstance(root, Items) else tr("a single value")
        what = tr("the file is {found}, where sections with settings are expected.")
        cure = tr("Begin with a section such as data: and write its settings below it, indented.")
        self.problems.at_line(root.line, what.format(found=found), cure)

    def _take_top(self, key: Scalar, value: Node) -> None:
        name = str(key.value)
        if name in names.sections():
            self._take_section(name, key.line, value)
        elif names.is_setting((name,)):
            self._keep((name,), value, key.line)
        else:
            is_group = isinstance(value, Entries)
            unknown = names.explain_unknown(None, name, is_group=is_group)
            self._tell_unknown(name, key.line, unknown)
            if is_group and unknown.meant and len(unknown.meant) == 1:
                self._take_section(unknown.meant[0], key.line, value)
            else:
                self._keep_meant(unknown, value, key.line)

    def _take_section(self, name: str, line: int, value: Node) -> None:
        self.section_lines.setdefault(name, line)
        if isinstance(value, Entries):
            for key, inner in value.entries:
                self._take_setting(name, key, inner)
            if name == "lora":  # also an empty one, {}, is one
                self.given.setdefault(
                    (name,), Given(Entries(line), Place(self.problems.file, line))
                )
        elif isinstance(value, Scalar) and value.value is None and name == "lora":
            self._keep((name,), value, line)
        elif not isinstance(value, Refused):
            self._not_a_section(name, line, value)

    def _not_a_section(self, name: str, line: int, value: Node) -> None:
        # Not behind the name itself: model: qwen:7b is a value.
        if isinstance(value, Scalar) and value.line != line and (found := _misspelt(value)):
            self.problems.at_line(value.line, *found, key=name)
            return
        example = _example(name)
        if name == "lora" and isinstance(value, Scalar):
            what, cure = tr("a section has settings, not a value."), ""
        elif isinstance(value, Scalar) and value.value is None:
            what = tr("the section is empty.")
            cure = tr("Write its settings below it, indented ({example}), or take the line away.")
        elif isinstance(value, Items):
            what = tr("a section has settings, not a list.")
            cure = tr("Write its settings without the - in front: {example}")
        else:
            what = tr("a section has settings, not a value.")
            cure = tr("Write its settings below it, indented: {example}")
            if isinstance(value, Scalar) and name in ("model", "data"):  # what was meant is plain
                first = names.settings_of(name)[0]
                example = f"{first}: {shortened(value.text)}"
                self._keep((name, first), value, line)
        cure = cure.format(example=example)
        if name == "lora":
            full = tr("Write lora: null to train every weight.")
            cure = f"{cure} {full}".strip()
        self.problems.at_line(line, what, cure, key=name)

    def _take_setting(self, section: str, key: Scalar, value: Node) -> None:
        name = str(key.value)
        if names.is_setting((section, name)):
            self._keep((section, name), value, key.line)
            return
        unknown = names.explain_unknown(section, name)
        self._tell_unknown(f"{section}.{name}", key.line, unknown)
        self._keep_meant(unknown, value, key.line)

    def _tell_unknown(self, name: str, line: int, unknown: names.Unknown) -> None:
        self.problems.at_line(line, tr("unknown setting."), unknown.cure, key=shortened(name))

    def _keep_meant(self, unknown: names.Unknown, value: Node, line: int) -> None:
        """The value under a wrong name is judged too, where it is plain which setting was meant."""
        meant = unknown.meant
        if meant and meant[-1] not in names.sections() and not isinstance(value, Entries):
            self._keep(meant, value, line)

    def _keep(self, path: names.Path, value: Node, line: int) -> None:
        """The first one counts; that there are two has been told."""
        if path not in self.given:
            self.given[path] = Given(value, Place(self.problems.file, line))


def _misspelt(scalar: Scalar) -> tuple[str, str] | None:
    """Settings whose colons are wrong, which YAML takes for text: "lr:2e-4 seed:3"."""
    return colon_problem(scalar.text) if scalar.plain else None


def _example(section: str) -> str:
    """A setting of `section` as it is written."""
    key, field = next(iter(names.sections()[section].model_fields.items()))
    return f"{key}: {'…' if field.default in ([], None) else field.default}"


def _check_for_data(given: dict[names.Path, Given], file: _File) -> None:
    """A run needs data. (Where a part of the file is unreadable, it may stand there.)"""
    if _DATA not in given:
        line = file.section_lines.get(_DATA[0], 1)
        what = tr("no data is given to train on.")
        file.problems.at_line(line, what, _data_cure(), key=".".join(_DATA))


def _check_data_names(given: dict[names.Path, Given], problems: Problems) -> None:
    one = given.get(_DATA)
    if one is None or isinstance(one.node, Refused):
        return
    value = plain(one.node)
    texts = value if isinstance(value, list) else [value]
    if value == [] or any(isinstance(text, str) and not text.strip() for text in texts):
        problems.add(one.place, tr("the file's name is empty."), _data_cure(), key=".".join(_DATA))
    elif isinstance(one.node, Scalar) and one.node.plain and one.node.text.startswith("-"):
        what = tr("a space is missing after the -.")
        cure = tr("Write a space after each -, and each in a line of its own.")
        problems.add(one.place, what, cure, key=".".join(_DATA))


def _data_cure() -> str:
    return tr("Write the file with your conversations: data_path: my_data.jsonl")
