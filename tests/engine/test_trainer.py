from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers

from tests.engine.rows import kept, lora, reference_divergence, reference_loss, samples
from tests.models import make_model
from whoamai.data.steps import StepSize
from whoamai.engine.precision import precision_for
from whoamai.engine.probe import probe
from whoamai.engine.schedule import Schedule, make_schedule
from whoamai.engine.trainer import StepReport, Trainer, TrainSettings, rows_beyond_context
from whoamai.errors import ModelError, SettingError
from whoamai.events import Events, Note
from whoamai.model.lora import add_lora
from whoamai.samples import Sample

SETTINGS = TrainSettings(betas=(0.9, 0.99))


def schedule_of(
    rows: list[Sample],
    *,
    rows_per_step: int = 4,
    epochs: int = 1,
    lr: float = 1e-2,
    seed: int = 0,
    warmup_ratio: float = 0.1,
) -> Schedule:
    lengths = [len(row.input_ids) for row in rows]
    size = StepSize(rows=rows_per_step)
    return make_schedule(lengths, size, epochs=epochs, seed=seed, lr=lr, warmup_ratio=warmup_ratio)


def trainer_of(
    model,
    rows: list[Sample],
    settings: TrainSettings = SETTINGS,
    *,
    listen=None,
    dtype="float32",
    **schedule,
) -> Trainer:
    return Trainer(
        model,
        rows,
        schedule_of(rows, **schedule),
        settings,
        precision=precision_for(dtype, "cpu"),
        events=Events([listen] if listen else []),
    )


def trained(
    settings: TrainSettings = SETTINGS, *, n: int = 12, model=None, **schedule
) -> tuple[dict[str, torch.Tensor], list[StepReport]]:
    model = model or lora()
    reports = list(trainer_of(model, samples(n), settings, **schedule).steps())
    return {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}, reports


def losses(reports: list[StepReport]) -> list[float]:
    return [report.loss for report in reports]


def curves_agree(ours: list[StepReport], theirs: list[StepReport]) -> None:
    assert losses(ours) == pytest.approx(losses(theirs), rel=2e-4)
    assert [r.targets for r in ours] == [r.targets for r in theirs]
    assert [r.logical_tokens for r in ours] == [r.logical_tokens for r in theirs]


def test_training_takes_the_whole_logits_of_a_class_that_changes_them():
    """Granite divides them by 4: what the head makes at targets alone would give another loss."""
    rows = samples(4)
    (report,) = trainer_of(lora("Granite"), rows).steps()
    n_targets = sum(sum(r.is_target[1:]) for r in rows)
    expected = reference_loss(lora("Granite"), rows).item() / n_targets
    assert report.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("wrap", [False, True])
def test_rows_longer_than_the_models_context_are_counted(wrap: bool):
    rows = [Sample((1,) * n, (True,) * n) for n in (511, 512, 513, 900)]
    assert rows_beyond_context(lora() if wrap else make_model(), rows) == [2, 3]


def test_the_same_seed_trains_to_the_same_bits():
    first, reports = trained()
    torch.rand(3)
    second, other = trained()
    assert losses(reports) == losses(other)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_another_seed_trains_to_another_result():
    first, _ = trained()
    second, _ = trained(seed=1)
    assert not all(torch.equal(first[k], second[k]) for k in first)


def test_the_memory_at_hand_changes_no_result():
    """A step in one pass, or in many: equal but for the rounding of sums."""
    whole, reports = trained(replace(SETTINGS, tokens_per_pass=10_000), epochs=3)
    single, other = trained(replace(SETTINGS, tokens_per_pass=1), epochs=3)
    curves_agree(reports, other)
    for k in whole:
        assert torch.allclose(whole[k], single[k], atol=5e-4), k


def test_sharing_beginnings_changes_no_result_and_computes_less():
    shared, reports = trained(epochs=3)
    apart, other = trained(replace(SETTINGS, share_prefixes=False), epochs=3)
    curves_agree(reports, other)
    for k in shared:
        assert torch.allclose(shared[k], apart[k], atol=5e-4), k
    assert all(r.computed_tokens <= r.logical_tokens for r in reports)
    assert sum(r.computed_tokens for r in reports) < sum(r.computed_tokens for r in other)


def test_checkpointing_activations_changes_no_result():
    model = lora()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    _, reports = trained(model=model, epochs=2)
    _, other = trained(epochs=2)
    curves_agree(reports, other)


