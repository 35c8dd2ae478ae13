"""Numbers as people write them; the curve of the learning rate in blocks."""

from __future__ import annotations

import pytest

from whoamai.terminal_numbers import as_written, curve, duration, number, numbers, size


def falling(total: int, warmup: int = 1) -> list[float]:
    return [min(1, (i + 1) / warmup) * (1 - i / total) * 2e-4 for i in range(total)]


def test_a_learning_rate_is_written_as_in_a_config():
    written = [number(value) for value in (2e-4, 1.5e-5, 2e-3, 0.03, 0.999, 1.0, 0.0)]
    assert written == ["2e-4", "1.5e-5", "2e-3", "0.03", "0.999", "1", "0"]


def test_values_are_written_as_in_a_config():
    written = [as_written(v) for v in (None, True, 2e-4, 64, [0.9, 0.999], ["a", "b"], "auto")]
    assert written == ["null", "true", "2e-4", "64", "[0.9, 0.999]", "[a, b]", "auto"]


def test_little_memory_is_given_in_mib():
    assert [size(n) for n in (12.34 * 2**30, 2**30, 2**29, 3 * 2**20)] == [
        "12.3 GiB",
        "1.00 GiB",
        "0.50 GiB",
        "3 MiB",
    ]


def test_of_many_numbers_the_first_and_the_last_are_given():
    assert numbers([500, 980]) == "500, 980"
    assert numbers(range(1000, 20_001, 1000)).endswith("6,000, …, 20,000")


def test_the_curve_has_its_height_an_axis_and_a_scale():
    lines = curve(falling(980, warmup=1), 60, 8)
    assert len(lines) == 8 + 2
    assert lines[0].startswith("2e-4 │")
    assert lines[8].lstrip().startswith("0 └")
    assert lines[9].split() == ["1", "980"]
    assert {len(line) for line in lines[:8]} == {len("2e-4 │") + 60}


@pytest.mark.parametrize("total", [1, 2, 3, 59, 60, 61, 5000])
def test_a_curve_of_any_length_reaches_the_top_and_is_drawn_in_blocks(total: int):
    lines = curve(falling(total), 60, 8)
    assert "█" in lines[0]
    drawn = "".join(line.partition("│")[2] for line in lines[:8])
    assert set(drawn) <= set(" ▁▂▃▄▅▆▇█")


def test_a_column_falls_where_the_rate_falls():
    lines = curve(falling(600, warmup=1), 60, 8)
    bars = [line.partition("│")[2] for line in lines[:8]]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(bar[c]) for bar in bars) for c in range(60)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 64
    assert heights[-1] <= 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 s"), (42, "42 s"), (600, "10 min"), (3600 * 5, "5.0 h"), (86400 * 3, "3.0 days")],
)
def test_a_duration_is_said_in_the_unit_one_would_take(seconds: float, words: str):
    assert duration(seconds) == words
