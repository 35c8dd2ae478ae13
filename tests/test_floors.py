"""Imports only point down; the floors are those of docs/design.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "whoamai"

# Top to bottom. Parts of one floor do not import each other, but for those of the first.
FLOORS = (
    (
        "cli",
        "cli_check",
        "cli_config",
        "cli_convert",
        "cli_data",
        "cli_doctor",
        "cli_explain",
        "cli_merge",
        "cli_options",
        "cli_rename",
        "cli_train",
        "__main__",
        "terminal",
        "terminal_data",
        "terminal_doctor",
        "terminal_numbers",
        "terminal_plan",
        "terminal_preview",
        "terminal_prose",
        "terminal_report",
        "terminal_train",
    ),
    ("chat", "web"),
    ("recipes",),
    ("plan",),
    ("engine",),
    ("evaluate", "convert"),
    ("model", "data"),
    ("kernels",),
    ("", "config", "samples", "errors", "messages", "events", "assets"),
)
FLOOR_OF = {part: number for number, parts in enumerate(FLOORS) for part in parts}
# What those on the lowest floor may import of one another ("" is whoamai/__init__.py itself).
FOR_EVERYONE = {"errors", "messages", "samples"}


def problems(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """The imports of `module` ("whoamai.data.loader") that it must not make."""
    part = _part(module)
    return [
        f"{module} imports {imported}"
        for imported in _imports(ast.parse(source), module, is_package)
        if not _may_import(part, _part(imported))
    ]


def _may_import(part: str, other: str) -> bool:
    if other in (part, ""):
        return True
    if FLOOR_OF[part] != FLOOR_OF[other]:
        return FLOOR_OF[part] < FLOOR_OF[other]
    if FLOOR_OF[part] == len(FLOORS) - 1:
        return other in FOR_EVERYONE
    return FLOOR_OF[part] == 0


def _part(module: str) -> str:
    """The package's part a dotted name belongs to; names in whoamai/__init__.py belong to ""."""
    name = module.split(".")[1] if "." in module else ""
    return name if name in FLOOR_OF or _is_module(name) else ""


def _is_module(name: str) -> bool:
    return (PACKAGE / name / "__init__.py").is_file() or (PACKAGE / f"{name}.py").is_file()


def _imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Every whoamai module imported anywhere in the tree, but for `if TYPE_CHECKING:` blocks."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "whoamai")
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            if base.split(".")[0] == "whoamai":
                yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _imports(ast.Module(node.orelse, []), module, is_package)
        else:
            yield from _imports(node, module, is_package)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    drop = node.level - (1 if is_package else 0)
    parts = module.split(".")[: -drop or None]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _modules() -> dict[str, Path]:
    files = sorted(PACKAGE.rglob("*.py"))
    return {
        ".".join(["whoamai", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
            ".__init__"
        ): file
        for file in files
    }


@pytest.mark.parametrize("module", _modules())
def test_no_import_points_up(module: str):
    file = _modules()[module]
    assert problems(module, file.read_text("utf-8"), is_package=file.name == "__init__.py") == []


def test_every_part_of_the_package_has_a_floor():
    assert {_part(m) for m in _modules()} <= FLOOR_OF.keys()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("whoamai.data.loader", "from whoamai.engine.trainer import train"),
        ("whoamai.data.loader", "from whoamai import cli"),
        ("whoamai.data.loader", "import whoamai.model.load"),
        ("whoamai.data.loader", "def f():\n    from whoamai.model import load"),
        ("whoamai.data.loader", "from ..engine import trainer"),
        ("whoamai.data.loader", "if x:\n    pass\nelse:\n    import whoamai.recipes"),
        ("whoamai.model.load", "from whoamai.data.templates import ChatTemplate"),
        ("whoamai.evaluate.report", "from whoamai.convert import merge"),
        ("whoamai.convert.merge", "from whoamai.evaluate import report"),
        ("whoamai.recipes.rename", "from whoamai.terminal_report import print_report"),
        ("whoamai.errors", "from whoamai.events import Events"),
        ("whoamai.samples", "from whoamai.config import RunConfig"),
    ],
)
def test_an_import_that_points_up_or_aside_is_found(module: str, line: str):
    assert len(problems(module, line)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("whoamai.cli", "from whoamai.terminal_report import print_report"),
        ("whoamai.cli", "from whoamai import __version__"),
        ("whoamai.data.loader", "from .identity import fill"),
        ("whoamai.data.loader", "from whoamai.errors import DataError"),
        ("whoamai.data.loader", "if TYPE_CHECKING:\n    from whoamai.engine import trainer"),
        ("whoamai.events", "from whoamai.messages import tr"),
        ("whoamai.recipes.rename", "import torch, whoamai.model.load"),
    ],
)
def test_an_import_that_points_down_is_allowed(module: str, line: str):
    assert problems(module, line) == []


def test_a_relative_import_in_a_package_is_resolved_from_the_package():
    found = problems("whoamai.data", "from .. import engine", is_package=True)
    assert found == ["whoamai.data imports whoamai.engine"]
