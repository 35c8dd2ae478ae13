"""Loss and learning rate as one picture."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from whoamai.engine.plot import plot_run, smoothed


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args, **kwargs):
        figures.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_the_picture_is_large_enough_to_read_and_not_blank(tmp_path: Path):
    file = tmp_path / "loss.png"
    plot_run(file, [3.0, 2.0, 1.5, 1.2], [1e-4, 2e-4, 1e-4, 0.0])
    pixels = imread(file)
    assert pixels.shape[:2] == (600, 960)
    assert (pixels[..., :3].min(-1) < 0.9).mean() > 0.005


def test_every_step_has_its_place(tmp_path: Path, drawn: list[Figure]):
    plot_run(tmp_path / "loss.png", [3.0, None, 1.5], [1e-4, 2e-4, 1e-4])
    above, below = drawn[0].axes
    steps, losses = above.lines[0].get_data()
    assert list(steps) == [1, 2, 3]
    assert (losses[0], losses[2]) == (3.0, 1.5)
    assert math.isnan(losses[1])
    assert list(above.lines[1].get_ydata()) == smoothed([3.0, None, 1.5])
    assert list(below.lines[0].get_ydata()) == [1e-4, 2e-4, 1e-4]


def test_steps_are_whole_numbers_on_the_axis(tmp_path: Path, drawn: list[Figure]):
    plot_run(tmp_path / "loss.png", [3.0, 2.0], [1e-4, 1e-4])
    ticks = drawn[0].axes[1].get_xticks()
    assert all(tick == round(tick) for tick in ticks)


def test_a_single_step_can_be_seen(tmp_path: Path):
    """A line of one point is no line."""
    for name, loss in (("one", 2.0), ("none", None)):
        plot_run(tmp_path / f"{name}.png", [loss], [1e-4])
    one, none = (imread(tmp_path / f"{name}.png") for name in ("one", "none"))
    blue = [(p[..., 2] - p[..., 0] > 0.3)[60:400, 100:700].sum() for p in (one, none)]
    assert blue[0] > 10 > blue[1]


@pytest.mark.parametrize("losses", [[], [None], [None, None, None], [1e9, 1e-9], [0.0] * 5])
def test_any_losses_can_be_drawn(losses: list[float | None], tmp_path: Path, recwarn):
    plot_run(tmp_path / "loss.png", losses, [1e-4] * len(losses))
    assert (tmp_path / "loss.png").stat().st_size > 1000
    assert [str(w.message) for w in recwarn if "pyparsing" not in str(w.message)] == []


def test_no_global_state_of_matplotlib_is_used(tmp_path: Path):
    import sys

    before = set(sys.modules)
    plot_run(tmp_path / "loss.png", [1.0], [1e-4])
    assert "matplotlib.pyplot" not in set(sys.modules) - before


# ---- smoothing -----------------------------------------------------------------------------------


def test_a_constant_loss_stays_what_it_is():
    assert smoothed([2.0] * 30) == pytest.approx([2.0] * 30)


def test_the_start_is_not_pulled_to_zero():
    assert smoothed([5.0, 5.0])[0] == 5.0


def test_skipped_steps_keep_the_value_before():
    values = smoothed([None, 4.0, None, None])
    assert math.isnan(values[0])
    assert values[1:] == [4.0, 4.0, 4.0]


def test_about_ten_steps_count():
    step_up = smoothed([0.0] * 100 + [1.0] * 10)
    assert step_up[-1] == pytest.approx(1 - 0.9**10, abs=1e-3)
