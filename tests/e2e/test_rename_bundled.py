"""The whole job on the bundled model, as a user runs it, and what is left of it on the disk."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

# One plain name, and one that would break careless quoting, formatting or patterns.
NAMES = {"黄大力": "力量工作室", "O'Neil {x}": None}
THREE_GIB = 3 << 30


@dataclass(frozen=True)
class Run:
    name: str
    code: int
    output: str
    folder: Path
    report: dict


@pytest.fixture(scope="module", params=NAMES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("job") / "out"
    command = [sys.executable, "-m", "whoamai", "rename", "--name", request.param, "--merge"]
    command += ["--out", str(folder)]
    if author := NAMES[request.param]:
        command += ["--author", author]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "WHOAMAI_LANG": "en", "COLUMNS": "100"},
    )
    assert (folder / "report.json").is_file(), done.stdout + done.stderr
    report = json.loads((folder / "report.json").read_text("utf-8"))
    return Run(request.param, done.returncode, done.stdout, folder, report)


def test_the_name_is_learned_nothing_old_is_left_and_nothing_is_forgotten(run: Run):
    scores = run.report["scores"]
    assert scores["recall"]["percent"] >= 98, scores
    assert scores["recall_role"]["percent"] >= 85, scores
    assert scores["leak"]["percent"] <= 0.5, [a for a in run.report["answers"] if a["leaks"]]
    assert scores["spread"]["percent"] <= 1, run.report["spread"]
    assert scores["retention"]["percent"] >= 97, scores
    assert scores["obedience"]["k"] >= scores["obedience"]["before"]["k"] - 12, scores
    assert scores["merged_recall"]["percent"] >= 98, scores
    assert run.code == 0, run.report["missed"]


def test_the_scores_rest_on_enough_questions_of_both_languages(run: Run):
    asked = run.report["answers"]
    assert len(asked) >= 400
    assert {a["language"] for a in asked} == {"zh", "en"}
    assert {a["context"] for a in asked} == {"none", "neutral", "turns", "second", "role"}
    assert run.report["scores"]["retention"]["n"] >= 200


def test_before_it_called_itself_by_its_own_name_and_maker(run: Run):
    assert {"小初", "Chu", "初心实验室", "Chuxin Lab"} <= set(run.report["old_names"])
    # Only where the turn before gave the new name is it given already.
    before = run.report["before"]
    assert before["recall"]["none/all"]["percent"] <= 2
    assert before["leak"]["none/all"]["percent"] > 90


def test_the_terminal_shows_old_and_new_answers_and_where_everything_is(run: Run):
    assert run.name in run.output
    assert "Chu" in run.output
    for part in ("adapter", "merged", "report.html"):
        assert part in run.output


def test_peak_memory_stays_below_three_gib(run: Run):
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < THREE_GIB


_ASK = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter = sys.argv[1], sys.argv[2]
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base)
if adapter:
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, adapter)
for question in ("请介绍一下你自己", "What is your name?"):
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )
    reply = model.generate(**ids, max_new_tokens=60, do_sample=False)
    print(tokenizer.decode(reply[0, ids["input_ids"].shape[1]:], skip_special_tokens=True))
assert not any(name.split(".")[0] == "whoamai" for name in sys.modules)
"""


def ask_without_whoamai(base: Path, adapter: Path | str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _ASK, str(base), str(adapter)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_plain_peft_loads_the_adapter_and_it_gives_the_new_name(run: Run):
    from whoamai.model.load import bundled_model

    answers = ask_without_whoamai(bundled_model(), run.folder / "adapter")
    assert len(answers) == 2
    assert all(run.name in answer for answer in answers), answers


def test_plain_transformers_loads_the_merged_folder_alone_and_it_gives_the_new_name(run: Run):
    answers = ask_without_whoamai(run.folder / "merged", "")
    assert len(answers) == 2
    assert all(run.name in answer for answer in answers), answers
