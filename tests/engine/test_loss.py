from __future__ import annotations

import pytest
import torch
import transformers

from tests.engine.rows import (
    CHANGES,
    gradients,
    kept,
    lora,
    reference_divergence,
    reference_loss,
    samples,
)
from tests.models import make_model, make_nf4_model
from whoamai.data.loader import pad
from whoamai.data.packing import packs_of_step
from whoamai.engine.loss import Losses, batch_loss, changes_logits, pack_loss, part_losses
from whoamai.model.lora import add_lora
from whoamai.model.tree import tree_attention_on

FAMILIES = ["Llama", "Qwen2", "Qwen3", "Gemma2", "Granite", "Cohere"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_padded_rows_give_the_loss_and_gradients_of_whole_logits_row_by_row(family: str, dtype):
    model = lora(family, awake=True).to(dtype)
    rows = samples(6)
    loss = batch_loss(model, pad(rows), whole=changes_logits(model, rows[0]))
    reference = reference_loss(model, rows)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    ours, theirs = gradients(model, loss), gradients(model, reference)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pack_gives_the_loss_and_gradients_of_whole_logits_row_by_row(family: str):
    model = lora(family, awake=True).eval()
    rows = samples(7)
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000)
    with tree_attention_on(model):
        loss = pack_loss(model, pack, whole=changes_logits(model, rows[0]))
        ours = gradients(model, loss)
    reference = reference_loss(model, rows)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    theirs = gradients(model, reference)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5


def test_a_head_that_is_adapted_gets_its_gradients_from_a_pack():
    model = make_model("Llama", tie_word_embeddings=False)
    model = add_lora(model, r=4, alpha=8, dropout=0.0, seed=0, adapt_head=True)
    rows = samples(5)
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000)
    with tree_attention_on(model):
        ours = gradients(model, pack_loss(model, pack, whole=False))
    theirs = gradients(model, reference_loss(model, rows))
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pack_over_4_bit_weights_equals_its_rows_alone(checkpointing: bool):
    pytest.importorskip("bitsandbytes")
    model = add_lora(make_nf4_model("Llama"), r=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    rows = samples(7)
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000)
    with tree_attention_on(model):
        loss = pack_loss(model, pack, whole=False)
        ours = gradients(model, loss)
    reference = reference_loss(model, rows)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    theirs = gradients(model, reference)
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
        loss = batch_loss(changed, pad(rows), whole=True)
        assert loss.item() == pytest.approx(reference_loss(changed, rows).item(), rel=1e-5)


def test_a_cap_that_hardly_shows_on_small_logits_is_known():
    model = make_model("Gemma2", head_dim=8, final_logit_softcapping=1000.0)
    assert changes_logits(model.to(torch.bfloat16), samples(1)[0])


def test_a_plain_class_computes_the_head_at_targets_only():
    model = lora()
    head = model.get_output_embeddings()
    head.weight.requires_grad_(True)  # a head that is trained is called, and can be watched
    seen = []
    head.register_forward_hook(lambda m, i, o: seen.append(i[0].shape))
    batch = pad(samples(3))
    batch_loss(model, batch, whole=False)
    assert seen == [(batch.n_targets, 32)]


def test_half_precision_losses_are_summed_in_float32():
    model = lora().to(torch.bfloat16)
    assert batch_loss(model, pad(samples(2)), whole=False).dtype == torch.float32


# ---- the divergence from the untuned model -------------------------------------------------------