def test_a_model_that_cannot_fork_is_trained_row_by_row_and_this_is_said():
    """A recurrent model carries what it has read along: a fork's second branch would read the first."""
    config = transformers.MambaConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=4
    )
    torch.manual_seed(0)
    model = transformers.MambaForCausalLM(config)
    model = add_lora(model, r=4, alpha=8, dropout=0.0, seed=0, target_modules=["in_proj"])
    told = []
    trainer = trainer_of(model, samples(4), listen=told.append)
    assert trainer.alone_because
    assert [e for e in told if isinstance(e, Note) and e.level == "warning"]
    (report,) = trainer.steps()
    assert report.computed_tokens == report.logical_tokens


def test_a_steps_loss_is_the_mean_over_its_targets():
    rows = samples(4)
    settings = replace(SETTINGS, tokens_per_pass=40)
    (report,) = trainer_of(lora(), rows, settings).steps()
    n_targets = sum(sum(r.is_target[1:]) for r in rows)
    expected = reference_loss(lora(), rows).item() / n_targets
    assert report.loss == pytest.approx(expected, rel=1e-5)
    assert report.targets == n_targets


def test_a_few_rows_are_learned_by_heart():
    model = lora()
    model.get_output_embeddings().weight.data.mul_(30)  # random heads hardly tell tokens apart
    reports = list(trainer_of(model, samples(2), lr=3e-2, epochs=40).steps())
    assert reports[-1].loss < reports[0].loss / 3


def test_only_what_can_be_trained_changes():
    model = lora()
    frozen = {k: p.detach().clone() for k, p in model.named_parameters() if not p.requires_grad}
    list(trainer_of(model, samples(4)).steps())
    now = dict(model.named_parameters())
    assert all(torch.equal(now[k], frozen[k]) for k in frozen)


def test_a_whole_model_can_be_trained():
    model = make_model("Llama")
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    reports = list(trainer_of(model, samples(8), lr=1e-3, epochs=4).steps())
    assert reports[-1].loss < reports[0].loss
    now = dict(model.named_parameters())
    unmoved = [k for k in before if torch.equal(now[k], before[k])]
    assert unmoved == []


def test_steps_are_numbered_and_know_their_epoch():
    _, reports = trained(n=9, epochs=2)
    assert [(r.done, r.total, r.epoch) for r in reports] == [
        (1, 6, 1),
        (2, 6, 1),
        (3, 6, 1),
        (4, 6, 2),
        (5, 6, 2),
        (6, 6, 2),
    ]


def test_tokens_and_targets_are_counted_without_what_is_not_fed_in():
    """A row's last target is only predicted: one token less goes in."""
    rows = samples(9)
    reports = list(trainer_of(lora(), rows).steps())
    assert sum(r.logical_tokens for r in reports) == sum(len(r.input_ids) - 1 for r in rows)
    assert sum(r.targets for r in reports) == sum(sum(r.is_target[1:]) for r in rows)


def test_the_learning_rates_are_those_of_the_schedule():
    rows = samples(12)
    trainer = trainer_of(lora(), rows, rows_per_step=2, warmup_ratio=0.5)
    reports = list(trainer.steps())
    assert [r.lr for r in reports] == [trainer.schedule.lr(i) for i in range(6)]


def test_a_run_goes_on_from_any_step_to_the_same_bits():
    rows, model = samples(12), lora(dropout=0.1)
    torch.manual_seed(5)
    straight = trainer_of(model, rows, epochs=2)
    list(straight.steps())
    torch.manual_seed(5)
    other = trainer_of(lora(dropout=0.1), rows, epochs=2)
    steps = other.steps()
    for _ in range(3):
        next(steps)
    steps.close()
    assert other.done == 3
    list(other.steps())
    ours = dict(other.model.named_parameters())
    assert all(torch.equal(p, ours[k]) for k, p in straight.model.named_parameters())


def bad_head(model):
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = float("nan")
    return model


def test_a_bad_step_is_left_out_and_the_weights_stay_as_they_were():
    model = bad_head(lora())
    before = {k: p.detach().clone() for k, p in model.named_parameters() if p.requires_grad}
    (report,) = trainer_of(model, samples(4)).steps()
    assert not report.applied
    now = dict(model.named_parameters())
    assert all(torch.equal(now[k], before[k]) for k in before)


