from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import transformers

from tests.models import make_model
from whoamai.data.loader import batches_of_step, pad
from whoamai.engine.trainer import (
    TrainLog,
    TrainSettings,
    changes_logits,
    rows_beyond_context,
    target_loss,
    train,
)
from whoamai.errors import ModelError
from whoamai.model.lora import add_lora
from whoamai.samples import Sample

SETTINGS = TrainSettings(lr=1e-2, rows_per_step=4, seed=0)
FAMILIES = ["Llama", "Qwen2", "Qwen3", "Gemma2", "Granite", "Cohere"]
CHANGES = {
    "Gemma2": {"final_logit_softcapping": 5.0, "head_dim": 8},
    "Granite": {"logits_scaling": 4.0},
    "Cohere": {"logit_scale": 0.25},
}


def samples(n: int, *, seed: int = 0) -> list[Sample]:
    """Rows of 4 to 24 tokens with targets in two places."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        length = rng.randrange(4, 25)
        ids = tuple(rng.randrange(3, 319) for _ in range(length))
        rows.append(Sample(ids, tuple(i in (2, length - 1) or i > 8 for i in range(length))))
    return rows


def lora(family: str = "Qwen3", **changes):
    model = make_model(family, **{**CHANGES.get(family, {}), **changes})
    return add_lora(model, r=4, alpha=8, dropout=0.0, seed=0)


def reference_loss(model, rows: list[Sample]) -> torch.Tensor:
    """Each row alone, whole logits, labels shifted by hand."""
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
        labels = torch.tensor(
            [i if t else -100 for i, t in zip(row.input_ids, row.is_target, strict=True)][1:]
        )
        total = total + F.cross_entropy(logits.double(), labels, reduction="sum")
    return total


def gradients(model, loss: torch.Tensor) -> torch.Tensor:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)]).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_those_of_whole_logits_row_by_row(family: str, dtype):
    model = lora(family).to(dtype)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    rows = samples(6)
    loss = target_loss(model, pad(rows), whole=changes_logits(model, rows[0]))
    reference = reference_loss(model, rows)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    ours, theirs = gradients(model, loss), gradients(model, reference)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_that_changes_its_logits_is_known(family: str, dtype):
    model = make_model(family, **CHANGES.get(family, {}))
    assert changes_logits(model.to(dtype), samples(1)[0]) is (family in CHANGES)


def test_a_change_is_known_by_what_it_does_and_not_by_its_name():
    class Louder(transformers.Qwen3ForCausalLM):
        def forward(self, *args, **given):
            output = super().forward(*args, **given)
            output.logits = output.logits * 1.01
            return output

    class Narrower(transformers.Qwen3ForCausalLM):
        def __init__(self, config):
            super().__init__(config)
            self.lm_head.register_forward_pre_hook(lambda m, given: (given[0] / 2,))

    config = make_model().config
    for changed in (Louder(config), Narrower(config)):
        assert changes_logits(changed, samples(1)[0])
        rows = samples(3)
        loss = target_loss(changed, pad(rows), whole=True)
        assert loss.item() == pytest.approx(reference_loss(changed, rows).item(), rel=1e-5)


def test_a_cap_that_hardly_shows_on_small_logits_is_known():
    model = make_model("Gemma2", head_dim=8, final_logit_softcapping=1000.0)
    assert changes_logits(model.to(torch.bfloat16), samples(1)[0])


def test_training_takes_the_whole_logits_of_a_class_that_changes_them():
    """Granite divides them by 4: what the head makes at targets alone would give another loss."""
    rows = samples(4)
    log = train(lora("Granite"), rows, SETTINGS, lambda *_: None)
    n_targets = sum(sum(r.is_target[1:]) for r in rows)
    expected = reference_loss(lora("Granite"), rows).item() / n_targets
    assert log.losses == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize("wrap", [False, True])
def test_rows_longer_than_the_models_context_are_counted(wrap: bool):
    rows = [Sample((1,) * n, (True,) * n) for n in (511, 512, 513, 900)]
    assert rows_beyond_context(lora() if wrap else make_model(), rows) == [2, 3]


def test_a_plain_class_computes_the_head_at_targets_only():
    model = lora()
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda m, i, o: seen.append(i[0].shape))
    batch = pad(samples(3))
    target_loss(model, batch, whole=False)
    assert seen == [(batch.n_targets, 32)]


def test_half_precision_losses_are_summed_in_float32():
    assert (
        target_loss(lora().to(torch.bfloat16), pad(samples(2)), whole=False).dtype == torch.float32
    )


def trained(settings: TrainSettings = SETTINGS, n: int = 12) -> tuple[dict, TrainLog]:
    model = lora()
    log = train(model, samples(n), settings, lambda *_: None)
    return {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}, log


def test_the_same_seed_trains_to_the_same_bits():
    first, log = trained()
    torch.rand(3)
    second, other = trained()
    assert log.losses == other.losses
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_another_seed_trains_to_another_result():
    first, _ = trained()
    second, _ = trained(replace(SETTINGS, seed=1))
    assert not all(torch.equal(first[k], second[k]) for k in first)


def test_the_memory_at_hand_changes_no_result():
    """One batch a step, or a row at a time: equal but for the rounding of sums."""
    whole, log = trained(replace(SETTINGS, tokens_per_batch=10_000))
    single, other = trained(replace(SETTINGS, tokens_per_batch=1))
    assert other.losses == pytest.approx(log.losses, rel=1e-4)
    assert other.targets == log.targets
    for k in whole:
        assert torch.allclose(whole[k], single[k], atol=2e-4), k


def test_a_steps_loss_is_the_mean_over_its_targets():
    rows = samples(4)
    log = train(lora(), rows, replace(SETTINGS, tokens_per_batch=40), lambda *_: None)
    n_targets = sum(sum(r.is_target[1:]) for r in rows)
    expected = reference_loss(lora(), rows).item() / n_targets
    assert log.losses == [pytest.approx(expected, rel=1e-5)]


def test_a_few_rows_are_learned_by_heart():
    model = lora()
    model.get_output_embeddings().weight.data.mul_(30)  # random heads hardly tell tokens apart
    log = train(model, samples(2), replace(SETTINGS, lr=3e-2, max_epochs=40), lambda *_: None)
    assert log.losses[-1] < log.losses[0] / 3


def test_only_what_can_be_trained_changes():
    model = lora()
    frozen = {k: p.detach().clone() for k, p in model.named_parameters() if not p.requires_grad}
    train(model, samples(4), SETTINGS, lambda *_: None)
    now = dict(model.named_parameters())
    assert all(torch.equal(now[k], frozen[k]) for k in frozen)


def test_every_step_is_told_with_its_values():
    told = []
    train(lora(), samples(9), SETTINGS, lambda done, total, v: told.append((done, total, set(v))))
    values = {"loss", "lr", "grad_norm", "tokens_per_s"}
    assert told == [(1, 3, values), (2, 3, values), (3, 3, values)]


def test_the_log_counts_tokens_and_targets_without_padding():
    rows = samples(9)
    log = train(lora(), rows, SETTINGS, lambda *_: None)
    assert log.tokens == sum(len(r.input_ids) for r in rows)
    assert log.targets == sum(sum(r.is_target[1:]) for r in rows)
    assert len(log.losses) == len(log.learning_rates) == 3


def test_the_learning_rate_warms_up_and_falls():
    _, log = trained(replace(SETTINGS, warmup_ratio=0.5, rows_per_step=2))
    assert log.learning_rates[0] < SETTINGS.lr
    assert max(log.learning_rates) == pytest.approx(SETTINGS.lr)
    assert log.learning_rates[-1] < SETTINGS.lr / 2


def test_a_loss_that_is_no_number_ends_training_with_a_cure():
    model = lora()
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(ModelError, match=r"step 1 .* --lr 3e-03"):
        train(model, samples(4), SETTINGS, lambda *_: None)


def test_a_gradient_that_is_no_number_ends_training_before_it_spoils_the_weights():
    """The loss is still finite; the step would write NaN into every adapter weight."""
    model = lora()
    weight = next(p for n, p in model.named_parameters() if "lora_B" in n)
    weight.register_hook(lambda g: g * float("nan"))
    with pytest.raises(ModelError):
        train(model, samples(4), SETTINGS, lambda *_: None)
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_model_is_left_ready_to_answer():
    model = lora()
    train(model, samples(4), SETTINGS, lambda *_: None)
    assert not model.training


def test_batches_of_a_step_hold_all_its_targets():
    rows = samples(8)
    batches = batches_of_step(rows, tokens_per_batch=50)
    assert len(batches) > 1
    assert sum(b.n_targets for b in batches) == sum(sum(r.is_target[1:]) for r in rows)
