"""The training curve as a drawing: loss on the left axis, what the probes found on the right one.

Colours, fonts and dashes are the page's (report.css); here stand places only.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from whoamai.evaluate.identity import Share
from whoamai.evaluate.probing import ProbeRecord, StopRecord
from whoamai.evaluate.report import Curve
from whoamai.messages import tr

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 46, 30, 44
_SMOOTHED_OVER = 20  # of so many parts of the run each loss is the mean over the one about it
_LOSSES_ABOVE = (
    0.02  # so many of the losses may lie above the drawing, so that one does not flatten it
)

# What the probes measured: (css class, field).
SERIES = (("recall", "recall"), ("leak", "leak"), ("kept", "kept"))


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where things are: steps 0 … `steps` from left to right, a loss of 0 … `loss` upwards."""

    width: int
    height: int
    steps: int
    loss: float

    def x(self, step: float) -> float:
        return _LEFT + (self.width - _LEFT - _RIGHT) * step / self.steps

    def y(self, share: float) -> float:
        """Of the height of the drawing: 0 at its foot, 1 at its head."""
        return self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * min(1.0, max(0.0, share))


def curve_svg(
    curve: Curve | None,
    probes: Sequence[ProbeRecord],
    stop: StopRecord | None,
    *,
    width: int,
    height: int,
) -> str:
    """One <svg>; "" where there is nothing to draw. `width` and `height` are its units."""
    losses = list(curve.losses) if curve else []
    numbers = sorted(loss for loss in losses if loss is not None and math.isfinite(loss))
    steps = max(len(losses), *(p.step for p in probes), 0) if probes else len(losses)
    if not steps or not (numbers or probes):
        return ""
    highest = numbers[int((1 - _LOSSES_ABOVE) * (len(numbers) - 1))] if numbers else 1.0
    frame = _Frame(width, height, steps, ticks(1.05 * highest or 1.0, 4)[-1])
    parts = [*_grid(frame, bool(numbers), bool(probes))]
    if numbers:
        parts += _losses(frame, losses)
    parts += [part for css, name in SERIES for part in _series(frame, css, name, probes)]
    parts += _marks(frame, stop)
    label = html.escape(tr("Training curve"))
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">\n{body}\n</svg>'


def ticks(highest: float, about: int) -> list[float]:
    """Round numbers from 0 to the first at or above `highest`, `about` so many or a few more.

    >>> ticks(87, 4)
    [0.0, 25.0, 50.0, 75.0, 100.0]
    """
    rough = highest / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    count = math.ceil(highest / step - 1e-9)
    return [step * i for i in range(count + 1)]


def smoothed(losses: Sequence[float | None]) -> list[float | None]:
    """The mean of the losses about each step; None where there is none near it."""
    half = max(1, len(losses) // (2 * _SMOOTHED_OVER))
    numbers = [x if x is not None and math.isfinite(x) else None for x in losses]
    # Sums up to each step, so that a mean over many is one subtraction.
    totals = [0.0, *accumulate(x or 0.0 for x in numbers)]
    counts = [0, *accumulate(x is not None for x in numbers)]
    result: list[float | None] = []
    for i in range(len(losses)):
        start, stop = max(0, i - half), min(len(losses), i + half + 1)
        count = counts[stop] - counts[start]
        result.append((totals[stop] - totals[start]) / count if count else None)
    return result


# ---- parts ---------------------------------------------------------------------------------------


def _grid(frame: _Frame, has_losses: bool, has_probes: bool) -> Iterator[str]:
    left, right, foot = frame.x(0), frame.x(frame.steps), frame.y(0)
    for i in range(5):
        y = frame.y(i / 4)
        yield f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        if has_probes:
            yield _text(right + 7, y + 4, f"{25 * i}", "tick right")
    if has_losses:
        for value in ticks(frame.loss, 4):
            yield _text(left - 7, frame.y(value / frame.loss) + 4, f"{value:g}", "tick left")
        yield _text(left - 38, _TOP - 14, tr("loss (nats a token)"), "title")
    if has_probes:
        yield _text(frame.width - 4, _TOP - 14, tr("probes (%)"), "title end")
    wanted = 8 if frame.width > 500 else 4
    for step in ticks(frame.steps, wanted):
        whole = round(step)
        if step <= frame.steps and abs(step - whole) < 1e-9:
            yield _text(frame.x(step), foot + 18, f"{whole:,}", "tick middle")
    yield _text((left + right) / 2, frame.height - 6, tr("optimizer step"), "title middle")


def _losses(frame: _Frame, losses: Sequence[float | None]) -> Iterator[str]:
    """Every loss, faint, and the smoothed ones; of many steps as many points as can be told apart."""
    every = max(1, len(losses) // frame.width)
    for css, values in (("loss-raw", losses), ("loss", smoothed(losses))):
        points = [
            (i + 1, value)
            for i, value in enumerate(values)
            if value is not None and math.isfinite(value) and i % every == 0
        ]
        yield _line(frame, f"line {css}", points, lambda loss: loss / frame.loss)


def _series(frame: _Frame, css: str, name: str, probes: Sequence[ProbeRecord]) -> Iterator[str]:
    found: list[tuple[int, Share]] = [
        (p.step, share) for p in probes if (share := getattr(p, name)).n
    ]
    points = [(step, share.percent) for step, share in found]
    if not points:
        return
    yield _line(frame, f"line {css}", points, lambda percent: percent / 100)
    for step, share in found:
        title = tr("step {step:,}: {percent:.1f} % ({k:,} of {n:,})").format(
            step=step, percent=share.percent, k=share.k, n=share.n
        )
        yield (
            f'<circle class="dot {css}" cx="{frame.x(step):.1f}" '
            f'cy="{frame.y(share.percent / 100):.1f}" r="3.5">'
            f"<title>{html.escape(title)}</title></circle>"
        )


def _marks(frame: _Frame, stop: StopRecord | None) -> Iterator[str]:
    """Upright lines where the name was learned and where training ended."""
    if stop is None:
        return
    marks = [(stop.stopped_at, tr("stopped"), "stop")]
    if stop.learned_at is not None:
        marks.insert(0, (stop.learned_at, tr("learned"), "learned"))
    for row, (step, label, css) in enumerate(marks):
        if not 0 <= step <= frame.steps:
            continue
        x, head = frame.x(step), frame.y(1)
        yield (
            f'<line class="mark {css}" x1="{x:.1f}" x2="{x:.1f}" '
            f'y1="{head:.1f}" y2="{frame.y(0):.1f}"/>'
        )
        # A label leans to the side that has room, each in a row of its own.
        to_left = step > frame.steps / 2
        place = x - 6 if to_left else x + 6
        y = frame.y(0.5) + 16 * row
        yield _text(place, y, f"{label}: {step:,}", f"label {css}" + " end" * to_left)


def _line(
    frame: _Frame,
    css: str,
    points: Sequence[tuple[int, float]],
    share: Callable[[float], float],
) -> str:
    places = " ".join(f"{frame.x(step):.1f},{frame.y(share(value)):.1f}" for step, value in points)
    return f'<polyline class="{css}" points="{places}"/>'


def _text(x: float, y: float, text: str, css: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'