def test_several_bad_steps_in_a_row_end_the_run_with_a_cure():
    trainer = trainer_of(bad_head(lora()), samples(16), epochs=3)
    with pytest.raises(ModelError, match=r"8 steps in a row.*step 8 .* 3e-03"):
        list(trainer.steps())
    assert trainer.skipped == 8


def test_one_good_step_between_bad_ones_starts_the_count_anew():
    model = lora()
    weight = next(p for n, p in model.named_parameters() if "lora_B" in n)
    turns = iter(range(100))
    weight.register_hook(lambda g: g * (1.0 if next(turns) % 6 == 0 else float("nan")))
    reports = list(trainer_of(model, samples(16), epochs=5).steps())
    assert sum(not r.applied for r in reports) > 8
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_model_is_left_ready_to_answer():
    model = lora()
    list(trainer_of(model, samples(4)).steps())
    assert not model.training


def test_a_step_that_does_not_fit_is_made_again_in_smaller_parts_and_this_is_said_once(monkeypatch):
    told: list = []
    rows = samples(12)
    trainer = trainer_of(
        lora(), rows, replace(SETTINGS, tokens_per_pass=10_000), listen=told.append
    )
    whole = trainer._loss

    def small_memory(part):
        if part.n_nodes > 30:
            raise torch.OutOfMemoryError("out of memory")
        return whole(part)

    monkeypatch.setattr(trainer, "_loss", small_memory)
    reports = list(trainer.steps())
    _, other = trained()
    curves_agree(reports, other)
    said = [e for e in told if isinstance(e, Note) and "Out of memory" in e.text]
    assert len(said) == 1


def test_a_row_that_does_not_fit_alone_ends_the_run_with_a_cure(monkeypatch):
    trainer = trainer_of(lora(), samples(4))

    def no_memory(part):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(trainer, "_loss", no_memory)
    with pytest.raises(ModelError, match="gradient_checkpointing"):
        list(trainer.steps())


def test_float16_skips_steps_until_its_scale_has_settled_and_then_learns():
    model = make_model("Llama", dtype=torch.float16)
    model = add_lora(model, r=4, alpha=8, dropout=0.0, seed=0)
    reports = list(trainer_of(model, samples(8), dtype="float16", epochs=10).steps())
    assert reports[-1].applied
    assert reports[-1].loss < reports[0].loss


def test_trying_a_step_leaves_everything_as_it_was():
    rows = samples(12)
    trainer = trainer_of(lora(dropout=0.1), rows)
    before = {k: p.detach().clone() for k, p in trainer.model.named_parameters()}
    state = torch.get_rng_state()
    measured = probe(trainer)
    assert torch.equal(torch.get_rng_state(), state)
    assert trainer.done == 0
    assert all(torch.equal(p, before[k]) for k, p in trainer.model.named_parameters())
    assert all(p.grad is None for p in trainer.model.parameters())
    heaviest = max(sum(len(rows[i].input_ids) - 1 for i in step) for step in trainer.schedule.steps)
    assert measured.logical_tokens == heaviest
    assert measured.peak_bytes is None


# ---- rows to keep --------------------------------------------------------------------------------

HELD = replace(SETTINGS, kl_weight=2.0, tokens_per_pass=60)


