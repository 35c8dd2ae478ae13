from __future__ import annotations

import torch

from tests.models import make_model, make_nf4_model
from whoamai.model.lora import add_lora
from whoamai.model.pissa import _largest_parts, is_half_still

IDS = torch.arange(1, 13).reshape(2, 6)
RANK = 4


def pissa(model):
    return add_lora(model, r=RANK, alpha=8, dropout=0.0, seed=0, variant="pissa")


def layers(model) -> list:
    return [m for m in model.modules() if hasattr(m, "lora_A") and hasattr(m, "get_base_layer")]


def halves(layer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A, A0, B, B0 of the formulas."""
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape[0] == b.shape[1] == 2 * RANK
    return a[:RANK], a[RANK:], b[:, :RANK], -b[:, RANK:]


def test_it_starts_from_the_best_approximation_of_each_weight():
    for layer in layers(pissa(make_model("Llama"))):
        a, a0, b, b0 = halves(layer)
        assert torch.equal(a, a0)
        assert torch.equal(b, b0)
        weight = layer.get_base_layer().weight
        left = weight - layer.scaling["default"] * b @ a
        parts = torch.linalg.svdvals(weight)
        assert torch.allclose(torch.linalg.svdvals(left)[: -RANK or None], parts[RANK:], atol=1e-5)


def test_the_scale_is_that_of_the_rank_that_is_trained():
    assert {layer.scaling["default"] for layer in layers(pissa(make_model()))} == {8 / RANK}


def test_the_weights_are_untouched():
    model = make_model("Llama", dtype=torch.bfloat16)
    before = {n: p.clone() for n, p in model.named_parameters()}
    after = pissa(model).get_base_model().named_parameters()
    kept = {n.replace(".base_layer", ""): p for n, p in after}
    assert all(torch.equal(kept[n], p) for n, p in before.items())


def test_the_start_is_held_still_and_the_rest_is_trained_as_in_the_paper():
    model = pissa(make_model("Llama"))
    starts = [tuple(t.detach().clone() for t in halves(layer)) for layer in layers(model)]
    model(input_ids=IDS, labels=IDS).loss.backward()
    for layer in layers(model):
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert a.grad[:RANK].abs().sum() > 0
        assert b.grad[:, :RANK].abs().sum() > 0
        assert a.grad[RANK:].abs().sum() == b.grad[:, RANK:].abs().sum() == 0
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    optimizer.param_groups[0]["weight_decay"] = 0
    optimizer.step()
    for layer, (a, a0, b, b0) in zip(layers(model), starts, strict=True):
        new_a, new_a0, new_b, new_b0 = halves(layer)
        assert torch.equal(new_a0, a0)
        assert torch.equal(new_b0, b0)
        assert not torch.equal(new_a, a)
        assert not torch.equal(new_b, b)


def test_gradients_are_those_of_a_weight_that_is_split():
    """W - s B0 A0 frozen, A and B trained, as the paper has it."""
    model = pissa(make_model("Llama"))
    split = add_lora(make_model("Llama"), r=RANK, alpha=8, dropout=0.0, seed=0)
    for whole, half in zip(layers(model), layers(split), strict=True):
        a, _, b, _ = halves(whole)
        with torch.no_grad():
            half.lora_A["default"].weight.copy_(a)
            half.lora_B["default"].weight.copy_(b)
            half.get_base_layer().weight -= half.scaling["default"] * b @ a
    for each in (model, split):
        each(input_ids=IDS, labels=IDS).loss.backward()
    for whole, half in zip(layers(model), layers(split), strict=True):
        ours, theirs = whole.lora_A["default"].weight.grad, half.lora_A["default"].weight.grad
        assert torch.allclose(ours[:RANK], theirs, atol=1e-6)
        ours, theirs = whole.lora_B["default"].weight.grad, half.lora_B["default"].weight.grad
        assert torch.allclose(ours[:, :RANK], theirs, atol=1e-6)


def test_quantized_weights_are_split_as_they_are_read():
    model = make_nf4_model(hidden_size=64, intermediate_size=128).eval()
    with torch.no_grad():
        before = model(IDS).logits
        assert torch.allclose(pissa(model)(IDS).logits, before, atol=1e-4)


def test_large_weights_are_split_nearly_as_well_by_iteration():
    torch.manual_seed(0)
    weight = torch.randn(1040, 40) @ torch.randn(40, 1030) + 0.1 * torch.randn(1040, 1030)
    a, b = _largest_parts(weight, RANK)
    best = torch.linalg.svdvals(weight)[RANK:].norm()
    assert (weight - b @ a).norm() < 1.001 * best


def test_weight_decay_is_told_to_leave_it_alone():
    trained = [p for p in pissa(make_model()).parameters() if p.requires_grad]
    assert all(is_half_still(p) for p in trained)
    plain = add_lora(make_model(), r=2, alpha=4, dropout=0.0, seed=0)
    assert not any(is_half_still(p) for p in plain.parameters())
