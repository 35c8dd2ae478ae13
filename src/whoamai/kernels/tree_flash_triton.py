"""Triton kernels of kernels/tree_flash.py; imported only where they run.

All query heads of one key-value head go through a program together: its M rows are BQ tokens times GP
heads (GP: the heads of a group, up to a power of two). So a block of queries is short in tokens, which
wastes little at the edges of branches, and still tall enough for the matrix units; keys and values are
loaded once for the whole group.

Softmax in base 2: logits are multiplied by scale · log2(e), `lse` is kept in base 2, (T, H) float32.

Legend: T tokens, H query heads, G key-value heads, D numbers a head, BQ and BK tokens of a block of
queries and of keys, M = BQ · GP rows. Strides `…t` are those of a token; a head's stride is D.
"""

# pyright: reportMissingImports=false
import triton
import triton.language as tl

# Below every logit, and finite: a row whose keys are all masked in its first block must give no NaN.
_MASKED = tl.constexpr(-1.0e30)


@triton.jit
def _rows(block, g, GROUP: tl.constexpr, GP: tl.constexpr, BQ: tl.constexpr):
    """(token, query head, is there such a head) of each of the M rows of a block of queries."""
    r = tl.arange(0, BQ * GP)
    return block * BQ + r // GP, g * GROUP + r % GP, r % GP < GROUP


@triton.jit
def _load_rows(base, token, head, there, stride, D: tl.constexpr):
    d = tl.arange(0, D)
    at = base + token.to(tl.int64)[:, None] * stride + head[:, None] * D + d[None, :]
    return tl.load(at, mask=there[:, None], other=0.0)


@triton.jit
def _store_rows(base, values, token, head, there, stride, D: tl.constexpr):
    d = tl.arange(0, D)
    at = base + token.to(tl.int64)[:, None] * stride + head[:, None] * D + d[None, :]
    tl.store(at, values, mask=there[:, None])


@triton.jit
def _load_block(base, block, g, stride, BK: tl.constexpr, D: tl.constexpr):
    """Keys or values of one block: BK × D."""
    n, d = block * BK + tl.arange(0, BK), tl.arange(0, D)
    return tl.load(base + n.to(tl.int64)[:, None] * stride + g * D + d[None, :])


