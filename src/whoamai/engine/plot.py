"""Loss and learning rate of a run as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

# A smoothed point keeps this share of the one before it: about the last ten steps count.
_KEPT = 0.9
_FEW = 40  # steps, each of which is drawn as a dot too: a line of one point is none


def plot_run(
    path: Path, losses: Sequence[float | None], learning_rates: Sequence[float], *, first: int = 1
) -> None:
    """Write a PNG: the loss of every step and smoothed, and below it the learning rate.

    `first` is the number of the step that the first values belong to; a loss of None was skipped.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps = range(first, first + len(losses))
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shown = [float("nan") if loss is None else loss for loss in losses]
    dots = {"marker": "." if len(losses) <= _FEW else ""}
    above.plot(steps, shown, color="#9db8d9", linewidth=0.9, label="loss", **dots)
    above.plot(steps, smoothed(losses), color="#1f4e8c", linewidth=1.8, label="smoothed", **dots)
    above.set_ylabel("loss (nats a token)")
    above.legend(frameon=False)
    below.plot(steps, learning_rates, color="#b5651d", linewidth=1.4, **dots)
    below.set_ylabel("learning rate")
    below.set_xlabel("optimizer step")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def smoothed(losses: Sequence[float | None]) -> list[float]:
    """The exponential moving average, corrected for its start; skipped steps keep the value before.

    >>> [round(x, 3) for x in smoothed([2.0, 1.0, None])]
    [2.0, 1.474, 1.474]
    """
    total = weight = 0.0
    result = []
    for loss in losses:
        if loss is not None:
            total = _KEPT * total + loss
            weight = _KEPT * weight + 1
        result.append(total / weight if weight else float("nan"))
    return result
