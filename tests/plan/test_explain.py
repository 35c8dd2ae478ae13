"""A config explained: the numbers are those of the run, whatever is not known is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.models import make_model, save_chat_model
from whoamai.config.reading import read_config
from whoamai.model.load import load_tokenizer
from whoamai.plan.explain import explain
from whoamai.plan.explanation import Explanation
from whoamai.plan.prepare import demands, prepare

QUESTIONS = ["Who are you?"]
# A hub name of the shipped table, whose tokenizer is on no machine that runs tests offline.
FAR_AWAY = "internlm/internlm2_5-7b-chat"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    lines = (
        {"conversation": [{"system": "Be kind.", "input": f"question {i}", "output": "hello" * i}]}
        for i in range(1, 41)
    )
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


def write_config(folder: Path, **sections: Any) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(sections, allow_unicode=True), encoding="utf-8")
    return file


def explained(folder: Path, model: Path | str, data: Path, /, **sections: Any) -> Explanation:
    model_settings = {"pretrained_model_name_or_path": str(model), "device": "cpu"}
    sections["model"] = {**model_settings, **sections.get("model", {})}
    sections["data"] = {"data_path": str(data), **sections.get("data", {})}
    return explain(read_config(write_config(folder, **sections)))


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"max_length": 128}},
        {"data": {"pack_to_max_length": False}, "train": {"batch_size": 4}},
        {"data": {"max_length": 256}, "train": {"max_epochs": 5, "accumulative_counts": 3}},
        {"data": {"pack_to_max_length": False}, "train": {"batch_size": 20, "max_epochs": 1}},
        {"train": {"max_epochs": 1, "warmup_ratio": 0}},
        {
            "data": {"pack_to_max_length": False},
            "evaluation": {"evaluation_inputs": QUESTIONS, "evaluation_freq": 7},
            "checkpoint": {"save_steps": 9, "save_total_limit": -1},
        },
    ],
    ids=["packed", "unpacked", "epochs", "two steps", "one-step warmup", "questions and saves"],
)
def test_steps_rates_saves_and_questions_are_those_of_the_run(
    tmp_path: Path, model_folder: Path, rows: Path, sections: dict[str, Any]
):
    explanation = explained(tmp_path, model_folder, rows, **sections)
    config = read_config(tmp_path / "mine.yaml").config
    run = prepare(config, *load_tokenizer(str(model_folder)))
    steps, packing = explanation.steps, explanation.packing
    assert steps
    assert packing
    assert steps.total == run.schedule.total
    assert steps.warmup == run.schedule.warmup >= 1
    assert list(steps.lr) == [run.schedule.lr(i) for i in range(run.schedule.total)]
    assert max(steps.lr) == config.train.lr
    assert list(steps.saves) == run.schedule.saves
    assert list(steps.evaluations) == run.schedule.evaluations
    assert sum(steps.per_epoch) == steps.total
    wanted = demands(run, config)
    assert (packing.tokens, packing.computed) == (wanted.tokens, wanted.computed)


def test_a_warmup_of_one_step_has_the_full_rate(tmp_path: Path, model_folder: Path, rows: Path):
    """XTuner's stays at a hundred-thousandth of it for the whole run."""
    explanation = explained(tmp_path, model_folder, rows, train={"max_epochs": 1, "lr": 2e-4})
    assert explanation.steps
    assert explanation.steps.warmup == 1
    assert explanation.steps.lr[0] == 2e-4


def test_rows_are_counted_with_the_models_own_tokenizer(
    tmp_path: Path, model_folder: Path, rows: Path
):
    explanation = explained(tmp_path, model_folder, rows)
    config = read_config(tmp_path / "mine.yaml").config
    encoded = prepare(config, *load_tokenizer(str(model_folder))).encoded
    facts = explanation.rows
    assert facts
    assert facts.exact
    assert (facts.conversations, facts.rows, facts.cut, facts.left_out) == (40, 40, 0, 0)
    assert (facts.tokens, facts.targets) == (sum(encoded.lengths), encoded.n_targets)
    assert (facts.shortest, facts.longest) == (min(encoded.lengths), max(encoded.lengths))


def test_without_a_local_tokenizer_rows_are_estimated_and_said_to_be(tmp_path: Path, rows: Path):
    explanation = explained(tmp_path, FAR_AWAY, rows)
    assert explanation.rows
    assert not explanation.rows.exact
    assert "estimated" in explanation.rows.basis
    assert explanation.rows.rows == 40
    assert explanation.steps


def test_trained_numbers_are_those_of_the_adapter(tmp_path: Path, model_folder: Path, rows: Path):
    from whoamai.model.lora import add_lora

    explanation = explained(tmp_path, model_folder, rows, lora={"r": 8, "lora_alpha": 4})
    model = add_lora(make_model(), r=8, alpha=4, dropout=0.0, seed=0)
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    trained = explanation.trained
    assert trained
    assert trained.total == adapter == sum(part.parameters for part in trained.parts)
    for part in trained.parts:
        assert part.parameters == 8 * (part.n_in + part.n_out) * part.count
    assert trained.scale == 0.5
    assert any("4 / 8 = 0.5" in words for words in trained.words)


def test_where_every_weight_is_trained_all_are_counted(
    tmp_path: Path, model_folder: Path, rows: Path
):
    explanation = explained(tmp_path, model_folder, rows, lora=None, train={"lr": 1e-4})
    n = sum(p.numel() for p in make_model().parameters())
    assert explanation.trained
    assert explanation.model
    assert explanation.trained.total == explanation.model.parameters == n
    assert (explanation.trained.share, explanation.trained.rank) == (1, None)


