"""What explain prints: every number in it, one screen for a training, no line wider than the console."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from whoamai.config import RunConfig
from whoamai.messages import use_language
from whoamai.plan.explanation import (
    DevicePlan,
    Explanation,
    ModelFacts,
    PackingFacts,
    RowFacts,
    StepFacts,
    StopFacts,
    Trained,
    TrainedPart,
)
from whoamai.plan.memory import MemoryPart
from whoamai.plan.preflight import PreflightFinding
from whoamai.plan.words import scale_in_words, settings_in_words
from whoamai.terminal_plan import print_explanation, print_plan

GIB = 2**30
CONFIG = RunConfig()


def steps_of(total: int, warmup: int = 1) -> StepFacts:
    rates = [min(1, (i + 1) / warmup) * (1 - i / total) * 2e-4 for i in range(total)]
    return StepFacts(
        size_rows=None,
        size_tokens=2048,
        fewest_rows=3,
        median_rows=5,
        most_rows=6,
        per_epoch=(total // 2, total - total // 2),
        total=total,
        warmup=warmup,
        peak=2e-4,
        lr=tuple(rates),
        saves=(*range(300, total, 300), total),
        kept=(total,),
        evaluations=(0, total),
        questions=2,
    )


def device(name: str = "16 GB", *, fits: bool = True) -> DevicePlan:
    parts = (MemoryPart("weights", 4 * GIB, "7 billion × half a byte"),)
    return DevicePlan(
        name=name,
        device_type="cuda",
        memory_bytes=16 * GIB,
        free_bytes=15 * GIB,
        needed_bytes=12 * GIB,
        fits=fits,
        tokens_per_pass=2048,
        gradient_checkpointing=True,
        dtype="bfloat16",
        why="The whole step at once.",
        computed_tokens=None,
        parts=parts,
        seconds=3600.0 if fits else None,
        tokens_per_second=2000.0 if fits else None,
        time_basis="half of the card's speed" if fits else None,
    )


def finding(severity: str = "blocks", kind: str = "few-steps") -> PreflightFinding:
    return PreflightFinding(kind, severity, f"Something is wrong: {kind}.", "Mend it.")  # type: ignore[arg-type]


def explanation(**changed) -> Explanation:
    assert CONFIG.lora
    part = TrainedPart("wqkv", 4096, 6144, 32, 20_971_520)
    known = Explanation(
        name="a_config",
        path=None,
        work_dir="work_dirs/a_config",
        settings=settings_in_words(CONFIG),
        model=ModelFacts(
            "a/b", "B-7B", "llama", 7_000_000_000, 32, 4096, 92_544, 32_768, "a table"
        ),
        trained=Trained("qlora", 64, 0.25, (part,), 20_971_520, 0.003, scale_in_words(CONFIG.lora)),
        rows=RowFacts(True, "counted", 1500, 1499, 1, 1, 600_000, 120_000, 339, 401, 684),
        steps=steps_of(980, warmup=29),
        packing=PackingFacts(True, 1_800_000, 720_000, 0.6, 1005),
        here=device("this card"),
        cards=(device("8 GB", fits=False), device("16 GB")),
        findings=(finding(), finding("warns", "rows-cut")),
        not_checked=("vocabulary",),
    )
    return replace(known, **changed)


def printed(show, shown: Explanation, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console, shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


NOTHING = explanation(
    model=None, trained=None, rows=None, steps=None, packing=None, here=None, cards=()
)
ALL_WEIGHTS = explanation(trained=Trained("full", None, None, (), 7_000_000_000, 1.0, ()))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [60, 80, 100, 120])
@pytest.mark.parametrize("shown", [explanation(), NOTHING, ALL_WEIGHTS], ids=["all", "-", "full"])
def test_no_line_is_wider_than_the_console(shown: Explanation, width: int, language: str):
    with use_language(language):
        for show in (print_plan, print_explanation):
            lines = printed(show, shown, width).splitlines()
            assert max(cell_len(line) for line in lines) <= width
            for line in lines:
                assert "…" not in line or show is print_plan  # only there is a finding cut


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_plan_of_a_training_is_one_screen(language: str):
    many = tuple(finding("warns", f"kind-{i}") for i in range(9))
    long = replace(finding(), text="A long sentence about what is wrong. " * 20)
    with use_language(language):
        for shown in (explanation(findings=(long, *many)), NOTHING, ALL_WEIGHTS):
            assert len(printed(print_plan, shown, 100).splitlines()) <= 24


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_run_that_ends_once_the_name_is_learned_says_so_on_the_same_screen(language: str):
    stops = StopFacts("黄大力", (("zh", 472), ("en", 428)), 52, 98, 1, 2, (0, 5, 10, 980), 14)
    many = tuple(finding("warns", f"kind-{i}") for i in range(9))
    shown = explanation(path="mine.yaml", findings=many, stops=stops)
    with use_language(language):
        plan = printed(print_plan, shown, 100)
        assert len(plan.splitlines()) <= 24
        for text in (plan, printed(print_explanation, shown, 100)):
            assert all(word in text for word in ("黄大力", "98%", "472", "428", "14"))
        assert "黄大力" not in printed(print_plan, explanation(path="mine.yaml"), 100)


def test_everything_that_was_found_out_is_printed():
    text = " ".join(printed(print_explanation, explanation(), 200).split())
    for part in (
        "B-7B · QLoRA",
        "64 × (4,096 + 6,144) × 32 = 20,971,520 attention: query, key and value",
        "lora_alpha / r = 16 / 64 = 0.25",
        "490 + 490 steps in 2 epochs = 980 optimizer steps",
        "rises over 29 steps to 2e-4",
        "shortest 339, median 401, longest 684",
        "1 were cut to max_length, 1 left out",
        "60% are saved",
        "its 2 questions are asked after step 0, 980".capitalize(),
        "needs 12.0 of 15.0 GiB free; it fits",
        "weights 4.00 GiB 7 billion × half a byte",
        "60 min",
        "does not fit",
        "Something is wrong: few-steps.",
        "→ Mend it.",
        "Training would be refused because of: few-steps.",
    ):
        assert part in text, part


def test_what_is_not_known_is_said():
    text = printed(print_explanation, NOTHING, 200)
    assert "Not known, because the data could not be read" in text
    assert text.count("Not known: see the findings below.") == 2


def test_with_data_unknown_the_memory_is_said_to_be_for_rows_of_max_length():
    text = printed(print_explanation, explanation(rows=None, steps=None, packing=None), 200)
    assert "counted as for rows of max_length" in text


def test_where_nothing_fits_here_the_parts_are_those_of_the_smallest_card_that_does():
    text = printed(print_explanation, explanation(here=device("tiny", fits=False)), 200)
    assert "it does NOT fit" in text
    assert "By part, on 16 GB:" in text


def test_where_a_cpu_takes_days_the_parts_are_those_of_the_smallest_card_that_fits():
    slow = replace(device("a CPU"), device_type="cpu", seconds=86400.0)
    text = printed(print_explanation, explanation(here=slow), 200)
    assert "There is no GPU here." in text
    assert "By part, on 16 GB:" in text
    quick = replace(slow, seconds=60.0)
    assert "By part, on a CPU:" in printed(print_explanation, explanation(here=quick), 200)


def test_settings_that_differ_from_the_default_are_marked():
    settings = settings_in_words(RunConfig.model_validate({"train": {"lr": 1e-3}}))
    text = printed(print_explanation, explanation(settings=settings), 200)
    marked = [line.split()[1] for line in text.splitlines() if line.strip().startswith("● ")]
    assert marked[1:] == ["lr"]  # the first is the legend
    assert "2e-4" not in text.partition("━━ The model")[0]


def test_findings_that_cannot_be_passed_by_option_are_not_offered_to_be():
    text = printed(print_explanation, explanation(findings=(finding(kind="data"),)), 200)
    assert "Training would be refused because of: data." in text
    assert "trains all the same" not in text


@pytest.mark.parametrize(
    ("numbers", "formula"),
    [
        (8 * 30 * 2, "8 × (10 + 20) × 2 = 480"),
        ((8 * 30 + 20) * 2, "(8 × (10 + 20) + 20) × 2 = 520"),
        (2 * 8 * 30 * 2, "2 × 8 × (10 + 20) × 2 = 960"),
    ],
    ids=["lora", "dora", "pissa"],
)
def test_a_formula_gives_the_number_beside_it(numbers: int, formula: str):
    part = TrainedPart("q_proj", 10, 20, 2, numbers)
    trained = Trained("lora", 8, 2.0, (part,), numbers, 0.1, ())
    text = " ".join(printed(print_explanation, explanation(trained=trained), 120).split())
    assert f"q_proj {formula}" in text
    made, _, result = formula.partition(" = ")
    assert eval(made.replace("×", "*")) == int(result)
