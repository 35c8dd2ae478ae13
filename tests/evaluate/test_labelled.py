"""The form of the labelled answers; what their fields mean is in labelled/README.md.

Only the form: how a grader fares on them is tested with the grader. Failures name a row by its id
and show no answer, since the grader's author must not see the held-out ones.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "labelled"
FILES = ("open.jsonl", "held_out.jsonl")
# Written later by somebody who had not seen the grader, after what chat models really answer.
BLIND = "blind_2.jsonl"
ALL_FILES = (*FILES, BLIND)
VERDICTS = {"new", "old", "both", "neither"}
LANGUAGES = {"zh", "en", "mixed"}
TEXTS = {"id", "language", "name", "question", "answer", "verdict", "why"}

# Whoever changes a held-out or blind answer or label has to say so here.
HELD_OUT_SHA256 = "fad95e1bfb7dc37fa6242c43c06257ca6cb8faac78124167ec250666ec9f1d7f"
BLIND_SHA256 = "6c4b691ea7ab439588ee173079296347615e8be4c33b3c610f65791c1d24fb40"


def rows_of(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / file).read_text("utf-8").splitlines()]


def is_well_formed(row: dict[str, Any]) -> bool:
    return (
        set(row) == TEXTS | {"author", "old", "author_given"}
        and all(isinstance(row[field], str) and row[field].strip() for field in TEXTS)
        and (row["author"] is None or (isinstance(row["author"], str) and row["author"] != ""))
        and isinstance(row["old"], list)
        and row["old"] != []
        and all(isinstance(old, str) and old for old in row["old"])
        and isinstance(row["author_given"], bool)
        and row["verdict"] in VERDICTS
        and row["language"] in LANGUAGES
    )


def as_read(answer: str) -> str:
    """An answer without what a reader overlooks, so that near-copies count as copies."""
    return "".join(answer.split()).casefold()


def sha256_of(file: str) -> str:
    # A checkout may turn line ends into CRLF; that touches no answer.
    content = (FOLDER / file).read_bytes().replace(b"\r\n", b"\n")
    return hashlib.sha256(content).hexdigest()


def test_the_held_out_answers_are_untouched() -> None:
    assert sha256_of("held_out.jsonl") == HELD_OUT_SHA256


def test_the_blind_answers_are_untouched() -> None:
    assert sha256_of(BLIND) == BLIND_SHA256


@pytest.mark.parametrize("file", ALL_FILES)
def test_every_row_has_exactly_the_fields_of_the_guide(file: str) -> None:
    wrong = [number for number, row in enumerate(rows_of(file), 1) if not is_well_formed(row)]
    assert not wrong, f"lines of {file}"


@pytest.mark.parametrize("file", FILES)
def test_there_are_enough_answers_of_every_verdict_and_language(file: str) -> None:
    rows = rows_of(file)
    verdicts = Counter(row["verdict"] for row in rows)
    languages = Counter(row["language"] for row in rows)
    count = len(rows)
    third = count // 3
    assert count >= 200
    assert all(verdicts[verdict] >= 25 for verdict in VERDICTS), verdicts
    assert languages["zh"] >= third, languages
    assert languages["en"] >= third, languages
    assert {row["author_given"] for row in rows} == {True, False}


def test_the_blind_answers_have_the_make_up_of_what_models_answer() -> None:
    rows = rows_of(BLIND)
    count = len(rows)
    assert count >= 200
    verdicts = Counter(row["verdict"] for row in rows)
    shares = {"new": 0.45, "old": 0.25, "both": 0.08, "neither": 0.22}
    far = {v: verdicts[v] for v, share in shares.items() if abs(verdicts[v] / count - share) > 0.03}
    assert not far
    languages = Counter(row["language"] for row in rows)
    assert languages["zh"] >= count * 0.4, languages
    assert languages["en"] >= count * 0.4, languages
    assert len({row["name"] for row in rows}) >= 30
    assert {row["author"] is None for row in rows} == {True, False}
    assert {row["author_given"] for row in rows} == {True, False}


@pytest.mark.parametrize("file", ALL_FILES)
def test_only_an_author_that_the_answer_names_is_given(file: str) -> None:
    given = [row for row in rows_of(file) if row["author_given"]]
    wrong = [row["id"] for row in given if not row["author"] or row["author"] not in row["answer"]]
    assert not wrong


def test_ids_are_unique_and_no_answer_is_in_two_files() -> None:
    rows = [row for file in ALL_FILES for row in rows_of(file)]
    count = len(rows)
    assert count >= 600
    ids = Counter(row["id"] for row in rows)
    assert len(ids) == count
    times = Counter(as_read(row["answer"]) for row in rows)
    copies = [row["id"] for row in rows if times[as_read(row["answer"])] > 1]
    assert not copies