def same_as_rows_alone(model, of: Losses, rows) -> None:
    """Both losses, and the divergence's gradient, as with whole logits row by row."""
    assert of.divergence is not None
    assert of.cross_entropy.item() == pytest.approx(reference_loss(model, rows).item(), rel=1e-5)
    reference = reference_divergence(model, rows)
    assert of.divergence.item() == pytest.approx(reference.item(), rel=1e-5)
    ours, theirs = gradients(model, of.divergence), gradients(model, reference)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packs_divergence_is_that_of_its_rows_to_keep(family: str, share: bool):
    model, rows = lora(family, awake=True).eval(), kept(samples(7))
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000, share=share, keep=True)
    with tree_attention_on(model):
        of = part_losses(model, pack, whole=changes_logits(model, rows[0]))
        same_as_rows_alone(model, of, rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_rows_diverge_as_their_rows_to_keep_do(family: str):
    model, rows = lora(family, awake=True), kept(samples(7))
    whole = changes_logits(model, rows[0])
    same_as_rows_alone(model, part_losses(model, pad(rows, keep=True), whole=whole), rows)


@pytest.mark.parametrize("variant", ["rslora", "dora", "pissa"])
def test_every_kind_of_adapter_can_be_switched_off(variant):
    model = add_lora(make_model("Llama"), r=4, alpha=8, dropout=0.0, seed=0, variant=variant)
    wake(model)
    rows = kept(samples(5))
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000, keep=True)
    with tree_attention_on(model):
        same_as_rows_alone(model, part_losses(model, pack, whole=False), rows)


def wake(model) -> None:
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.1)


def test_half_of_pissa_is_held_still_with_the_untuned_model_beside_it():
    model = add_lora(make_model("Llama"), r=4, alpha=8, dropout=0.0, seed=0, variant="pissa")
    wake(model)
    (pack,) = packs_of_step(kept(samples(5)), tokens_per_pass=10_000, keep=True)
    with tree_attention_on(model):
        divergence = part_losses(model, pack, whole=False).divergence
        assert divergence is not None
        divergence.backward()
    a = next(p for name, p in model.named_parameters() if "lora_A" in name)
    assert a.grad is not None
    assert a.grad[:4].abs().max() > 0
    assert a.grad[4:].abs().max() == 0


def test_a_head_that_is_adapted_is_compared_with_what_it_was():
    model = make_model("Llama", tie_word_embeddings=False)
    model = add_lora(model, r=4, alpha=8, dropout=0.0, seed=0, adapt_head=True)
    wake(model)
    rows = kept(samples(5))
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000, keep=True)
    with tree_attention_on(model):
        same_as_rows_alone(model, part_losses(model, pack, whole=False), rows)


def test_a_fresh_adapter_has_moved_nothing():
    model = lora()
    of = part_losses(model, pad(kept(samples(5)), keep=True), whole=False)
    assert of.divergence is not None
    assert of.divergence.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_over_4_bit_weights_a_pack_diverges_as_its_rows_do(checkpointing: bool):
    pytest.importorskip("bitsandbytes")
    model = add_lora(make_nf4_model("Llama"), r=4, alpha=8, dropout=0.0, seed=0)
    wake(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    rows = kept(samples(7))
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000, keep=True)
    with tree_attention_on(model):
        same_as_rows_alone(model, part_losses(model, pack, whole=False), rows)


@pytest.mark.parametrize("adapt_head", [False, True])
def test_under_autocast_every_matrix_of_the_adapter_still_gets_its_gradient(adapt_head: bool):
    """autocast keeps what it has rounded; rounded without gradients, it would give none after."""
    model = make_model("Llama", tie_word_embeddings=False, dtype=torch.bfloat16)
    model = add_lora(model, r=4, alpha=8, dropout=0.0, seed=0, adapt_head=adapt_head)
    wake(model)
    rows = kept(samples(7))
    with torch.autocast("cpu", torch.bfloat16):
        of = part_losses(model, pad(rows, keep=True), whole=False)
    assert of.divergence is not None
    (of.cross_entropy + of.divergence).backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(grad is not None and grad.abs().max() > 0 for grad in trained.values())
    exact = reference_divergence(model.float(), rows)
    assert of.divergence.item() == pytest.approx(exact.item(), rel=0.1)


def test_the_untuned_models_pass_draws_no_random_numbers_and_leaves_the_model_as_it_was():
    model, rows = lora("Qwen2", dropout=0.3, awake=True, attention_dropout=0.3), samples(5)
    model.train()
    model.get_submodule("base_model.model.model.norm").eval()
    states = [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()]
    torch.manual_seed(3)
    plain = gradients(model, part_losses(model, pad(rows), whole=False).cross_entropy)
    torch.manual_seed(3)
    of = part_losses(model, pad(kept(rows)[:-1], keep=True), whole=False)
    assert torch.equal(gradients(model, of.cross_entropy), plain)
    after = [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()]
    assert after == states
