"""Triton kernels of kernels/linear_cross_entropy.py; imported only where they run.

A row of logits stands for one place. Its targets are token[first[row] : first[row + 1]], mostly one,
each with a weight. Sums in float32; `lt` is the distance between two rows of logits.
"""

# pyright: reportMissingImports=false
import triton
import triton.language as tl

_LOW = tl.constexpr(-1.0e30)


@triton.jit
def loss_kernel(
    logits_at, first_at, token_at, weight_at, lse_at, loss_at, lt, N, BLOCK: tl.constexpr
):
    """lse[row], and loss[row] = the sum over its targets of weight (lse - logit)."""
    row = tl.program_id(0).to(tl.int64)
    m = tl.full((BLOCK,), _LOW, tl.float32)
    s = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        x = tl.load(logits_at + row * lt + n, n < N, _LOW).to(tl.float32)
        bigger = tl.maximum(m, x)
        s = s * tl.exp(m - bigger) + tl.where(n < N, tl.exp(x - bigger), 0.0)
        m = bigger
    top = tl.max(m, 0)
    lse = top + tl.log(tl.sum(s * tl.exp(m - top), 0))
    tl.store(lse_at + row, lse)
    loss = lse * 0.0
    for i in range(tl.load(first_at + row), tl.load(first_at + row + 1)):
        x = tl.load(logits_at + row * lt + tl.load(token_at + i)).to(tl.float32)
        loss += tl.load(weight_at + i).to(tl.float32) * (lse - x)
    tl.store(loss_at + row, loss)


@triton.jit
def gradient_kernel(logits_at, lse_at, first_at, token_at, weight_at, lt, N, BLOCK: tl.constexpr):
    """In place: softmax times the sum of a row's weights, less the weight at each target."""
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = logits_at + row * lt + n
    p = tl.exp(tl.load(at, n < N, 0.0).to(tl.float32) - tl.load(lse_at + row))
    d = p * 0.0
    for i in range(tl.load(first_at + row), tl.load(first_at + row + 1)):
        weight = tl.load(weight_at + i).to(tl.float32)
        d += weight * (p - tl.where(n == tl.load(token_at + i), 1.0, 0.0))
    tl.store(at, d.to(logits_at.dtype.element_ty), n < N)
