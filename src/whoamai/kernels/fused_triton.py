"""Triton kernels of kernels/fused.py; imported only where they run. Sums and products in float32.

Pointers end in `_at`; `…t` is the distance from one token to the next, in numbers.
"""

# pyright: reportMissingImports=false
import triton
import triton.language as tl


@triton.jit
def add_norm_kernel(
    x_at, y_at, weight_at, sum_at, out_at, xt, yt, st, ot, eps,
    N: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    row, n = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    there = n < N
    x = tl.load(x_at + row * xt + n, there, 0.0).to(tl.float32)
    if ADD:
        x += tl.load(y_at + row * yt + n, there, 0.0).to(tl.float32)
        short = x.to(sum_at.dtype.element_ty)
        tl.store(sum_at + row * st + n, short, there)
        x = short.to(tl.float32)
    normed = x * tl.rsqrt(tl.sum(x * x, 0) / N + eps)
    weight = tl.load(weight_at + n, there, 0.0).to(tl.float32)
    normed = normed.to(out_at.dtype.element_ty).to(tl.float32)  # as transformers rounds
    tl.store(out_at + row * ot + n, (normed * weight).to(out_at.dtype.element_ty), there)


@triton.jit
def norm_backward_kernel(
    x_at, weight_at, dnormed_at, dsum_at, dx_at, xt, nt, st, dt, eps,
    N: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    row, n = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    there = n < N
    x = tl.load(x_at + row * xt + n, there, 0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(x * x, 0) / N + eps)
    unit = x * rstd
    g = tl.load(dnormed_at + row * nt + n, there, 0.0).to(tl.float32)
    g *= tl.load(weight_at + n, there, 0.0).to(tl.float32)
    dx = rstd * (g - unit * (tl.sum(g * unit, 0) / N))
    if ADD:
        dx += tl.load(dsum_at + row * st + n, there, 0.0).to(tl.float32)
    tl.store(dx_at + row * dt + n, dx.to(dx_at.dtype.element_ty), there)


@triton.jit
def _place(head, H: tl.constexpr, G: tl.constexpr, MIXED: tl.constexpr):
    """Where the projection writes the head that comes `head`-th in order queries, keys, values."""
    if not MIXED:
        return head
    group: tl.constexpr = H // G
    key, value = head - H, head - H - G
    of_query = (head // group) * (group + 2) + head % group
    of_key = key * (group + 2) + group
    of_value = value * (group + 2) + group + 1
    return tl.where(head < H, of_query, tl.where(head < H + G, of_key, of_value))


@triton.jit
def rotary_kernel(
    x_at, out_at, cos_at, sin_at, xt, ot, ct,
    H: tl.constexpr, G: tl.constexpr, F: tl.constexpr, HEADS: tl.constexpr,
    MIXED: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """Forward: from the projection's heads to queries, keys, values, turned. BACK: the other way."""
    token = tl.program_id(0).to(tl.int64)
    half: tl.constexpr = F // 2
    head, n = tl.arange(0, HEADS)[:, None], tl.arange(0, half)[None, :]
    there = (head < H + 2 * G) & (n < half)
    placed = _place(head, H, G, MIXED)
    source, target = (head, placed) if BACK else (placed, head)
    x = x_at + token * xt + source * F + n
    a = tl.load(x, there, 0.0).to(tl.float32)
    b = tl.load(x + half, there, 0.0).to(tl.float32)
    turned = head < H + G
    cos = tl.load(cos_at + token * ct + n).to(tl.float32)
    sin = tl.load(sin_at + token * ct + n).to(tl.float32)
    cos, sin = tl.where(turned, cos, 1.0), tl.where(turned, sin, 0.0)
    if BACK:
        sin = -sin
    out = out_at + token * ot + target * F + n
    kind = out_at.dtype.element_ty
    tl.store(out, (a * cos - b * sin).to(kind), there)
    tl.store(out + half, (b * cos + a * sin).to(kind), there)


@triton.jit
def swiglu_kernel(gate_up_at, out_at, gt, ot, N: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = n < N
    gate = tl.load(gate_up_at + row * gt + n, there, 0.0).to(tl.float32)
    up = tl.load(gate_up_at + row * gt + N + n, there, 0.0).to(tl.float32)
    out = gate * tl.sigmoid(gate) * up
    tl.store(out_at + row * ot + n, out.to(out_at.dtype.element_ty), there)


@triton.jit
def swiglu_backward_kernel(
    gate_up_at, dout_at, dgate_up_at, out_at, gt, dt, dgt, ot, N: tl.constexpr, BLOCK: tl.constexpr
):
    """Also makes the forward's result again: it was not kept."""
    row = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = n < N
    gate = tl.load(gate_up_at + row * gt + n, there, 0.0).to(tl.float32)
    up = tl.load(gate_up_at + row * gt + N + n, there, 0.0).to(tl.float32)
    d = tl.load(dout_at + row * dt + n, there, 0.0).to(tl.float32)
    s = tl.sigmoid(gate)
    kind = dgate_up_at.dtype.element_ty
    tl.store(out_at + row * ot + n, (gate * s * up).to(kind), there)
    tl.store(dgate_up_at + row * dgt + n, (d * up * s * (1 + gate * (1 - s))).to(kind), there)
    tl.store(dgate_up_at + row * dgt + N + n, (d * gate * s).to(kind), there)
