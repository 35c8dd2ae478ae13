"""What an expression of a Python file comes to, worked out from its text and never run."""

from __future__ import annotations

import ast
import math
import operator
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from whoamai.config.problems import shortened
from whoamai.messages import tr

_LONGEST = 100_000  # items or characters of anything worked out here
_LARGEST_NUMBER = 10**60


class Dotted(str):
    """The full name of something imported: "torch.float16", "peft.LoraConfig"."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that could not be worked out: its text in the file, and the line it is on."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A piece of a file that was passed over."""

    line: int
    text: str
    why: str

    def __str__(self) -> str:
        return tr("line {line}: {text} ({why})").format(
            line=self.line, text=self.text, why=self.why
        )


class NotKnown(Exception):
    """An expression cannot be worked out. `why` is for people; it is caught where the value goes."""

    def __init__(self, node: ast.AST, why: str) -> None:
        self.line: int = getattr(node, "lineno", 1)
        self.text = shortened(ast.unparse(node))
        self.why = why
        super().__init__(why)


@dataclass(slots=True)
class Expressions:
    """The names known so far, and what expressions made of them come to."""

    names: dict[str, Any] = field(default_factory=dict)
    imported: set[str] = field(default_factory=set)
    not_understood: list[NotUnderstood] = field(default_factory=list)

    def tell(self, missing: NotKnown) -> None:
        told = NotUnderstood(missing.line, missing.text, missing.why)
        if told not in self.not_understood:
            self.not_understood.append(told)

    def unknown(self, node: ast.AST) -> Unknown:
        text = ast.unparse(node).splitlines()
        return Unknown(shortened(text[0] if text else ""), getattr(node, "lineno", 1))

    def value_or_unknown(self, node: ast.expr) -> Any:
        """The value; where a part of a dict or list is not known, that part alone is Unknown."""
        try:
            return self.value(node)
        except NotKnown as missing:
            self.tell(missing)
            return self.unknown(node)

    def value(self, node: ast.expr) -> Any:  # noqa: PLR0912  # one line a sort of expression
        """Its value. Raises NotKnown where it cannot be worked out."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._name(name, node)
            case ast.Attribute(value=inner, attr=attr):
                return self._attribute(self.value(inner), attr, node)
            case ast.List(elts=elts):
                return self._items(elts)
            case ast.Tuple(elts=elts):
                return tuple(self._items(elts))
            case ast.Set(elts=elts):
                return set(map(self._hashable, self._items(elts), elts))
            case ast.Dict(keys=keys, values=values):
                return self._dict(keys, values)
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(self.value(left), op, self.value(right), node)
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(op, self.value(operand), node)
            case ast.BoolOp(op=op, values=values):
                return self._and_or(isinstance(op, ast.And), values)
            case ast.Compare():
                return self._compare(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.value(body if self.value(test) else orelse)
            case ast.Subscript(value=inner, slice=key):
                return self._item(self.value(inner), key, node)
            case ast.JoinedStr(values=values):
                return self._f_string(values, node)
            case ast.Call():
                return self._call(node)
        raise NotKnown(node, tr("expressions of this sort are not worked out"))

    def _name(self, name: str, node: ast.AST) -> Any:
        if name in self.names:
            value = self.names[name]
            if isinstance(value, Unknown):
                raise NotKnown(node, tr("{name} is not known").format(name=name))
            return value
        if name in _FUNCTIONS:
            return Dotted(name)
        raise NotKnown(node, tr("{name} is not known").format(name=name))

    def _attribute(self, of: Any, attr: str, node: ast.AST) -> Any:
        if isinstance(of, Dotted):
            return Dotted(f"{of}.{attr}")
        if isinstance(of, dict) and attr in of:  # a config's dicts can be asked so
            return of[attr]
        raise NotKnown(node, tr("it has no {name}").format(name=attr))

    def _items(self, nodes: Sequence[ast.expr]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                inner = self.value(node.value)
                if not isinstance(inner, list | tuple):
                    raise NotKnown(node, tr("it is no list"))
                found.extend(inner)
            else:
                found.append(self.value_or_unknown(node))
        return found

    def _dict(self, keys: Sequence[ast.expr | None], values: Sequence[ast.expr]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(keys, values, strict=True):
            if key is None:  # {**other}
                found.update(self._mapping(value))
            else:
                found[self._hashable(self.value(key), key)] = self.value_or_unknown(value)
        return found

    def _mapping(self, node: ast.expr) -> dict[Any, Any]:
        inner = self.value(node)
        if not isinstance(inner, dict):
            raise NotKnown(node, tr("it is no dict"))
        return inner

    def _hashable(self, value: Any, node: ast.AST) -> Any:
        try:
            hash(value)
        except TypeError:
            raise NotKnown(node, tr("it cannot be a key")) from None
        return value

    def binary(self, left: Any, op: ast.operator, right: Any, node: ast.AST) -> Any:
        work = _BINARY.get(type(op))
        if work is None:
            raise NotKnown(node, tr("this operation is not worked out"))
        if not _stays_small(left, op, right):
            raise NotKnown(node, tr("the result would be too large"))
        if isinstance(left, Dotted) or isinstance(right, Dotted):
            raise NotKnown(node, tr("imported things cannot be calculated with"))
        try:
            return work(left, right)
        except (TypeError, ArithmeticError, ValueError) as error:
            raise NotKnown(node, str(error)) from error

    def _unary(self, op: ast.unaryop, value: Any, node: ast.AST) -> Any:
        if isinstance(op, ast.Not):
            return not value
        if not isinstance(value, int | float | complex):
            raise NotKnown(node, tr("it is no number"))
        if isinstance(op, ast.Invert):
            if not isinstance(value, int):
                raise NotKnown(node, tr("it is no number"))
            return ~value
        return -value if isinstance(op, ast.USub) else +value

    def _and_or(self, is_and: bool, nodes: Sequence[ast.expr]) -> Any:
        value: Any = is_and
        for node in nodes:
            value = self.value(node)
            if bool(value) != is_and:
                break
        return value

    def _compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            try:
                if not _COMPARE[type(op)](left, right):
                    return False
            except TypeError as error:
                raise NotKnown(node, str(error)) from error
            left = right
        return True

    def _item(self, of: Any, key: ast.expr, node: ast.AST) -> Any:
        if isinstance(of, Dotted):  # a member of something imported, by its name
            return Dotted(f"{of}.{self.value(key)}")
        if isinstance(key, ast.Slice):
            parts = (key.lower, key.upper, key.step)
            wanted: Any = slice(*(self.value(p) if p else None for p in parts))
        else:
            wanted = self.value(key)
        try:
            value = of[wanted]
        except (TypeError, KeyError, IndexError, ValueError) as error:
            raise NotKnown(node, tr("there is no such item")) from error
        if isinstance(value, Unknown):
            raise NotKnown(node, tr("it is not known"))
        return value

    def _f_string(self, nodes: Sequence[ast.expr], node: ast.AST) -> str:
        parts: list[str] = []
        for part in nodes:
            if isinstance(part, ast.FormattedValue):
                value = self.value(part.value)
                simple = isinstance(value, str | int | float) and part.format_spec is None
                if not simple or part.conversion != -1:
                    raise NotKnown(node, tr("expressions of this sort are not worked out"))
                parts.append(str(value))
            else:
                parts.append(str(self.value(part)))
        return "".join(parts)

    # ---- calls ----

    def _call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):
            holder = node.func.value
            if not isinstance(holder, ast.Name) or holder.id not in self.imported:
                of = self.value(holder)
                if isinstance(of, dict | list):
                    return self._method(of, node.func.attr, node)
        function = self.value(node.func)
        if function == "dict":
            return self._dict_call(node)
        work = _FUNCTIONS.get(function) if isinstance(function, Dotted) else None
        if work is None or node.keywords:
            raise NotKnown(node, tr("functions are not called"))
        values = [self.value(arg) for arg in node.args]
        try:
            result = work(*values)
        except (TypeError, ValueError, OverflowError) as error:
            raise NotKnown(node, str(error)) from error
        return result

    def _dict_call(self, node: ast.Call) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for arg in node.args:
            found.update(self._mapping(arg))
        for keyword in node.keywords:
            if keyword.arg is None:
                found.update(self._mapping(keyword.value))
            else:
                found[keyword.arg] = self.value_or_unknown(keyword.value)
        return found

    def _method(self, of: dict[Any, Any] | list[Any], name: str, node: ast.Call) -> Any:
        if name not in _METHODS[type(of)]:
            raise NotKnown(node, tr("functions are not called"))
        args = [self.value(arg) for arg in node.args]
        if any(keyword.arg is None for keyword in node.keywords):
            raise NotKnown(node, tr("functions are not called"))
        named = {str(k.arg): self.value_or_unknown(k.value) for k in node.keywords}
        try:
            return getattr(of, name)(*args, **named)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise NotKnown(node, str(error)) from error


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
# By the names they are called by; those of modules as they are imported.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "dict": dict,
    "list": list,
    "tuple": tuple,
    "set": set,
    "int": int,
    "float": float,
    "str": lambda value: str(value) if isinstance(value, str | int | float) else _no_text(),
    "len": len,
    "min": min,
    "max": max,
    "abs": abs,
    "round": round,
    "sum": sum,
    "os.path.join": posixpath.join,
    "os.path.basename": posixpath.basename,
    "os.path.dirname": posixpath.dirname,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
}
_METHODS: dict[type, frozenset[str]] = {
    dict: frozenset({"update", "pop", "get", "setdefault", "copy", "keys", "values", "items"}),
    list: frozenset({"append", "extend", "insert", "pop", "remove", "copy"}),
}


def _no_text() -> str:
    raise TypeError(tr("only numbers are made text of"))


def _stays_small(left: Any, op: ast.operator, right: Any) -> bool:
    """A config's own arithmetic; not what would fill the memory ("9**9**9", "'a' * 10**9")."""
    if isinstance(op, ast.Mod) and isinstance(left, str | bytes):
        return False  # "%1000000000d"
    sizes = [len(side) for side in (left, right) if isinstance(side, str | bytes | list | tuple)]
    numbers = [abs(side) for side in (left, right) if isinstance(side, int | float)]
    if sizes:
        times = numbers[0] if isinstance(op, ast.Mult) and numbers else 1
        return sum(sizes) * max(times, 1) <= _LONGEST
    if isinstance(op, ast.Pow) and len(numbers) == 2:
        base, exponent = numbers
        return exponent <= 64 and base <= 10**6
    return all(not isinstance(n, int) or n <= _LARGEST_NUMBER for n in numbers)
