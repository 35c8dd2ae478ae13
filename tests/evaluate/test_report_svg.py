from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from whoamai.evaluate.identity import Share
from whoamai.evaluate.probing import ProbeRecord, StopRecord
from whoamai.evaluate.report import Curve
from whoamai.evaluate.report_svg import curve_svg, smoothed, ticks
from whoamai.messages import use_language


def probe(step: int, recall: int, n: int = 10) -> ProbeRecord:
    return ProbeRecord(step, Share(recall, n), Share(0, n), Share(n, n), 0.1)


def drawn(
    losses=(3.0, 2.0, 1.0), probes=(), stop: StopRecord | None = None, width: int = 800
) -> ET.Element:
    curve = Curve(losses) if losses is not None else None
    with use_language("en"):
        return ET.fromstring(curve_svg(curve, probes, stop, width=width, height=300))


def places(picture: ET.Element, css: str) -> list[tuple[float, float]]:
    line = next(e for e in picture.iter("polyline") if e.get("class") == css)
    return [tuple(map(float, p.split(","))) for p in (line.get("points") or "").split()]  # pyright: ignore


def texts(picture: ET.Element) -> list[str]:
    return [e.text or "" for e in picture.iter("text")]


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        (87, [0, 25, 50, 75, 100]),
        (4, [0, 1, 2, 3, 4]),
        (3.2, [0, 1, 2, 3, 4]),
        (0.031, [0, 0.01, 0.02, 0.03, 0.04]),
        (1, [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_ticks_are_round_numbers_that_reach_the_highest(highest: float, expected: list[float]):
    assert ticks(highest, 4) == pytest.approx(expected)


def test_smoothing_takes_the_mean_about_a_step_and_skips_what_is_no_number():
    assert smoothed([3.0, None, 1.0]) == [3.0, 2.0, 1.0]
    assert smoothed([None, None]) == [None, None]
    assert smoothed([]) == []


def test_a_smaller_loss_lies_lower_and_a_later_step_further_right():
    points = places(drawn(), "line loss-raw")
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)


def test_probes_are_drawn_on_an_axis_of_their_own():
    picture = drawn(probes=[probe(1, 0), probe(3, 10)])
    (_, nothing), (_, all_of_it) = places(picture, "line recall")
    assert all_of_it < nothing
    assert {"25", "50", "75", "100"} <= set(texts(picture))
    titles = [e.text for e in picture.iter("title")]
    assert "step 3: 100.0 % (10 of 10)" in titles


def test_without_probes_there_is_one_axis():
    assert "100" not in texts(drawn())


def test_probes_alone_are_drawn():
    picture = drawn(None, [probe(5, 1), probe(20, 9)])
    assert len(places(picture, "line recall")) == 2
    assert "loss (nats a token)" not in texts(picture)


def test_where_it_was_learned_and_stopped_is_marked():
    picture = drawn([1.0] * 100, stop=StopRecord(40, 60, 100, 1.0, 1.0, 60))
    assert {"learned: 40", "stopped: 60"} <= set(texts(picture))
    assert sum("mark" in (e.get("class") or "") for e in picture.iter("line")) == 2


def test_a_name_never_learned_has_no_mark():
    picture = drawn(stop=StopRecord(None, 3, 3, 1.0, 0.0, 3))
    assert not any(text.startswith("learned") for text in texts(picture))


def test_one_huge_loss_does_not_flatten_the_rest():
    points = places(drawn([2.0] * 99 + [1e6]), "line loss-raw")
    assert points[0][1] < 200


def test_a_long_run_is_drawn_with_as_many_points_as_can_be_told_apart():
    assert len(places(drawn([1.0] * 50_000), "line loss")) <= 2 * 800


@pytest.mark.parametrize("losses", [(), (None, None), (float("nan"),)])
def test_without_anything_known_nothing_is_drawn(losses):
    assert curve_svg(Curve(losses), (), None, width=800, height=300) == ""
    assert curve_svg(None, (), None, width=800, height=300) == ""


@pytest.mark.parametrize("width", [360, 1000])
def test_everything_stays_within_the_picture(width: int):
    probes = [probe(s, min(10, s)) for s in (5, 10, 120)]
    picture = drawn([3.0, 0.0, None] * 40, probes, StopRecord(5, 120, 200, 1.0, 1.0, 120), width)
    numbers = [(e.get("x"), e.get("y")) for e in picture.iter("text")]
    numbers += [(e.get("cx"), e.get("cy")) for e in picture.iter("circle")]
    assert all(0 <= float(x or -1) <= width and 0 <= float(y or -1) <= 300 for x, y in numbers)


def test_no_number_is_nan():
    assert not re.search("nan|inf", ET.tostring(drawn([0.0] * 5), "unicode"))