def test_rslora_is_explained_with_its_own_factor(tmp_path: Path, model_folder: Path, rows: Path):
    lora = {"r": 16, "lora_alpha": 8, "variant": "rslora"}
    trained = explained(tmp_path, model_folder, rows, lora=lora).trained
    assert trained
    assert trained.scale == 2
    assert any("8 / √16 = 2" in words for words in trained.words)


def test_the_checkpoints_kept_are_the_last_ones(tmp_path: Path, model_folder: Path, rows: Path):
    steps = explained(
        tmp_path,
        model_folder,
        rows,
        data={"pack_to_max_length": False},
        train={"max_epochs": 1},
        checkpoint={"save_steps": 15, "save_total_limit": 2},
    ).steps
    assert steps
    assert (steps.saves, steps.kept) == ((15, 30, 40), (30, 40))


def test_without_its_data_the_rest_is_explained_all_the_same(tmp_path: Path, model_folder: Path):
    explanation = explained(tmp_path, model_folder, tmp_path / "nowhere.jsonl")
    assert explanation.rows is None
    assert explanation.steps is None
    assert explanation.trained
    assert explanation.here
    assert explanation.here.needed_bytes > 0
    assert explanation.here.seconds is None
    [finding] = [f for f in explanation.findings if f.kind == "data"]
    assert finding.severity == "blocks"
    assert "nowhere.jsonl" in finding.text


def test_rows_that_cannot_be_used_become_findings(tmp_path: Path, model_folder: Path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"conversation": [{"input": "hi", "output": ["a", "list"]}]}\n', "utf-8")
    explanation = explained(tmp_path, model_folder, bad)
    assert explanation.steps is None
    assert any(f.severity == "blocks" and "bad.jsonl:1" in f.text for f in explanation.findings)


def test_an_unknown_model_is_a_finding_and_the_steps_are_explained(tmp_path: Path, rows: Path):
    explanation = explained(tmp_path, "nobody/knows-this", rows)
    assert explanation.model is None
    assert explanation.trained is None
    assert explanation.cards == ()
    assert explanation.steps
    assert any(f.kind == "model" for f in explanation.findings)


def test_findings_that_block_come_first(tmp_path: Path, model_folder: Path, rows: Path):
    train = {"max_epochs": 1, "batch_size": 40, "lr": 0.9}
    explanation = explained(tmp_path, model_folder, rows, train=train)
    severities = [f.severity for f in explanation.findings]
    assert severities == sorted(severities, key=["blocks", "warns", "notes"].index)
    assert {"few-steps", "lr-high"} <= {f.kind for f in explanation.findings}


def test_every_setting_is_explained_with_its_value_and_default(
    tmp_path: Path, model_folder: Path, rows: Path
):
    explanation = explained(tmp_path, model_folder, rows, train={"lr": 1e-3})
    settings = {f"{s.section}.{s.name}": s for s in explanation.settings}
    assert len(settings) == len(explanation.settings) > 35
    assert all(s.about for s in explanation.settings)
    lr = settings["train.lr"]
    assert (lr.value, lr.default, lr.is_default) == (1e-3, 2e-4, False)
    assert lr.more
    assert lr.less
    assert settings["train.max_epochs"].is_default
    assert settings["data.encoding"].more == ""  # nothing is higher or lower there


def test_settings_without_an_adapter_say_so(tmp_path: Path, model_folder: Path, rows: Path):
    explanation = explained(tmp_path, model_folder, rows, lora=None)
    [lora] = [s for s in explanation.settings if "lora" in (s.section, s.name)]
    assert (lora.name, lora.value, lora.is_default) == ("lora", None, False)


def test_an_explanation_is_json_with_every_number(tmp_path: Path, model_folder: Path, rows: Path):
    explanation = explained(tmp_path, model_folder, rows)
    data = json.loads(json.dumps(explanation.as_json()))
    assert explanation.steps
    assert data["steps"]["lr"] == list(explanation.steps.lr)
    assert data["trained"]["parts"][0]["name"]
    assert {"name", "settings", "model", "rows", "packing", "here", "cards", "findings"} <= set(
        data
    )


def test_common_cards_are_planned_too(tmp_path: Path, rows: Path):
    explanation = explained(tmp_path, FAR_AWAY, rows, model={"quantization": "nf4"})
    sizes = [card.memory_bytes >> 30 for card in explanation.cards]
    assert {8, 16, 24, 40, 80, 141} <= set(sizes)
    fits = [card.fits for card in explanation.cards]
    assert fits[-1]
    assert sorted(fits) == fits  # larger ones fit if smaller ones do
    assert all(card.needed_bytes <= card.memory_bytes for card in explanation.cards if card.fits)


def test_a_7b_config_is_explained_without_torch_in_little_memory(rows: Path):
    """In a process of its own: what is imported here already does not count."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say how much memory a process took")
    script = (
        "import sys\n"
        "from whoamai.config.reading import read_config\n"
        "from whoamai.plan.explain import explain\n"
        "name = 'internlm2_5_chat_7b_qlora_identity_e3'\n"
        "e = explain(read_config(name, ['data.data_path=' + sys.argv[1]]))\n"
        "assert e.steps and e.trained and e.cards\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'peft'} & set(sys.modules)\n"
        "[most] = [x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM')]\n"
        "print(sorted(heavy), int(most) >> 10)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(rows)], capture_output=True, text=True, check=True
    )
    heavy, mebibytes = run.stdout.rsplit(maxsplit=1)
    assert heavy == "[]"
    assert int(mebibytes) < 300
