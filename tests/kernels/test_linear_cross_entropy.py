"""The head's loss at chosen places against plain cross entropy in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from whoamai.kernels.linear_cross_entropy import linear_cross_entropy, plain_linear_cross_entropy

PLACES, WIDTH, VOCABULARY = 13, 6, 29


def _case(n: int, seed: int = 0, *, bias: bool = False):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(PLACES, WIDTH, generator=generator)
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=bias)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    place = torch.randint(0, PLACES, (n,), generator=generator).sort().values
    token = torch.randint(0, VOCABULARY, (n,), generator=generator)
    weight = torch.randint(1, 5, (n,), generator=generator)
    return hidden, head, place, token, weight


def _in_float64(hidden, head, place, token, weight):
    """(loss, gradient of hidden) with one logit row a target and nothing clever."""
    hidden = hidden.double().requires_grad_()
    bias = None if head.bias is None else head.bias.double()
    logits = F.linear(hidden[place], head.weight.double(), bias)
    loss = (weight * F.cross_entropy(logits, token, reduction="none")).sum()
    return loss.detach(), torch.autograd.grad(loss, hidden)[0]


@pytest.mark.parametrize("chunk", [1, 4, 5, 13, 100])
@pytest.mark.parametrize("n", [1, 7, 60])
@pytest.mark.parametrize("bias", [False, True])
def test_a_frozen_head_gives_the_loss_and_gradient_of_plain_cross_entropy(chunk, n, bias) -> None:
    hidden, head, place, token, weight = _case(n, bias=bias)
    expected, expected_grad = _in_float64(hidden, head, place, token, weight)
    head.requires_grad_(False)
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, head, place, token, weight, chunk=chunk)
    (loss * 0.5).backward()
    assert hidden.grad is not None
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad.double() * 2, expected_grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [4, 100])
def test_a_trained_head_gets_its_gradient_too(chunk: int) -> None:
    hidden, head, place, token, weight = _case(20)
    whole = F.cross_entropy(head(hidden)[place], token, reduction="none")
    expected = torch.autograd.grad((weight * whole).sum(), head.weight)[0]
    loss = linear_cross_entropy(hidden, head, place, token, weight, chunk=chunk)
    torch.testing.assert_close(torch.autograd.grad(loss, head.weight)[0], expected)


def test_several_targets_at_one_place_add_up() -> None:
    hidden, head, *_ = _case(1)
    head.requires_grad_(False)
    token, weight = torch.tensor([3, 3, 8]), torch.tensor([2, 1, 4])
    loss = linear_cross_entropy(hidden, head, torch.tensor([5, 5, 5]), token, weight)
    apart = F.log_softmax(head(hidden[5]), -1)
    torch.testing.assert_close(loss, -(3 * apart[3] + 4 * apart[8]))


def test_under_autocast_the_head_is_computed_in_its_short_format_and_summed_in_float32() -> None:
    hidden, head, place, token, weight = _case(30)
    head.requires_grad_(False)
    hidden.requires_grad_()
    expected, expected_grad = _in_float64(hidden.detach(), head, place, token, weight)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, head, place, token, weight)
        eager = plain_linear_cross_entropy(hidden, head, place, token, weight)
    assert loss.dtype == torch.float32
    error, eager_error = (abs(x.item() - expected.item()) for x in (loss, eager))
    assert error <= 2 * eager_error + 1e-3 * expected.item()
    (grad,) = torch.autograd.grad(loss, hidden)
    assert grad.dtype == torch.float32
    torch.testing.assert_close(grad.double(), expected_grad, rtol=0.05, atol=0.2)


def test_large_logits_overflow_nothing() -> None:
    hidden, head, place, token, weight = _case(10)
    head.requires_grad_(False)
    loss = linear_cross_entropy(hidden * 1e4, head, place, token, weight)
    assert torch.isfinite(loss)
