from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from tests.models import make_internlm2, make_model
from whoamai.data.packing import packs_of_step
from whoamai.data.prefix_tree import statistics
from whoamai.errors import ModelError
from whoamai.kernels.tree_attention import tree_attention
from whoamai.model import tree as forking
from whoamai.model import tree_interface
from whoamai.model.tree import can_fork, forward_arguments, hidden_states, tree_attention_on
from whoamai.model.tree_interface import NAME, NAME_COMPLETE
from whoamai.samples import Pack, Sample

_WINDOW = 5  # tokens; most rows are longer


def gemma3(**changes):
    config = transformers.Gemma3TextConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=_WINDOW,
        layer_types=["sliding_attention", "full_attention"], pad_token_id=0, **changes,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.Gemma3ForCausalLM(config)


def family(name: str, **changes) -> Callable[[], Any]:
    return lambda: make_model(name, **changes)


_MIXED = {"sliding_window": _WINDOW, "head_dim": 8, "final_logit_softcapping": None}
# What must come out exactly: one line adds a class.
MODELS: dict[str, Callable[[], Any]] = {
    "Llama": family("Llama"),
    "Llama, tied": family("Llama", tie_word_embeddings=True),
    "Llama, eager": family("Llama", attn_implementation="eager"),
    "Qwen2": family("Qwen2"),
    "Qwen3": family("Qwen3"),
    "Mistral, window": family("Mistral", sliding_window=_WINDOW),
    "Gemma2, mixed": family("Gemma2", **_MIXED),
    "Gemma2, mixed, capped": family(
        "Gemma2", attn_implementation="eager", attn_logit_softcapping=0.02, **_MIXED
    ),
    "Gemma3, mixed": gemma3,
    "Mixtral": family("Mixtral", num_local_experts=4),
    "Qwen3Moe": family("Qwen3Moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "InternLM2": make_internlm2,
    "Phi3": family("Phi3"),
    "Glm": family("Glm", head_dim=8),
    "GptOss, window, sinks": family(
        "GptOss", sliding_window=_WINDOW, head_dim=8, num_local_experts=4
    ),
}


def with_lora(model: Any) -> Any:
    """A LoRA of rank 4 whose B is not zero, so that both A and B have gradients."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    drawn = torch.Generator().manual_seed(1)
    peft_model = get_peft_model(model, config)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=drawn) * 0.1
    return peft_model


# ---- rows ----------------------------------------------------------------------------------------


def rows_that_fork(seed: int) -> list[Sample]:
    """Six trees whose rows fork 0 to 5 times below one another, mostly inside what is trained on.

    Some rows come twice, some are beginnings of others, some differ in their targets only.
    """
    rng = random.Random(seed)
    rows: list[Sample] = []
    for depth in range(6):
        prompt = [10 + depth, *(rng.randrange(20, 40) for _ in range(3))]
        segments: dict[tuple[int, ...], list[int]] = {}
        for _ in range(depth + 1):
            branch, ids = (), list(prompt)
            for _ in range(depth + 1):
                branch = (*branch, rng.randrange(2))
                if branch not in segments:
                    segments[branch] = [rng.randrange(40, 60) for _ in range(rng.randint(1, 4))]
                ids += segments[branch]
            trained = [i >= len(prompt) and rng.random() < 0.9 for i in range(len(ids))]
            rows.append(Sample(tuple(ids), (*trained[:-1], True)))
    rows += [rows[3], rows[-1], rows[-1]]
    for row in (rows[5], rows[9]):
        cut = len(row.input_ids) - 2
        rows.append(Sample(row.input_ids[:cut], (*row.is_target[: cut - 1], True)))
    rng.shuffle(rows)
    return rows


# ---- a step both ways ----------------------------------------------------------------------------


def flat_gradients(model: Any) -> torch.Tensor:
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    model.zero_grad(set_to_none=True)
    return torch.cat([g.flatten() for g in gradients])


def step_in_rows(model: Any, rows: Sequence[Sample]) -> tuple[float, torch.Tensor]:
    """(loss, gradients) with every row through the model alone, whole, by its own forward."""
    n_targets = sum(sum(row.is_target[1:]) for row in rows)
    total = 0.0
    for row in rows:
        logits_TV = model(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits[0]
        labels = torch.tensor(row.input_ids).masked_fill(~torch.tensor(row.is_target), -100)
        loss = F.cross_entropy(logits_TV[:-1], labels[1:], reduction="sum") / n_targets
        loss.backward()
        total += loss.item()
    return total, flat_gradients(model)


def step_in_packs(model: Any, packs: Sequence[Pack]) -> tuple[float, torch.Tensor]:
    n_targets = sum(pack.n_targets for pack in packs)
    total = 0.0
    with tree_attention_on(model):
        for pack in packs:
            hidden_ND = hidden_states(model, pack)[pack.place_N]
            logits_NV = model.get_base_model().get_output_embeddings()(hidden_ND)
            loss_N = F.cross_entropy(logits_NV, pack.token_N, reduction="none")
            loss = (pack.weight_N * loss_N).sum() / n_targets
            loss.backward()
            total += loss.item()
    return total, flat_gradients(model)


def difference(model: Any, rows: Sequence[Sample], packs: Sequence[Pack]) -> float:
    """The greater of the relative errors of loss and gradients."""
    loss, gradients = step_in_packs(model, packs)
    loss_alone, gradients_alone = step_in_rows(model, rows)
    assert gradients_alone.norm() > 0
    off = (gradients - gradients_alone).norm() / gradients_alone.norm()
    return max(abs(loss - loss_alone) / loss_alone, off.item())


# ---- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_lora_gradients_are_those_of_the_rows_one_by_one(name, checkpointing):
    model = with_lora(MODELS[name]()).train()
    if checkpointing:
        model.get_base_model().gradient_checkpointing_enable()
        model.enable_input_require_grads()
    rows = rows_that_fork(seed=0)
    packs = packs_of_step(rows, tokens_per_pass=90, sizes=lambda n: -(-n // 8) * 8)
    assert len(packs) > 1
    assert difference(model, rows, packs) < 1e-5


token = st.tuples(st.integers(3, 5), st.booleans())
some_rows = st.lists(st.lists(token, min_size=2, max_size=8), min_size=1, max_size=6).map(
    lambda rows: [
        Sample(tuple(i for i, _ in row), (*(t for _, t in row[:-1]), True)) for row in rows
    ]
)


@pytest.fixture(scope="module")
def a_model():
    """With a window, so that depth matters; float32."""
    return with_lora(MODELS["Mistral, window"]()).train()


@settings(max_examples=25)
@given(some_rows, st.integers(1, 40), st.booleans())
def test_any_rows_in_any_packs_shared_or_not_give_the_same(a_model, rows, size, share):
    packs = packs_of_step(rows, tokens_per_pass=size, share=share)
    assert difference(a_model, rows, packs) < 1e-5


def test_as_many_tokens_are_computed_as_the_tree_has_nodes():
    model, rows = with_lora(make_model("Qwen3")), rows_that_fork(seed=1)
    computed = 0

    def count(module, given, made):
        nonlocal computed
        computed += made.shape[:-1].numel()

    model.get_base_model().model.layers[-1].mlp.register_forward_hook(count)
    step_in_packs(model, packs_of_step(rows, tokens_per_pass=10_000))
    fed = [row.input_ids[:-1] for row in rows]  # each row's last token is a target
    assert computed == statistics(fed).nodes < sum(map(len, fed))


def test_padding_changes_nothing_and_is_seen_by_nothing():
    model, rows = with_lora(make_model("Qwen3")), rows_that_fork(seed=1)
    plain, padded = (
        packs_of_step(rows, tokens_per_pass=10_000, sizes=sizes)
        for sizes in (None, lambda n: n + 17)
    )
    a, b = step_in_packs(model, plain), step_in_packs(model, padded)
    assert a[0] == pytest.approx(b[0], rel=1e-6)
    assert (a[1] - b[1]).norm() < 1e-6 * a[1].norm()


def test_a_mistake_in_the_tree_would_be_seen():
    model, rows = with_lora(make_model("Llama")), rows_that_fork(seed=0)
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000)
    pack.subtree_end_T[4] = len(pack.subtree_end_T)
    assert difference(model, rows, [pack]) > 1e-3


# ---- on one model, and off again -----------------------------------------------------------------


def test_only_this_model_attends_by_trees_and_only_inside_the_block():
    model, other = make_model("Llama"), make_model("Llama", attn_implementation="eager")
    with tree_attention_on(model):
        assert model.config._attn_implementation == NAME
        assert other.config._attn_implementation == "eager"
        with tree_attention_on(other), tree_attention_on(model):
            assert other.config._attn_implementation == NAME_COMPLETE
            assert model.config._attn_implementation == NAME
        assert model.config._attn_implementation == NAME
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(KeyError), tree_attention_on(model):
        raise KeyError
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["Mistral, window", "Gemma2, mixed, capped"])
def test_without_a_tree_the_model_answers_as_it_does_otherwise(name):
    model = MODELS[name]().eval()
    ids = torch.tensor([[0, 0, 5, 6, 7, 8, 9, 10, 11, 12], [*range(20, 30)]])
    given = {"input_ids": ids, "attention_mask": (ids > 0).long(), "use_cache": False}
    with torch.no_grad():
        plain = model(**given).logits
        with tree_attention_on(model):
            inside = model(**given).logits
            generated = model.generate(ids[1:], max_new_tokens=6, do_sample=False)
        assert torch.equal(generated, model.generate(ids[1:], max_new_tokens=6, do_sample=False))
    seen = given["attention_mask"].bool()
    assert (inside - plain)[seen].abs().max() < 1e-6


def test_a_model_whose_attention_cannot_be_replaced_is_refused():
    with (
        pytest.raises(ModelError, match="replaced"),
        tree_attention_on(make_model("Bloom", n_head=4)),
    ):
        pass  # fmt: skip


def test_the_keywords_of_the_forward_are_the_same_for_model_and_decoder():
    model = make_model("Qwen3").eval()
    (pack,) = packs_of_step(rows_that_fork(seed=0), tokens_per_pass=10_000)
    with torch.no_grad(), tree_attention_on(model):
        logits_TV = model(**forward_arguments(model, pack)).logits[0]
        hidden_TD = hidden_states(model, pack)
    assert torch.allclose(logits_TV, model.lm_head(hidden_TD))


# ---- the trial at load ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_models_that_fork_exactly_are_found_to(name):
    assert can_fork(MODELS[name]()) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["Llama", "Mistral, window", "Mixtral"])
def test_rounding_to_half_precision_is_no_mistake(name, dtype):
    assert can_fork(MODELS[name]().to(dtype)) is None


def test_a_peft_model_is_tried_as_well_and_left_as_it_was():
    model = with_lora(make_model("Qwen3")).train()
    model.get_base_model().model.norm.eval()
    assert can_fork(model) is None
    assert model.training
    assert not model.get_base_model().model.norm.training
    assert model.get_base_model().config._attn_implementation == "sdpa"


_FALCON_H1 = {
    "head_dim": 8, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8,
    "mamba_chunk_size": 8,
}  # fmt: skip
_MAMBA2 = {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "chunk_size": 8}
NOT_FORKING = {
    "Bloom": ({"n_head": 4}, "replaced"),  # ALiBi
    "Mpt": ({"d_model": 32, "n_heads": 4, "n_layers": 2}, "replaced"),  # ALiBi
    "Falcon": ({"alibi": True}, "replaced"),
    "Rwkv": ({}, "replaced"),  # recurrent
    "Mamba": ({}, "fails on a sequence that forks"),
    "Mamba2": (
        {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "chunk_size": 8},
        "see one another",
    ),
    "FalconH1": (_FALCON_H1, "see one another"),  # attention and Mamba side by side
    "RecurrentGemma": ({"head_dim": 8}, "see one another"),
    "Jamba": ({}, "see one another"),
    "MiniMax": ({}, "see one another"),  # linear attention
    "Lfm2": ({"layer_types": ["conv", "full_attention"]}, "see one another"),  # short convolutions
    "Doge": ({}, "mask of its own"),
    "StableLm": ({}, "hand on"),  # keeps its keywords to itself
}


@pytest.mark.parametrize("name", NOT_FORKING)
def test_models_that_cannot_fork_are_found_out(name):
    changes, why = NOT_FORKING[name]
    assert why in (can_fork(make_model(name, **changes)) or "nothing was found")


class _Distance(forking.Tree):
    """Counts windows by what lies between two tokens in the pack."""

    def _felt(self, window):
        return window

    def mask_TT(self, window, device):
        index_T = torch.arange(len(self))
        mask_TT = super().mask_TT(None, device)
        return mask_TT if window is None else mask_TT & (index_T[:, None] - index_T < window)


def test_a_window_counted_in_the_pack_and_not_in_the_row_is_found_out(monkeypatch):
    monkeypatch.setattr(forking, "Tree", _Distance)
    assert "differ" in (can_fork(make_model("Mistral", sliding_window=30)) or "")


def test_a_window_that_is_not_handed_down_is_found_out(monkeypatch):
    monkeypatch.setattr(tree_interface, "tree_attention", _without_window)
    assert "differ" in (can_fork(make_model("Mistral", sliding_window=100)) or "")
    assert can_fork(make_model("Mistral", sliding_window=100), longest=100) is None  # not felt


def _without_window(*given, window, **more):
    return tree_attention(*given, **more)


def test_the_trial_goes_deeper_than_every_window_that_rows_can_feel():
    model = make_model("Mistral", sliding_window=100)
    assert forking._trunk(model, 2048) > 200
    assert forking._trunk(model, 100) < 30
    assert forking._trunk(make_model("Mistral", sliding_window=400), 2048) < 512  # positions end


def test_a_model_without_memory_left_says_so_and_is_not_called_unable(monkeypatch):
    model = make_model("Llama")

    def full(*_, **__):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(model.model, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        can_fork(model)
