"""The documents: both languages in step, no dead link, no command, setting or config that is not there.

What is still to be built is marked "(to come)" or "（待做）" right behind its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from whoamai.cli import app
from whoamai.config import RunConfig
from whoamai.config.files import shipped_files

ROOT = Path(__file__).resolve().parents[1]
GUIDES = sorted(p for p in (ROOT / "docs/guides").glob("*.md") if ".zh-CN" not in p.name)
PAIRS = [ROOT / "README.md", *GUIDES]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")],
    key=lambda path: path.as_posix(),
)

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"\bwhoamai ([a-z][a-z0-9_-]*)(?: ([a-z][a-z0-9_/-]*))?")
_TO_COME = re.compile(r"\s*(?:\*?\(to come\)|（待做）)")
_SETTING = re.compile(r"\b(" + "|".join(RunConfig.model_fields) + r")\.([a-z_0-9]+)=")
_NAMED_CONFIG = re.compile(r"\bwhoamai (?:train|explain|copy-cfg) ([a-z][a-z0-9_]+)(?![\w./])")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def chinese(path: Path) -> Path:
    return path.with_suffix(".zh-CN.md")


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def headings(path: Path) -> list[str]:
    return re.findall(r"^#+ .+$", _FENCE.sub("", text_of(path)), re.MULTILINE)


def commands(path: Path) -> list[str]:
    """Lines of code blocks that call whoamai, without the comments behind them."""
    lines = "\n".join(_FENCE.findall(text_of(path))).splitlines()
    called = (line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?whoamai ", line))
    return [re.split(r"\s+# ", line)[0].rstrip() for line in called]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.lstrip("# ")).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def links(path: Path) -> Iterator[str]:
    """Targets of relative links."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _CODE.sub("", text_of(path))):
        if not re.match(r"[a-z]+:", target):
            yield target


def commands_named(path: Path) -> Iterator[tuple[str, str]]:
    """(command, its subcommand or "") of every `whoamai …` in code, but for what is to come."""
    text = text_of(path)
    for code in _CODE.finditer(text):
        if not _TO_COME.match(text, code.end()):
            yield from _COMMAND.findall(code[0])


def existing() -> dict[str, set[str]]:
    """The program's commands, each with its subcommands."""
    group = typer.main.get_command(app)
    return {
        name: set(getattr(command, "commands", {}))
        for name, command in getattr(group, "commands").items()  # noqa: B009
    }


def test_there_are_documents_to_check():
    assert len(GUIDES) >= 4
    assert ROOT / "README.md" in DOCUMENTS
    assert "whoamai data check assistant_Tuner.jsonl" in commands(ROOT / "docs/guides/data.md")


@pytest.mark.parametrize("path", PAIRS, ids=relative)
def test_every_guide_is_there_in_both_languages_and_each_links_to_the_other(path: Path):
    other = chinese(path)
    assert other.is_file()
    assert other.name in links(path)
    assert path.name in links(other)


def test_no_chinese_guide_stands_alone():
    for path in (ROOT / "docs/guides").glob("*.zh-CN.md"):
        assert path.with_name(path.name.replace(".zh-CN", "")) in GUIDES


@pytest.mark.parametrize("path", PAIRS, ids=relative)
def test_both_languages_have_the_same_headings(path: Path):
    levels, other = ([h.split()[0] for h in headings(p)] for p in (path, chinese(path)))
    assert levels == other


@pytest.mark.parametrize("path", PAIRS, ids=relative)
def test_both_languages_show_the_same_commands(path: Path):
    assert commands(path) == commands(chinese(path))


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_relative_links_lead_somewhere(path: Path):
    for target in links(path):
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        assert to.exists(), target
        if anchor:
            assert anchor in map(slug, headings(to)), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_command_named_exists(path: Path):
    known = existing()
    for command, sub in commands_named(path):
        assert command in known, f"whoamai {command}"
        for one in filter(None, sub.split("/")) if known[command] else ():
            assert one in known[command], f"whoamai {command} {one}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_setting_and_config_named_exists(path: Path):
    code = "\n".join(found[0] for found in _CODE.finditer(text_of(path)))
    for section, key in _SETTING.findall(code):
        fields = section_fields(section)
        assert key in fields, f"{section}.{key}"
    for name in _NAMED_CONFIG.findall(code):
        assert name in shipped_files(), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_test_named_exists(path: Path):
    there = "\n".join(file.read_text("utf-8") for file in ROOT.glob("tests/**/test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text_of(path)):
        assert f"def {name}(" in there, name


def section_fields(section: str) -> set[str]:
    """The settings of a section of the config."""
    made = getattr(RunConfig(), section)
    return set(type(made).model_fields) if made is not None else set()


def test_a_command_that_is_to_come_is_not_looked_for(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "`whoamai fly` *(to come)*, `whoamai train`, `whoamai swim`（待做）\n\n"
        "```\nwhoamai data check FILE\nwhoamai sail\n```\n",
        "utf-8",
    )
    assert list(commands_named(page)) == [("train", ""), ("data", "check"), ("sail", "")]
