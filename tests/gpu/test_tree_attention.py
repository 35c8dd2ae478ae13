"""Tree attention on a GPU: `python -m pytest tests/gpu/test_tree_attention.py`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.models import make_model
from tests.trees import random_forest, random_qkv
from whoamai.data.packing import bucket, packs_of_step
from whoamai.kernels import tree_attention as kernels
from whoamai.kernels.tree_attention import Tree, tree_attention, tree_mask_TT
from whoamai.model.tree import can_fork, hidden_states, tree_attention_on
from whoamai.samples import Sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


def in_float32(query, key, value, forest, *, scaling, window=None, softcap=None):
    """The same with all T · T logits in float32, whatever the type of the tensors."""
    mask_TT = tree_mask_TT(*(t.to(query.device) for t in forest), window)
    group = query.shape[1] // key.shape[1]
    key, value = (t.float().repeat_interleave(group, 1) for t in (key, value))
    logits = query.float() @ key.transpose(-1, -2) * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.masked_fill(~mask_TT, float("-inf")).softmax(-1) @ value


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.float() - want.float()).norm() / want.float().norm()).item()


def both_ways(n, *, heads, groups, size, dtype, fork=0.01, dense=False, **how):
    """Relative errors of the output and of the gradients of query, key and value."""
    forest = random_forest(n, seed=n, fork=fork)
    q, k, v = random_qkv(
        n, heads=heads, groups=groups, size=size, seed=1, dtype=dtype, device="cuda"
    )
    upstream = random_qkv(n, heads=heads, groups=heads, size=size, seed=2, device="cuda")[0]
    tensors = [t.requires_grad_() for t in (q, k, v)]
    how = {"scaling": size**-0.5, **how}
    got = tree_attention(*tensors, Tree(*forest, dense=dense), **how)
    got_grads = torch.autograd.grad((got.float() * upstream).sum(), tensors)
    want = in_float32(*tensors, forest, **how)
    want_grads = torch.autograd.grad((want * upstream).sum(), tensors)
    assert got.dtype == dtype
    return [off(a, b) for a, b in zip((got, *got_grads), (want, *want_grads), strict=True)]


@pytest.fixture(autouse=True)
def _full_float32():
    """What is compared with is not rounded to TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [64, 80, 128])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (8, 2), (14, 2)])
def test_flex_attention_is_exact_to_half_precision(dtype, size, heads, groups):
    errors = both_ways(512, heads=heads, groups=groups, size=size, dtype=dtype)
    assert max(errors) < (1.5e-2 if dtype == torch.bfloat16 else 3e-3), errors


@pytest.mark.parametrize("n", [128, 200, 384, 1000, 1152, 4096])
@pytest.mark.parametrize("window", [None, 100])
def test_any_length_with_and_without_a_window(n, window):
    errors = both_ways(n, heads=4, groups=2, size=64, dtype=torch.bfloat16, window=window)
    assert max(errors) < 1.5e-2, errors


@pytest.mark.parametrize("fork", [0.0, 0.3])
def test_one_long_row_and_nearly_only_roots(fork):
    errors = both_ways(700, heads=4, groups=2, size=64, dtype=torch.bfloat16, fork=fork)
    assert max(errors) < 1.5e-2, errors


def test_capped_logits():
    errors = both_ways(512, heads=4, groups=2, size=64, dtype=torch.bfloat16, softcap=1.5)
    assert max(errors) < 1.5e-2, errors


@pytest.mark.parametrize("window", [None, 100])
def test_float32_takes_the_exact_way(window):
    errors = both_ways(512, heads=4, groups=2, size=64, dtype=torch.float32, window=window)
    assert max(errors) < 1e-5, errors


def test_flex_attention_is_what_runs_in_half_precision(monkeypatch):
    used = []
    flex = kernels._flex
    monkeypatch.setattr(kernels, "_flex", lambda *given: used.append(1) or flex(*given))
    both_ways(256, heads=4, groups=2, size=64, dtype=torch.bfloat16)
    assert used
    used.clear()
    both_ways(256, heads=4, groups=2, size=64, dtype=torch.bfloat16, dense=True)
    both_ways(256, heads=4, groups=2, size=64, dtype=torch.float32)
    assert not used


