"""Numbers as people write them, and a curve of them in block characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from whoamai.messages import tr

GIB = 2**30
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_SHOWN_NUMBERS = 8
_LEAST_CURVE = 8  # columns; a terminal narrower than that shows a part of it


def duration(seconds: float) -> str:
    """A time as one would say it: it is an estimate, so two digits are enough.

    >>> duration(42)
    '42 s'
    """
    if seconds < 90:
        return tr("{n:.0f} s").format(n=max(1, seconds))
    if seconds < 90 * 60:
        return tr("{n:.0f} min").format(n=seconds / 60)
    if seconds < 48 * 3600:
        return tr("{n:.1f} h").format(n=seconds / 3600)
    return tr("{n:.1f} days").format(n=seconds / 86400)


def numbers(values: Sequence[int]) -> str:
    """All of a few numbers; of many the first, "…" and the last."""
    comma = tr(", ")
    if len(values) <= _SHOWN_NUMBERS:
        return comma.join(f"{n:,}" for n in values)
    first = (f"{n:,}" for n in values[: _SHOWN_NUMBERS - 2])
    return comma.join((*first, "…", f"{values[-1]:,}"))


def number(value: float) -> str:
    """A learning rate or a share as people write it: 0.0002 is 2e-4, 0.03 is 0.03."""
    text = f"{value:.3g}"
    if value and abs(value) < 0.01:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return text


def as_written(value: Any) -> str:
    """As a config file has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_written, value)) + "]"
    return str(value)


def size(n_bytes: float) -> str:
    """Bytes in GiB, or in MiB where it is little."""
    return f"{gib(n_bytes)} GiB" if n_bytes >= 0.1 * GIB else f"{n_bytes / 2**20:,.0f} MiB"


def gib(n_bytes: float) -> str:
    """So many GiB, without the unit."""
    return f"{n_bytes / GIB:.2f}" if n_bytes < 10 * GIB else f"{n_bytes / GIB:.1f}"


# ---- the curve -----------------------------------------------------------------------------------


def curve(rates: Sequence[float], width: int, height: int) -> list[str]:
    """The learning rate of each step in block characters, with its scale.

    A column stands for one step or several and shows the highest of them; an eighth of a line is the
    smallest step up.
    """
    total, peak = len(rates), max(rates)
    width = max(_LEAST_CURVE, min(width, max(total, 10)))
    columns = [_highest(rates, c, width) / peak for c in range(width)]
    label = number(peak)
    pad = " " * len(label)
    lines = []
    for line in range(height, 0, -1):
        filled = (round(8 * height * share) - 8 * (line - 1) for share in columns)
        bar = "".join(_EIGHTHS[max(0, min(8, part))] for part in filled)
        lines.append(f"{label if line == height else pad} │{bar}")
    last = f"{total:,}"
    lines.append(f"{'0':>{len(label)}} └{'─' * width}")
    lines.append(f"{pad}  1{last:>{width - 1}}")
    return lines


def _highest(rates: Sequence[float], column: int, width: int) -> float:
    start = column * len(rates) // width
    stop = max(start + 1, (column + 1) * len(rates) // width)
    return max(rates[start:stop])