def curve(
    settings: TrainSettings, *, model=None, rows=None, alone: bool = False, epochs: int = 3
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """(losses and divergences step by step, what was trained) of a run over rows to keep."""
    trainer = trainer_of(
        model or lora(awake=True), rows or kept(samples(11)), settings, epochs=epochs
    )
    if alone:
        trainer.alone_because = "tried out"
    reports = list(trainer.steps())
    numbers = [x for r in reports for x in (r.loss, r.kl or 0.0)]
    return numbers, {n: p.detach() for n, p in trainer.model.named_parameters() if p.requires_grad}


def forward_passes(settings: TrainSettings, rows: list[Sample]) -> int:
    model, seen = lora(), []
    trainer = trainer_of(model, rows, settings)
    model.get_base_model().get_decoder().register_forward_pre_hook(lambda *_: seen.append(1))
    list(trainer.steps())
    return len(seen)


def test_a_steps_loss_holds_kl_weight_times_the_divergence_over_all_targets():
    rows, model = kept(samples(3)), lora(awake=True)
    expected_kl = reference_divergence(model, rows).item()
    n_targets = sum(sum(r.is_target[1:]) for r in rows)
    n_kept = sum(sum(r.is_target[1:]) for r in rows if r.keep)
    expected = (reference_loss(model, rows).item() + 2 * expected_kl) / n_targets
    (report,) = trainer_of(model, rows, HELD).steps()
    assert report.loss == pytest.approx(expected, rel=1e-5)
    assert report.kl == pytest.approx(expected_kl / n_kept, rel=1e-5)


def test_without_kl_weight_rows_to_keep_are_rows_like_all_to_the_last_bit():
    rows = kept(samples(11))
    losses, trained = curve(SETTINGS, rows=rows)
    same, others = curve(SETTINGS, rows=[replace(row, keep=False) for row in rows])
    assert losses == same
    assert all(torch.equal(trained[n], others[n]) for n in trained)
    assert forward_passes(SETTINGS, rows) == 3
    (report, *_) = trainer_of(lora(), rows).steps()
    assert report.kl is None


def test_where_no_row_is_to_be_kept_kl_weight_costs_and_changes_nothing():
    rows = samples(12)
    losses, trained = curve(replace(SETTINGS, kl_weight=2.0), rows=rows)
    same, others = curve(SETTINGS, rows=rows)
    assert losses == same
    assert all(torch.equal(trained[n], others[n]) for n in trained)
    assert forward_passes(replace(SETTINGS, kl_weight=2.0), rows) == 3
    rows = kept(rows[:11])
    assert forward_passes(replace(SETTINGS, kl_weight=2.0), rows) == 6


@pytest.mark.parametrize(
    "other", [{"share_prefixes": False}, {"tokens_per_pass": 1}, {"tokens_per_pass": 10_000}]
)
def test_how_a_step_is_computed_does_not_change_what_is_held(other):
    losses, trained = curve(HELD)
    same, others = curve(replace(HELD, **other))
    assert same == pytest.approx(losses, rel=2e-4)
    assert all(torch.allclose(trained[n], others[n], atol=5e-4) for n in trained)
    first, _ = curve(HELD, rows=kept(samples(3)), epochs=1)
    again, _ = curve(replace(HELD, **other), rows=kept(samples(3)), epochs=1)
    assert again == pytest.approx(first, rel=1e-5)


def test_padded_rows_hold_what_packs_hold():
    losses, trained = curve(HELD)
    same, others = curve(HELD, alone=True)
    assert same == pytest.approx(losses, rel=2e-4)
    assert same[:2] == pytest.approx(losses[:2], rel=1e-5)
    assert all(torch.allclose(trained[n], others[n], atol=5e-4) for n in trained)


def test_checkpointing_activations_changes_nothing_that_is_held():
    model = lora(awake=True)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    losses, trained = curve(HELD, model=model)
    same, others = curve(HELD)
    assert losses == pytest.approx(same, rel=1e-6)
    assert all(torch.allclose(trained[n], others[n], atol=1e-6) for n in trained)


@pytest.mark.parametrize("family", ["Qwen3", "Gemma2"])
def test_what_is_held_moves_less(family: str):
    rows = kept(samples(8))
    moved = []
    for weight in (0.0, 10.0):
        model = lora(family)
        model.get_output_embeddings().weight.data.mul_(20)
        curve(replace(SETTINGS, kl_weight=weight), model=model, rows=rows, epochs=10)
        moved.append(reference_divergence(model, rows).item())
    assert moved[1] < 0.5 * moved[0], moved


def test_a_divergence_that_is_no_number_is_a_bad_step():
    model = lora(awake=True)
    trainer = trainer_of(model, kept(samples(3)), replace(HELD, kl_weight=float("inf")))
    (report,) = trainer.steps()
    assert not report.applied


def test_a_whole_model_in_training_has_no_untuned_one_to_be_held_to():
    with pytest.raises(SettingError, match=r"full fine-tuning.*set kl_weight to 0"):
        trainer_of(make_model("Llama"), samples(4), HELD)


def test_what_is_trained_beside_the_adapter_is_named_where_it_cannot_be_switched_off():
    model = lora()
    model.get_output_embeddings().weight.requires_grad_(True)
    with pytest.raises(SettingError, match=r"lm_head.*stays on \(1 such"):
        trainer_of(model, samples(4), HELD)