def test_many_packs_of_many_lengths_are_not_compiled_each_anew():
    """Nor left to the slow way, where compiling has been given up."""
    torch._dynamo.reset()
    kernels._compiled.cache_clear()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for n in range(1, 25):
        both_ways(bucket(n * 128), heads=4, groups=2, size=64, dtype=torch.bfloat16)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before <= 6


def test_memory_grows_with_the_tokens_and_not_with_their_square():
    def peak(n: int) -> int:
        forest = random_forest(n, seed=0, fork=0.01)
        tensors = [
            t.requires_grad_()
            for t in random_qkv(
                n, heads=2, groups=2, size=64, seed=1, dtype=torch.bfloat16, device="cuda"
            )
        ]
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        tree_attention(*tensors, Tree(*forest), scaling=0.1).sum().backward()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    peak(4096)  # compiled
    assert peak(16384) < 6 * peak(4096)


# ---- a whole model -------------------------------------------------------------------------------


def rows_that_share(n: int) -> list[Sample]:
    drawn = torch.Generator().manual_seed(0)

    def some(n: int) -> list[int]:
        return torch.randint(3, 250, (n,), generator=drawn).tolist()

    system, questions = some(60), [some(20) for _ in range(3)]
    rows = [[*system, *questions[i % 3], *some(40)] for i in range(n)]
    return [Sample(tuple(ids), tuple(i >= 80 for i in range(len(ids)))) for ids in rows]


def loss_and_gradients(model, parts, hidden_of) -> tuple[float, torch.Tensor]:
    """`parts` are (what hidden_of takes, places, tokens, weights)."""
    total = 0.0
    for part, place_N, token_N, weight_N in parts:
        logits_NV = model.lm_head(hidden_of(part)[place_N.cuda()]).float()
        loss_N = F.cross_entropy(logits_NV, token_N.cuda(), reduction="none")
        loss = (loss_N * weight_N.cuda()).sum()
        loss.backward()
        total += loss.item()
    gradients = [p.grad.float().flatten() for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return total, torch.cat(gradients)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize(
    ("family", "changes"), [("Qwen3", {}), ("Mistral", {"sliding_window": 32})]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_step_is_its_rows_one_by_one(family, changes, dtype, checkpointing):
    """In bfloat16 both are compared with float32: packing must not be worse than the rows alone."""
    sizes = {"hidden_size": 256, "head_dim": 64, "num_attention_heads": 4, **changes}
    exact, model = (make_model(family, **sizes).cuda().train() for _ in range(2))
    exact.load_state_dict(model.state_dict())
    model.to(dtype)
    if checkpointing:
        model.gradient_checkpointing_enable()
    rows = rows_that_share(12)
    alone = [
        (row.input_ids, places := torch.arange(79, 119), torch.tensor(row.input_ids)[places + 1],
         torch.ones(40))
        for row in rows
    ]  # fmt: skip

    def row_by(which):
        return lambda ids: which.get_decoder()(
            input_ids=torch.tensor([ids], device="cuda"), use_cache=False
        ).last_hidden_state[0]

    packs = packs_of_step(rows, tokens_per_pass=400, sizes=bucket)
    packed = [(pack, pack.place_N, pack.token_N, pack.weight_N) for pack in packs]
    true_loss, true_gradients = loss_and_gradients(exact, alone, row_by(exact))
    _, row_gradients = loss_and_gradients(model, alone, row_by(model))
    with tree_attention_on(model):
        loss, gradients = loss_and_gradients(model, packed, lambda p: hidden_states(model, p))
    if dtype == torch.float32:
        assert abs(loss - true_loss) / true_loss < 1e-5
        assert off(gradients, true_gradients) < 1e-4
    else:
        assert abs(loss - true_loss) / true_loss < 2e-3
        assert off(gradients, true_gradients) < 1.5 * off(row_gradients, true_gradients) + 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_trial_at_load_passes(dtype):
    model = make_model("Qwen3", hidden_size=256, head_dim=64, dtype=dtype).cuda()
    assert can_fork(model) is None


def test_the_trial_finds_a_recurrent_model_out():
    assert can_fork(make_model("RecurrentGemma", head_dim=8).cuda())


def test_under_autocast_of_a_float32_model():
    model = make_model("Qwen3", hidden_size=256, head_dim=64).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        assert can_fork(model) is None
