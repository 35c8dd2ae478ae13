"""The fast layers' kernels on a GPU: `python -m pytest tests/gpu/test_fast_path.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.engine.rows import gradients, reference_loss, samples
from tests.model.test_fast_path import make
from tests.trees import random_forest
from whoamai.data.packing import bucket, packs_of_step
from whoamai.engine.loss import pack_loss
from whoamai.engine.precision import precision_for
from whoamai.kernels import fused
from whoamai.kernels.linear_cross_entropy import linear_cross_entropy
from whoamai.kernels.tree_flash import (
    Cut,
    _plain_backward,
    _plain_forward,
    flash_backward,
    flash_forward,
    flash_plan,
)
from whoamai.model.fast_path import FastDecoder, build
from whoamai.model.tree import base_model, tree_attention_on

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
HALF = 8e-3  # of bfloat16: 8 bits, once or twice rounded


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double().cpu() - want.double().cpu()).norm() / want.double().norm().cpu()).item()


def on_both(make_it: Callable[[torch.device, torch.dtype], Any], limit: float = HALF) -> None:
    """The kernel in bfloat16 beside the plain form in float64, of the same rounded numbers."""
    got = make_it(torch.device("cuda"), torch.bfloat16)
    want = make_it(torch.device("cpu"), torch.float64)
    errors = [off(a, b) for a, b in zip(got, want, strict=True)]
    assert all(e < limit for e in errors), errors


def drawn(*shape: int, seed: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The same numbers for every device and type: such as bfloat16 can hold."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.bfloat16().to(device, dtype)


@pytest.mark.parametrize("size", [256, 300, 4096, 5120])
def test_norms_forward_and_back(size: int):
    def made(device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
        how = {"device": device, "dtype": dtype}
        x, y, g, past = (drawn(33, size, seed=n, **how) for n in range(4))
        weight = drawn(size, seed=9, **how)
        out, again, dx, alone = (torch.full((33, size + 8), 7.0, **how) for _ in range(4))
        both = fused.add_norm(x, y, weight, 1e-5, out[:, :size])
        fused.add_norm(x, None, weight, 1e-5, again[:, :size])
        fused.norm_backward(x, weight, 1e-5, g, past, dx[:, :size])
        fused.norm_backward(x, weight, 1e-5, g, None, alone[:, :size])
        return [both, out, again, dx, alone]

    on_both(made)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("heads", "groups", "size"), [(32, 8, 128), (14, 2, 64)])
def test_turning_heads_and_turning_them_back(heads: int, groups: int, size: int, mixed: bool):
    def made(device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
        width = (heads + 2 * groups) * size
        x = drawn(17, width + 16, seed=0, device=device, dtype=dtype)[:, :width]
        angles = drawn(17, size // 2, seed=1, device=device, dtype=dtype).repeat(1, 2)
        cos, sin = angles.cos().bfloat16().to(dtype), angles.sin().bfloat16().to(dtype)
        out = []
        for back in (False, True):
            out.append(torch.zeros(17, width + 8, device=device, dtype=dtype))
            how = {"heads": heads, "groups": groups, "mixed": mixed, "back": back}
            fused.rotary(x, cos, sin, out[-1][:, :width], **how)
        return out

    on_both(made)


@pytest.mark.parametrize("size", [512, 2500, 14336])
def test_swiglu_forward_and_back(size: int):
    def made(device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
        how = {"device": device, "dtype": dtype}
        gate_up, d = drawn(9, 2 * size, seed=0, **how), drawn(9, size, seed=1, **how)
        out, dgate_up, again = (torch.zeros(9, n, **how) for n in (size + 8, 2 * size + 8, size))
        fused.swiglu(gate_up, out[:, :size])
        fused.swiglu_backward(gate_up, d, dgate_up[:, : 2 * size], again)
        return [out, dgate_up, again]

    on_both(made)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (8, 2), (14, 2), (32, 8)])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(("n", "fork"), [(128, 0.1), (1024, 0.01), (640, 0.0), (2048, 0.003)])
def test_attention_in_a_forest(heads: int, groups: int, size: int, n: int, fork: float):
    end, _ = random_forest(n, seed=n, fork=fork)
    how = {"device": torch.device("cuda"), "dtype": torch.bfloat16}
    heads_in = drawn(n, heads + 2 * groups, size, seed=1, **how)
    q, k, v = heads_in.split([heads, groups, groups], 1)
    do = drawn(n, heads, size, seed=2, **how)
    plan = flash_plan(end, heads // groups, q.device, Cut(most=5))
    wide = torch.full((n, heads * size + 64), 7.0, **how)
    o = wide[:, : heads * size].unflatten(1, (heads, size))
    _, lse = flash_forward(q, k, v, plan, scale=size**-0.5, out=o)
    grads = torch.full_like(heads_in, float("nan"))
    out = grads.split([heads, groups, groups], 1)
    flash_backward(do, q, k, v, o, lse, plan, scale=size**-0.5, out=out)
    exact = [t.double() for t in (do, q, k, v)]
    want, want_lse = _plain_forward(*exact[1:], end.cuda(), size**-0.5)
    wants = _plain_backward(*exact, want, want_lse, end.cuda(), size**-0.5)
    errors = [off(a, b) for a, b in zip((o, lse, *out), (want, want_lse, *wants), strict=True)]
    assert all(e < 1.2e-2 for e in errors), errors
    assert torch.equal(wide[:, heads * size :], torch.full((n, 64), 7.0, **how))


def test_attention_backwards_gives_the_same_bits_twice():
    end, _ = random_forest(4096, seed=0, fork=0.002)
    how = {"device": torch.device("cuda"), "dtype": torch.bfloat16}
    q, do = (drawn(4096, 8, 64, seed=s, **how) for s in (0, 3))
    k, v = (drawn(4096, 2, 64, seed=s, **how) for s in (1, 2))
    plan = flash_plan(end, 4, q.device, Cut(most=8))
    assert plan.n_splits > 0
    o, lse = flash_forward(q, k, v, plan, scale=0.125)
    found = []
    for _ in range(2):
        out = [torch.empty_like(t) for t in (q, k, v)]
        flash_backward(do, q, k, v, o, lse, plan, scale=0.125, out=out)
        found.append(out)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_loss_of_the_head_in_kernels():
    def made(device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
        hidden = drawn(100, 64, seed=0, device=device, dtype=dtype).requires_grad_()
        head = torch.nn.Linear(64, 9001, bias=False).requires_grad_(False)
        head.weight.data = drawn(9001, 64, seed=1, device=device, dtype=dtype)
        place = torch.cat([torch.arange(100), torch.arange(0, 100, 7)]).sort().values.to(device)
        token = (torch.arange(len(place)) * 79 % 9001).to(device)
        weight = (1 + torch.arange(len(place)) % 3).to(device)
        loss = linear_cross_entropy(hidden, head, place, token, weight, chunk=32)
        loss.backward()
        return [loss, hidden.grad]

    on_both(made, 1.5e-2)  # logits are rounded to bfloat16 before, gradients of them after


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "InternLM2"])
def test_a_pack_is_as_close_to_float32_rows_alone_as_the_models_own_layers_are(family: str):
    rows = samples(60)
    sizes: dict[str, Any] = {
        "hidden_size": 512,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    }
    exact = make(family, r=16, **sizes)
    expected_loss = reference_loss(exact, rows)
    expected = gradients(exact, expected_loss)
    (pack,) = packs_of_step(rows, tokens_per_pass=100_000, sizes=bucket)
    found = {}
    for fast in (False, True):
        model = make(family, r=16, **sizes).cuda()
        for p in model.parameters():
            if not p.requires_grad:
                p.data = p.data.bfloat16()
        if fast:
            decoder = build(base_model(model))
            assert isinstance(decoder, FastDecoder), decoder
            base_model(model).fast_decoder = decoder
        precision = precision_for("bfloat16", "cuda")
        with tree_attention_on(model), precision.lean(model):
            with precision.autocast():
                loss = pack_loss(model, pack, whole=False)
            found[fast] = off(gradients(model, loss), expected)
        assert loss.item() == pytest.approx(expected_loss.item(), rel=5e-3)
    assert found[True] < 1.2 * found[False] + 1e-3, found
