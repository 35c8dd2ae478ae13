"""XTuner's configs are Python files. Here they are read as text and worked out, never run.

What is understood: literals, names, arithmetic, comparisons, and/or/not, a if b else c, if/elif/else
over known values, `x *= y`, `a, b = 1, 2`, items and slices, f-strings, dict(…), list(…), a few harmless
functions, and .append, .extend, .update and the like on lists and dicts. What a file imports becomes
its full name as text: PROMPT_TEMPLATE.internlm2_chat is "xtuner.utils.PROMPT_TEMPLATE.internlm2_chat",
as XTuner itself writes it into its checkpoints. Everything else is Unknown, and is told with its line.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whoamai.config.problems import shortened
from whoamai.convert.python_values import Dotted, Expressions, NotKnown, NotUnderstood
from whoamai.errors import SettingError
from whoamai.messages import tr

_LARGEST_FILE = 1 << 20  # bytes; XTuner's longest config is a fiftieth of it


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """What a file sets, by name, in the end; and what of it could not be understood."""

    values: Mapping[str, Any]
    not_understood: tuple[NotUnderstood, ...]


def read_python_config(path: Path) -> ParsedConfig:
    """Work out the file at `path`. Raises SettingError where it is not there or is no Python."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            text = tr("{path} is too long for a config.")
            raise SettingError(text.format(path=path))
        source = path.read_bytes()
    except OSError as error:
        text = tr("{path} cannot be read: {reason}")
        raise SettingError(text.format(path=path, reason=error.strerror or error)) from error
    return parse_python_config(source, str(path))


def parse_python_config(source: str | bytes, name: str) -> ParsedConfig:
    """Work out a config's text; `name` is what it is called in errors.

    Raises SettingError where it is no Python, or nested too deeply.
    """
    try:
        tree = ast.parse(source)
        module = _Module()
        module.run(tree.body)
    except SyntaxError as error:
        text = tr("{path}: line {line} is no Python: {reason}")
        raise SettingError(
            text.format(path=name, line=error.lineno or 1, reason=error.msg)
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        text = tr("{path} cannot be read as Python: {reason}")
        reason = str(error) or type(error).__name__
        raise SettingError(text.format(path=name, reason=reason)) from error
    values = {k: v for k, v in module.names.items() if k not in module.imported}
    return ParsedConfig(values, tuple(module.not_understood))


class _Module(Expressions):
    """The names of a file as its statements go by."""

    def run(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            try:
                self._do(statement)
            except NotKnown as missing:
                self.tell(missing)

    def _do(self, node: ast.stmt) -> None:  # noqa: PLR0912  # one case a sort of statement
        match node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    top = alias.name.partition(".")[0]
                    self._import(alias.asname or top, alias.name if alias.asname else top)
            case ast.ImportFrom():
                self._import_from(node)
            case ast.Assign(targets=targets, value=value):
                found = self.value_or_unknown(value)
                for target in targets:
                    self._assign(target, found)
            case ast.AnnAssign(target=target, value=value):
                if value is not None:
                    self._assign(target, self.value_or_unknown(value))
            case ast.AugAssign(target=target, op=op, value=value):
                self._augment(target, op, value, node)
            case ast.If(test=test, body=body, orelse=orelse):
                self._if(test, body, orelse, node)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value=ast.Call() as call):
                self.value(call)
            case ast.Delete(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Name):
                        self.names.pop(target.id, None)
            case _:
                self._pass_over(node)

    def _import(self, name: str, full: str) -> None:
        self.names[name] = Dotted(full)
        self.imported.add(name)

    def _import_from(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                raise NotKnown(node, tr("what it brings is in another file"))
            module = "." * node.level + (node.module or "")
            self._import(alias.asname or alias.name, f"{module}.{alias.name}")

    def _assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = value
                self.imported.discard(name)
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                known = isinstance(value, list | tuple) and len(value) == len(targets)
                for number, one in enumerate(targets):
                    part = value[number] if known else self.unknown(target)
                    self._assign(one, part)
            case ast.Subscript(value=holder, slice=key):
                container = self.value(holder)
                if not isinstance(container, dict | list):
                    raise NotKnown(target, tr("what it is put into is not known"))
                try:
                    container[self.value(key)] = value
                except (TypeError, IndexError) as error:
                    raise NotKnown(target, str(error)) from error
            case _:
                raise NotKnown(target, tr("nothing can be put there"))

    def _augment(self, target: ast.expr, op: ast.operator, value: ast.expr, node: ast.stmt) -> None:
        try:
            old = self.value(target)
            new = self.binary(old, op, self.value(value), node)
        except NotKnown as missing:
            self.tell(missing)
            new = self.unknown(node)
        self._assign(target, new)

    def _if(
        self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt], node: ast.stmt
    ) -> None:
        try:
            chosen = body if self.value(test) else orelse
        except NotKnown as missing:
            self.tell(missing)
            self._forget(node)
            return
        self.run(chosen)

    def _pass_over(self, node: ast.stmt) -> None:
        """Statements that would have to be run: what they set is not known."""
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            self.names[node.name] = self.unknown(node)
        self._forget(node)
        kind = type(node).__name__.lower()
        first = shortened(ast.unparse(node).splitlines()[0])
        why = tr("statements of this sort ({kind}) are not worked out").format(kind=kind)
        self.not_understood.append(NotUnderstood(node.lineno, first, why))

    def _forget(self, node: ast.stmt) -> None:
        """Every name that `node` may set or change."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                self.names[inner.id] = self.unknown(node)
                self.imported.discard(inner.id)
