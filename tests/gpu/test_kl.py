"""The divergence from the untuned model on a GPU: packs in bfloat16 beside rows alone in float32."""

from __future__ import annotations

import pytest
import torch

from tests.engine.rows import gradients, kept, lora, reference_divergence, samples
from whoamai.data.packing import bucket, packs_of_step
from whoamai.engine.loss import part_losses
from whoamai.engine.precision import precision_for
from whoamai.kernels.linear_kl import linear_kl, plain_linear_kl
from whoamai.model.tree import tree_attention_on

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
SIZES = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.cpu() - b.cpu()).norm() / b.cpu().norm()).item()


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3"])
def test_a_pack_in_bfloat16_is_as_close_to_float32_rows_as_rows_alone_in_bfloat16_are(family):
    rows = kept(samples(40))
    exact = lora(family, awake=True, **SIZES)
    expected_kl = reference_divergence(exact, rows)
    expected = gradients(exact, expected_kl)
    precision = precision_for("bfloat16", "cuda")
    model = lora(family, awake=True, **SIZES).cuda()
    for p in model.parameters():
        if not p.requires_grad:
            p.data = p.data.to(torch.bfloat16)

    def divergence(some) -> tuple[float, torch.Tensor]:
        (pack,) = packs_of_step(some, tokens_per_pass=100_000, sizes=bucket, keep=True)
        with tree_attention_on(model), precision.lean(model):
            with precision.autocast():
                kl = part_losses(model, pack, whole=False).divergence
            assert kl is not None
            return kl.item(), gradients(model, kl)

    kl, ours = divergence(rows)
    alone = torch.zeros_like(ours)
    alone_kl = 0.0
    for row in rows:
        if row.keep:
            part, of_row = divergence([row])
            alone_kl, alone = alone_kl + part, alone + of_row
    off, alone_off = (abs(x - expected_kl.item()) for x in (kl, alone_kl))
    assert off < 1.5 * alone_off + 0.02 * expected_kl.item()
    assert relative(ours, expected) < 1.5 * relative(alone, expected) + 1e-3


def test_a_large_vocabulary_is_never_held_whole():
    """4,096 places of 50,000 tokens: logits of one model alone are 0.8 GB in float32."""
    generator = torch.Generator("cuda").manual_seed(0)
    head = torch.nn.Linear(256, 50_000, bias=False, device="cuda").requires_grad_(False)
    untuned = torch.randn(4096, 256, device="cuda", generator=generator)
    hidden = untuned + 0.1 * torch.randn(4096, 256, device="cuda", generator=generator)
    hidden.requires_grad_()
    weight = torch.ones(4096, device="cuda", dtype=torch.long)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = linear_kl(hidden, untuned, head, weight)
    (grad,) = torch.autograd.grad(loss, hidden)
    assert torch.cuda.max_memory_allocated() - before < 512 * 50_000 * 4 * 4.5
    plain = plain_linear_kl(hidden, untuned, head, weight)
    (expected,) = torch.autograd.grad(plain, hidden)
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=0)
    assert relative(grad, expected) < 1e-3
