from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tests.conftest import SHARED
from tests.model.internlm2_forms import (
    DYNAMIC,
    FORMS,
    LIMIT,
    close,
    ids_of,
    logits,
    model_of,
    reference,
)
from tests.models import make_internlm2
from whoamai.model.internlm2 import register_internlm2
from whoamai.model.tree import can_fork

FIXTURE = SHARED / "fixtures" / "internlm2"


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_internlm2()


# ---- upstream's numbers --------------------------------------------------------------------------


def test_upstreams_logits_hidden_states_and_loss():
    file = FIXTURE / "reference.npz"
    if not file.is_file():
        pytest.skip(f"upstream's answers are not at {file}")
    cases = np.load(file)
    names = sorted({key.split("/")[0] for key in cases.files})
    assert names
    folder = FIXTURE / "tiny_safetensors"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for name in names:
        given = {
            key: torch.from_numpy(cases[f"{name}/{key}"])
            for key in ("input_ids", "attention_mask", "labels")
            if f"{name}/{key}" in cases
        }
        with torch.no_grad():
            found = model(**given, output_hidden_states=True)
        real = given.get("attention_mask", torch.ones_like(given["input_ids"])).bool().numpy()
        close(found.logits.numpy()[real], cases[f"{name}/logits"][real])
        if "labels" in given:
            assert found.loss.item() == pytest.approx(float(cases[f"{name}/loss"]), abs=1e-5)
        if f"{name}/hidden_states" in cases:
            close(torch.stack(found.hidden_states).numpy(), cases[f"{name}/hidden_states"])


# ---- the plain computation -----------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("form", FORMS)
def test_logits_are_those_of_the_plain_computation(form: str, attention: str):
    model = model_of(attn_implementation=attention, **FORMS[form])
    (ids,) = ids_of(40)
    expected = reference(model, ids)
    assert np.abs(expected).max() > 1  # not all of it vanishes
    close(logits(model, ids)[0], expected, atol=2e-4)