@triton.jit
def _attend(
    acc, m, total, q, token, k_at, v_at, ends, columns, start, stop, scale2, kt, vt, g,
    PART: tl.constexpr, BK: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Go on with the softmax over the blocks of keys columns[start:stop]; PART: ask the rule."""
    for i in range(start, stop):
        block = tl.load(columns + i)
        k = _load_block(k_at, block, g, kt, BK, D)
        s = tl.dot(q, tl.trans(k)) * scale2
        if PART:
            n = block * BK + tl.arange(0, BK)
            end = tl.load(ends + n)
            seen = (n[None, :] <= token[:, None]) & (token[:, None] < end[None, :])
            s = tl.where(seen, s, _MASKED)
        m_new = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - m_new[:, None])
        keep = tl.exp2(m - m_new)
        total = total * keep + tl.sum(p, 1)
        v = _load_block(v_at, block, g, vt, BK, D)
        acc = tl.dot(p.to(v.dtype), v, acc * keep[:, None])
        m = m_new
    return acc, m, total


@triton.jit
def forward_kernel(
    q_at, k_at, v_at, o_at, lse_at, ends, rows, fulls, columns, scale2, qt, kt, vt, ot,
    H: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Block i of queries sees columns[rows[i]:fulls[i]] whole, columns[fulls[i]:rows[i+1]] in part."""
    block, g = tl.program_id(0), tl.program_id(1)
    token, head, there = _rows(block, g, GROUP, GP, BQ)
    q = _load_rows(q_at, token, head, there, qt, D)
    acc = tl.zeros((BQ * GP, D), tl.float32)
    m = tl.full((BQ * GP,), _MASKED, tl.float32)
    total = tl.zeros((BQ * GP,), tl.float32)
    start, full, stop = tl.load(rows + block), tl.load(fulls + block), tl.load(rows + block + 1)
    acc, m, total = _attend(
        acc, m, total, q, token, k_at, v_at, ends, columns, start, full, scale2, kt, vt, g,
        False, BK, D,
    )  # fmt: skip
    acc, m, total = _attend(
        acc, m, total, q, token, k_at, v_at, ends, columns, full, stop, scale2, kt, vt, g,
        True, BK, D,
    )  # fmt: skip
    o = acc / total[:, None]
    _store_rows(o_at, o.to(o_at.dtype.element_ty), token, head, there, ot, D)
    tl.store(lse_at + token.to(tl.int64) * H + head, m + tl.log2(total), mask=there)


@triton.jit
def _add_dq(
    dq, q, do, lse, delta, token, k_at, v_at, ends, columns, start, stop, scale2, kt, vt, g,
    PART: tl.constexpr, BK: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    for i in range(start, stop):
        block = tl.load(columns + i)
        k = _load_block(k_at, block, g, kt, BK, D)
        v = _load_block(v_at, block, g, vt, BK, D)
        p = tl.exp2(tl.dot(q, tl.trans(k)) * scale2 - lse[:, None])
        if PART:
            n = block * BK + tl.arange(0, BK)
            end = tl.load(ends + n)
            seen = (n[None, :] <= token[:, None]) & (token[:, None] < end[None, :])
            p = tl.where(seen, p, 0.0)
        ds = p * (tl.dot(do, tl.trans(v)) - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq)
    return dq


@triton.jit
def query_gradient_kernel(
    q_at, k_at, v_at, o_at, do_at, lse_at, dq_at, delta_at, ends, rows, fulls, columns,
    scale, scale2, qt, kt, vt, ot, dot_, dqt,
    H: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The gradient of the queries, and delta = Σ_d do · o for the other kernel, (T, H) float32."""
    block, g = tl.program_id(0), tl.program_id(1)
    token, head, there = _rows(block, g, GROUP, GP, BQ)
    q = _load_rows(q_at, token, head, there, qt, D)
    do = _load_rows(do_at, token, head, there, dot_, D)
    o = _load_rows(o_at, token, head, there, ot, D)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    at = token.to(tl.int64) * H + head
    tl.store(delta_at + at, delta, mask=there)
    lse = tl.load(lse_at + at, mask=there, other=0.0)
    dq = tl.zeros((BQ * GP, D), tl.float32)
    start, full, stop = tl.load(rows + block), tl.load(fulls + block), tl.load(rows + block + 1)
    dq = _add_dq(
        dq, q, do, lse, delta, token, k_at, v_at, ends, columns, start, full, scale2, kt, vt, g,
        False, BK, D,
    )  # fmt: skip
    dq = _add_dq(
        dq, q, do, lse, delta, token, k_at, v_at, ends, columns, full, stop, scale2, kt, vt, g,
        True, BK, D,
    )  # fmt: skip
    _store_rows(dq_at, (dq * scale).to(dq_at.dtype.element_ty), token, head, there, dqt, D)


@triton.jit
def _add_dkdv(
    dk, dv, k, v, key, end, q_at, do_at, lse_at, delta_at, columns, start, stop, scale2, qt, dot_, g,
    PART: tl.constexpr, H: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr,
    D: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    for i in range(start, stop):
        block = tl.load(columns + i)
        token, head, there = _rows(block, g, GROUP, GP, BQ)
        q = _load_rows(q_at, token, head, there, qt, D)
        do = _load_rows(do_at, token, head, there, dot_, D)
        at = token.to(tl.int64) * H + head
        lse = tl.load(lse_at + at, mask=there, other=0.0)
        delta = tl.load(delta_at + at, mask=there, other=0.0)
        p = tl.exp2(tl.dot(k, tl.trans(q)) * scale2 - lse[None, :])  # BK × M
        if PART:
            seen = (key[:, None] <= token[None, :]) & (token[None, :] < end[:, None])
            p = tl.where(seen, p, 0.0)
        if GROUP != GP:  # rows of heads that are not there have p = 1, but do = 0 and q = 0
            p = tl.where(there[None, :], p, 0.0)
        dv = tl.dot(p.to(do.dtype), do, dv)
        ds = p * (tl.dot(v, tl.trans(do)) - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def key_gradient_kernel(
    q_at, k_at, v_at, do_at, lse_at, delta_at, dk_at, dv_at, parts_at, ends, items, columns,
    scale, scale2, qt, kt, vt, dot_, dkt, dvt,
    H: tl.constexpr, G: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr, D: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The gradients of one block of keys and values from some of the blocks of queries that see it.

    items[5 i:] are: the block; columns[start:full] see all of it, columns[full:stop] in part; the
    slot of `parts` (slots, 2, G, BK, D, float32) for a block whose queries are cut into several items,
    else -1.
    """
    item, g = tl.program_id(0), tl.program_id(1)
    block, start = tl.load(items + 5 * item), tl.load(items + 5 * item + 1)
    full, stop = tl.load(items + 5 * item + 2), tl.load(items + 5 * item + 3)
    slot = tl.load(items + 5 * item + 4)
    k = _load_block(k_at, block, g, kt, BK, D)
    v = _load_block(v_at, block, g, vt, BK, D)
    key = block * BK + tl.arange(0, BK)
    end = tl.load(ends + key)
    dk = tl.zeros((BK, D), tl.float32)
    dv = tl.zeros((BK, D), tl.float32)
    dk, dv = _add_dkdv(
        dk, dv, k, v, key, end, q_at, do_at, lse_at, delta_at, columns, start, full, scale2, qt, dot_, g,
        False, H, GROUP, GP, D, BQ,
    )  # fmt: skip
    dk, dv = _add_dkdv(
        dk, dv, k, v, key, end, q_at, do_at, lse_at, delta_at, columns, full, stop, scale2, qt, dot_, g,
        True, H, GROUP, GP, D, BQ,
    )  # fmt: skip
    d = tl.arange(0, D)
    dk = dk * scale
    if slot < 0:
        row = key.to(tl.int64)[:, None]
        tl.store(dk_at + row * dkt + g * D + d[None, :], dk.to(dk_at.dtype.element_ty))
        tl.store(dv_at + row * dvt + g * D + d[None, :], dv.to(dv_at.dtype.element_ty))
    else:
        n = tl.arange(0, BK)[:, None] * D + d[None, :]
        part = parts_at + (slot * 2 * G + g) * BK * D + n
        tl.store(part, dk)
        tl.store(part + G * BK * D, dv)


@triton.jit
def add_parts_kernel(
    parts_at, dk_at, dv_at, splits, dkt, dvt,
    G: tl.constexpr, D: tl.constexpr, BK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Add up the parts of a block that was cut, always in the same order. splits[3 i:]: block, slots."""
    split, g, piece = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    block = tl.load(splits + 3 * split)
    first, last = tl.load(splits + 3 * split + 1), tl.load(splits + 3 * split + 2)
    row, d = piece * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    n = row[:, None] * D + d[None, :]
    dk = tl.zeros((ROWS, D), tl.float32)
    dv = tl.zeros((ROWS, D), tl.float32)
    for slot in range(first, last):
        at = parts_at + (slot * 2 * G + g) * BK * D + n
        dk += tl.load(at)
        dv += tl.load(at + G * BK * D)
    key = (block * BK + row).to(tl.int64)[:, None]
    tl.store(dk_at + key * dkt + g * D + d[None, :], dk.to(dk_at.dtype.element_ty))
    tl.store(dv_at + key * dvt + g * D + d[None, :], dv.to(dv_at.dtype.element_ty))
