"""The head's divergence at chosen places against F.kl_div in float64; its gradient by differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from whoamai.kernels.linear_kl import kl_of_logits, linear_kl, plain_linear_kl

PLACES, WIDTH, VOCABULARY = 13, 6, 29


def _case(seed: int = 0, *, bias: bool = False, places: int = PLACES, near: float = 0.3):
    """(hidden, hidden of the untuned model, frozen head, weights, some of them 0)."""
    generator = torch.Generator().manual_seed(seed)
    untuned = torch.randn(places, WIDTH, generator=generator)
    hidden = untuned + near * torch.randn(places, WIDTH, generator=generator)
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=bias).requires_grad_(False)
    for parameter in head.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    weight = torch.randint(0, 4, (places,), generator=generator)
    return hidden, untuned, head, weight


def _in_float64(hidden, untuned, head, weight):
    """(loss, gradient of hidden) with whole logits and nothing clever."""
    hidden = hidden.double().requires_grad_()
    bias = None if head.bias is None else head.bias.double()
    log_q = F.linear(hidden, head.weight.double(), bias).log_softmax(-1)
    log_p = F.linear(untuned.double(), head.weight.double(), bias).log_softmax(-1)
    loss = (weight * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)).sum()
    return loss.detach(), torch.autograd.grad(loss, hidden)[0]


@pytest.mark.parametrize("chunk", [1, 4, 5, 13, 100])
@pytest.mark.parametrize("bias", [False, True])
def test_a_frozen_head_gives_the_divergence_and_its_gradient(chunk: int, bias: bool) -> None:
    hidden, untuned, head, weight = _case(bias=bias)
    expected, expected_grad = _in_float64(hidden, untuned, head, weight)
    hidden.requires_grad_()
    loss = linear_kl(hidden, untuned, head, weight, chunk=chunk)
    (loss * 0.5).backward()
    assert hidden.grad is not None
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad.double() * 2, expected_grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("way", [linear_kl, plain_linear_kl])
def test_the_gradient_is_that_of_finite_differences(way, bias: bool) -> None:
    hidden, untuned, head, weight = _case(bias=bias)
    head = head.double()
    hidden, untuned = hidden.double().requires_grad_(), untuned.double()
    assert torch.autograd.gradcheck(lambda h: way(h, untuned, head, weight, chunk=4), (hidden,))


@pytest.mark.parametrize("way", [linear_kl, plain_linear_kl])
def test_where_nothing_has_moved_there_is_no_divergence_and_no_gradient(way) -> None:
    hidden, _, head, weight = _case()
    hidden.requires_grad_()
    loss = way(hidden, hidden.detach(), head, weight)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, hidden)[0].abs().max() < 1e-6


def test_the_untuned_distribution_is_the_first_of_the_two() -> None:
    """KL is not symmetric: what the untuned model held likely must stay so."""
    hidden, untuned, head, _ = _case(near=1.0)
    one = torch.ones(PLACES)
    there, back = linear_kl(hidden, untuned, head, one), linear_kl(untuned, hidden, head, one)
    p = head(untuned).softmax(-1)
    expected = (p * (p.log() - head(hidden).log_softmax(-1))).sum()
    torch.testing.assert_close(there, expected)
    assert abs(there - back) > 0.01 * there


def test_logits_that_are_there_already_give_the_same() -> None:
    hidden, untuned, head, weight = _case()
    torch.testing.assert_close(
        kl_of_logits(head(hidden), head(untuned), weight), linear_kl(hidden, untuned, head, weight)
    )


@pytest.mark.parametrize("chunk", [4, 100])
def test_a_trained_head_gets_its_gradient_and_is_compared_with_what_it_was(chunk: int) -> None:
    hidden, untuned, was, weight = _case()
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    with torch.no_grad():
        head.weight.copy_(was.weight + 0.1)
        head.weight[3] += 0.5
    log_q = head(hidden).log_softmax(-1)
    log_p = was(untuned).log_softmax(-1)
    whole = (weight * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)).sum()
    expected = torch.autograd.grad(whole, head.weight)[0]
    loss = linear_kl(hidden, untuned, head, weight, head_untuned=was, chunk=chunk)
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(torch.autograd.grad(loss, head.weight)[0], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_no_farther_off_than_plain_torch(dtype: torch.dtype) -> None:
    hidden, untuned, head, weight = _case(places=200)
    hidden.requires_grad_()
    expected, expected_grad = _in_float64(hidden.detach(), untuned, head, weight)
    off = {}
    for way in (linear_kl, plain_linear_kl):
        with torch.autocast("cpu", dtype):
            loss = way(hidden, untuned, head, weight)
        assert loss.dtype == torch.float32
        (grad,) = torch.autograd.grad(loss, hidden)
        assert grad.dtype == torch.float32
        off[way] = abs(loss.item() - expected.item()), (grad - expected_grad).norm().item()
    (ours, our_grad), (plain, plain_grad) = off[linear_kl], off[plain_linear_kl]
    assert ours <= 1.5 * plain + 1e-4 * expected.item()
    assert our_grad <= 1.5 * plain_grad + 1e-4 * expected_grad.norm().item()


def test_large_logits_overflow_nothing() -> None:
    hidden, untuned, head, weight = _case()
    hidden = (hidden * 1e4).requires_grad_()
    loss = linear_kl(hidden, untuned * 1e4, head, weight)
    assert torch.isfinite(loss)
    assert torch.autograd.grad(loss, hidden)[0].isfinite().all()


def test_no_places_diverge_by_nothing() -> None:
    hidden, untuned, head, weight = _case(places=0)
    assert linear_kl(hidden, untuned, head, weight).item() == 0