def test_far_positions_are_exact_too():
    model = model_of(rope_scaling=DYNAMIC, max_position_embeddings=LIMIT)
    (ids,) = ids_of(6)
    far = torch.arange(5000, 5006)
    found = logits(model, ids, position_ids=far[None])[0]
    close(found, reference(model, ids, positions=far.tolist()), atol=5e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("form", ["grouped heads", "linear", "dynamic beyond its limit"])
def test_padding_changes_nothing(form: str, side: str):
    model = model_of(**FORMS[form])
    rows = ids_of(30, 17)
    ids = torch.full((2, 30), 2)
    mask = torch.zeros(2, 30, dtype=torch.long)
    for number, row in enumerate(rows):
        there = slice(30 - len(row), None) if side == "left" else slice(len(row))
        ids[number, there], mask[number, there] = row, 1
    found = logits(model, ids, attention_mask=mask)
    for number, row in enumerate(rows):
        expected = reference(model, row, length=30)
        close(found[number][mask[number].bool().numpy()], expected, atol=2e-4)


def test_dynamic_scaling_begins_behind_the_limit_and_is_not_remembered():
    model = model_of(rope_scaling=DYNAMIC, max_position_embeddings=LIMIT)
    for length in (LIMIT, LIMIT + 1, 40, LIMIT + 2, LIMIT, 5):
        (ids,) = ids_of(length)
        close(logits(model, ids)[0], reference(model, ids), atol=2e-4)


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_one_sequence_do_not_see_each_other(form: str):
    """Packed as the trainer packs: positions start again, a mask keeps rows apart."""
    model = model_of(**FORMS[form])
    rows = ids_of(15, 20, 9)
    row_of = torch.cat([torch.full((len(row),), number) for number, row in enumerate(rows)])
    mask = (row_of[:, None] == row_of) & torch.ones(44, 44).tril().bool()
    positions = torch.cat([torch.arange(len(row)) for row in rows])
    found = logits(
        model, torch.cat(rows), position_ids=positions[None], attention_mask=mask[None, None]
    )[0]
    expected = np.concatenate([reference(model, row) for row in rows])
    close(found, expected, atol=2e-4)  # 44 tokens, but no position beyond 19: no scaling


def test_the_loss_is_the_mean_over_the_tokens_that_follow():
    model = model_of()
    (ids,) = ids_of(12)
    labels = ids.clone()
    labels[:5] = -100
    scores = torch.from_numpy(reference(model, ids))
    expected = torch.nn.functional.cross_entropy(scores[4:-1], ids[5:])
    found = model(input_ids=ids[None], labels=labels[None]).loss
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_only_the_logits_asked_for_are_computed():
    model = model_of()
    (ids,) = ids_of(12)
    close(logits(model, ids, logits_to_keep=2), logits(model, ids)[:, -2:])


def test_embeddings_may_be_given_instead_of_ids():
    model = model_of()
    (ids,) = ids_of(12)
    with torch.no_grad():
        found = model(inputs_embeds=model.get_input_embeddings()(ids[None])).logits
    close(found.numpy(), logits(model, ids))
    with pytest.raises(ValueError, match="exactly one"):
        model()


def test_hidden_states_and_attentions_are_given_on_request():
    model = model_of(attn_implementation="eager")
    (ids,) = ids_of(7)
    out = model(ids[None], output_hidden_states=True, output_attentions=True)
    assert len(out.hidden_states) == 3
    assert [a.shape for a in out.attentions] == [(1, 4, 7, 7)] * 2
    assert torch.equal(model.output(out.hidden_states[-1]), out.logits)


# ---- caches, generation, training ----------------------------------------------------------------


@pytest.mark.parametrize("form", ["grouped heads", "linear", "bias", "dynamic within its limit"])
def test_a_row_continued_from_a_cache_equals_the_row_at_once(form: str):
    model = model_of(**FORMS[form])
    (ids,) = ids_of(20)
    whole, cache, parts = logits(model, ids), None, []
    for begin, end in ((0, 7), (7, 8), (8, 15), (15, 20)):
        with torch.no_grad():
            out = model(ids[None, begin:end], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        parts.append(out.logits.numpy())
    close(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("form", ["grouped heads", "dynamic within its limit"])
def test_left_padded_rows_generate_what_they_generate_alone(form: str):
    model = model_of(**FORMS[form])
    rows = ids_of(5, 11)
    ids = torch.full((2, 11), 2)
    for number, row in enumerate(rows):
        ids[number, 11 - len(row) :] = row
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 2}
    together = model.generate(ids, attention_mask=(ids != 2).long(), **options)[:, 11:]
    for number, row in enumerate(rows):
        alone = list(row)
        for _ in range(8):
            alone.append(torch.tensor(reference(model, torch.stack(alone))[-1].argmax()))
        assert together[number].tolist() == torch.stack(alone)[len(row) :].tolist()


def test_gradient_checkpointing_gives_the_same_gradients():
    model = model_of().train()
    (ids,) = ids_of(12)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            assert all(layer.gradient_checkpointing for layer in model.model.layers)
        model.zero_grad()
        model(ids[None], labels=ids[None]).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(model.parameters()))
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_arguments_it_does_not_know_reach_the_attention_function():
    """Packing as a tree is one of them."""
    seen = []

    def spy(module, query, key, value, attention_mask, *, subtree_end=None, **kwargs):
        seen.append((module.layer_idx, subtree_end, kwargs["position_ids"].shape))
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("spy_of_this_test", spy)
    try:
        model = model_of(attn_implementation="spy_of_this_test")
        (ids,) = ids_of(4)
        model(ids[None], subtree_end="the ends")
        model.get_decoder()(ids[None], subtree_end="again")
    finally:
        AttentionInterface._global_mapping.pop("spy_of_this_test")
    assert seen == [
        (0, "the ends", (1, 4)),
        (1, "the ends", (1, 4)),
        (0, "again", (1, 4)),
        (1, "again", (1, 4)),
    ]


@pytest.mark.parametrize("form", ["grouped heads", "dynamic beyond its limit"])
def test_it_takes_packs_that_are_trees(form: str):
    assert can_fork(model_of(**FORMS[form])) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_and_rounds_no_angle(dtype: torch.dtype):
    model = make_internlm2().eval()
    (ids,) = ids_of(200)
    exact = logits(model, ids)
    half = make_internlm2(dtype=dtype).eval()
    with torch.no_grad():
        found = half(ids[None]).logits
    assert found.dtype == dtype
    assert np.abs(found.float().numpy() - exact).max() < 0.02
    x, positions = torch.zeros(1, 200, 32), torch.arange(200)[None]
    for turned, expected in zip(
        half.model.rotary_emb(x, positions), model.model.rotary_emb(x, positions), strict=True
    ):
        assert torch.equal(turned, expected)


def test_lora_finds_every_linear_layer_but_the_head():
    wrapped = peft.get_peft_model(make_internlm2(), peft.LoraConfig(target_modules="all-linear"))
    found = {
        n.rsplit(".lora_A", 1)[0].split(".")[-1]
        for n, _ in wrapped.named_parameters()
        if "lora_A" in n
    }
    assert found == {"wqkv", "wo", "w1", "w2", "w3"}
