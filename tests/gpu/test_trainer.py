"""The trainer on a GPU: packs in bfloat16 beside rows alone in float32; too little memory."""

from __future__ import annotations

import pytest
import torch

from tests.engine.rows import gradients, lora, reference_loss, samples
from tests.models import save_chat_model
from whoamai.data.packing import bucket, packs_of_step
from whoamai.data.steps import StepSize
from whoamai.engine.loss import pack_loss
from whoamai.engine.precision import precision_for
from whoamai.engine.schedule import make_schedule
from whoamai.engine.trainer import StepReport, Trainer, TrainSettings
from whoamai.events import Event, Events, Note
from whoamai.model.tree import can_fork, tree_attention_on
from whoamai.samples import Sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
SIZES = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
FAMILIES = ["Llama", "Qwen2", "Qwen3"]


def on_gpu(family: str = "Llama", dtype: torch.dtype = torch.bfloat16, **changes):
    """The frozen weights in `dtype`, the adapter in float32."""
    model = lora(family, awake=True, **{**SIZES, **changes}).cuda()
    for p in model.parameters():
        if not p.requires_grad:
            p.data = p.data.to(dtype)
    return model


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.cpu() - b.cpu()).norm() / b.cpu().norm()).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pack_in_bfloat16_is_as_close_to_float32_rows_alone_as_rows_alone_in_bfloat16_are(family):
    rows = samples(40)
    exact = lora(family, awake=True, **SIZES)
    expected_loss = reference_loss(exact, rows)
    expected = gradients(exact, expected_loss)
    precision = precision_for("bfloat16", "cuda")

    model = on_gpu(family).eval()
    (pack,) = packs_of_step(rows, tokens_per_pass=100_000, sizes=bucket)
    with tree_attention_on(model), precision.lean(model):
        with precision.autocast():
            loss = pack_loss(model, pack, whole=False)
        ours = gradients(model, loss)
    alone = torch.zeros_like(ours)
    for row in rows:
        (single,) = packs_of_step([row], tokens_per_pass=100_000)
        with tree_attention_on(model), precision.lean(model), precision.autocast():
            part = pack_loss(model, single, whole=False)
        alone += gradients(model, part)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=5e-3)
    assert relative(ours, expected) < 1.5 * relative(alone, expected) + 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pack_in_float32_equals_rows_alone(family):
    rows = samples(40)
    exact = lora(family, awake=True, **SIZES)
    expected = gradients(exact, reference_loss(exact, rows))
    model = on_gpu(family, torch.float32).eval()
    (pack,) = packs_of_step(rows, tokens_per_pass=100_000)
    with tree_attention_on(model):
        ours = gradients(model, pack_loss(model, pack, whole=False))
    assert relative(ours, expected) < 1e-4


def trainer_of(model, rows: list[Sample], tokens_per_pass: int, told: list[Event]) -> Trainer:
    schedule = make_schedule(
        [len(r.input_ids) for r in rows],
        StepSize(rows=16),
        epochs=2,
        seed=0,
        lr=1e-3,
        warmup_ratio=0.1,
    )
    return Trainer(
        model,
        rows,
        schedule,
        TrainSettings(tokens_per_pass=tokens_per_pass),
        precision=precision_for("bfloat16", "cuda"),
        events=Events([told.append]),
    )


def losses(reports: list[StepReport]) -> list[float]:
    return [report.loss for report in reports]


def test_the_memory_at_hand_changes_no_curve():
    rows = samples(64)
    whole = losses(list(trainer_of(on_gpu(), rows, 100_000, []).steps()))
    parts = losses(list(trainer_of(on_gpu(), rows, 128, []).steps()))
    assert parts == pytest.approx(whole, rel=5e-3)


def test_checkpointing_changes_no_curve():
    rows = samples(64)
    whole = losses(list(trainer_of(on_gpu(), rows, 100_000, []).steps()))
    model = on_gpu()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = losses(list(trainer_of(model, rows, 100_000, []).steps()))
    assert again == pytest.approx(whole, rel=5e-3)


def long_rows(n: int, length: int) -> list[Sample]:
    """Rows that share nothing."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 319, (n, length), generator=generator).tolist()
    return [Sample(tuple(row), (False,) * (length // 2) + (True,) * (length // 2)) for row in ids]


def test_a_step_that_does_not_fit_the_gpu_is_made_again_in_smaller_parts():
    rows = long_rows(16, 512)
    sizes = {"num_hidden_layers": 8, "max_position_embeddings": 1024}
    told: list[Event] = []
    trainer = trainer_of(on_gpu(**sizes), rows, 100_000, told)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer.try_step(0)
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * peak / total)
    try:
        reports = list(trainer.steps())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert all(report.applied for report in reports)
    assert trainer.tokens_per_pass < 16 * 511
    said = [e for e in told if isinstance(e, Note) and "Out of memory" in e.text]
    assert len(said) == 1
    fitting = losses(list(trainer_of(on_gpu(**sizes), rows, 100_000, []).steps()))
    assert losses(reports) == pytest.approx(fitting, rel=5e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_that_can_fork_are_known_to(family):
    with precision_for("bfloat16", "cuda").autocast():
        assert can_fork(on_gpu(family), longest=512) is None


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_run_by_a_config_learns_on_the_gpu_and_its_adapter_is_written(tmp_path, quantization):
    if quantization == "nf4":
        pytest.importorskip("bitsandbytes")
    pytest.importorskip("pydantic")
    import json

    from whoamai.config.reading import read_config
    from whoamai.recipes.train import TrainRequest, train

    folder = save_chat_model(tmp_path / "model", "Llama", **SIZES)
    data = tmp_path / "data.jsonl"
    with data.open("w", encoding="utf-8") as file:
        for i in range(64):
            turns = [
                {"role": "user", "content": f"question {i % 8}"},
                {"role": "assistant", "content": f"hello {i % 5}"},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    (tmp_path / "run.yaml").write_text(
        f"model: {{pretrained_model_name_or_path: {folder}, quantization: {quantization}}}\n"
        f"data: {{data_path: {data}, pack_to_max_length: false}}\n"
        "lora: {r: 8, lora_alpha: 16}\n"
        "train: {batch_size: 8, lr: 5.0e-3}\n"
        "evaluation: {evaluation_freq: 10, evaluation_inputs: [who are you]}\n"
        f"work_dir: {tmp_path / 'work'}\n"
        "allow: [same-question, few-steps, lr-high]\n",
        "utf-8",
    )
    told: list[Event] = []
    trained = train(TrainRequest(read_config(tmp_path / "run.yaml")), Events([told.append]))
    steps = [e for e in told if type(e).__name__ == "Progress" and e.stage == "train"]
    assert steps[-1].values["loss"] < steps[0].values["loss"]
    assert steps[-1].values["memory_gib"] > 0
    assert (trained.result / "adapter_model.safetensors").is_file()
