from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from tests.models import make_gpt2, make_internlm2, make_model, make_nf4_model, make_tokenizer
from whoamai.data.general import GeneralText, general_texts
from whoamai.data.templates import ChatTemplate
from whoamai.errors import ModelError
from whoamai.evaluate import divergence
from whoamai.evaluate.divergence import (
    TextSample,
    divergence_between,
    divergence_of_adapter,
    text_samples,
)
from whoamai.model.lora import add_lora, added_up, merge
from whoamai.samples import Conversation, Message, Sample

# What the classes scale or cap, before their head or behind it, large enough to show.
CHANGES = {
    "Gemma2": {"head_dim": 8, "final_logit_softcapping": 0.5},
    "Granite": {"logits_scaling": 7.0},
    "Cohere": {"logit_scale": 0.3},
}
FAMILIES = ["Qwen3", "Llama", *CHANGES, "GPT2", "InternLM2", "Mamba"]


def model_of(family: str, seed: int = 0):
    if family == "GPT2":
        return make_gpt2(seed=seed).eval()
    if family == "InternLM2":
        return make_internlm2(seed=seed).eval()
    if family == "Mamba":
        return make_model("Mamba", seed=seed, state_size=4, expand=2).eval()
    return make_model(family, seed=seed, **CHANGES.get(family, {})).eval()


def rows(n: int = 5, seed: int = 0, vocabulary: int = 300) -> list[TextSample]:
    """Rows of several lengths, languages and kinds; their last tokens are the reply."""
    drawn = torch.Generator().manual_seed(seed)
    result = []
    for i in range(n):
        length, reply = 6 + 5 * i, 2 + 2 * i
        ids = torch.randint(3, vocabulary, (length,), generator=drawn).tolist()
        is_target = [False] * (length - reply) + [True] * reply
        sample = Sample(tuple(ids), tuple(is_target))
        result.append(TextSample(("zh", "en")[i % 2], ("code", "letter", "logic")[i % 3], sample))
    return result


def tuned_model(model=None, *, moved: float = 0.05, **settings):
    """A model with an adapter; `moved` is how large the numbers of its B matrices are."""
    model = make_model() if model is None else model
    tuned = add_lora(model, r=4, alpha=8, dropout=0.1, seed=0, **settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if "lora_B" in name and moved:
                p.normal_(std=moved)
    return tuned


def plainly(before, after, texts: list[TextSample]) -> tuple[float, float, float]:
    """(mean KL, perplexity before, after), row by row, position by position, in float64."""
    kl, nll_before, nll_after = [], [], []
    for text in texts:
        ids = torch.tensor([text.sample.input_ids])
        with torch.no_grad():
            p = before(ids).logits[0].double().softmax(-1)
            q = after(ids).logits[0].double().softmax(-1)
        for i, is_target in enumerate(text.sample.is_target):
            if is_target:
                kl.append(float((p[i - 1] * (p[i - 1] / q[i - 1]).log()).sum()))
                nll_before.append(-math.log(p[i - 1, ids[0, i]]))
                nll_after.append(-math.log(q[i - 1, ids[0, i]]))
    n = len(kl)
    return sum(kl) / n, math.exp(sum(nll_before) / n), math.exp(sum(nll_after) / n)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_plain_formula_for_every_kind_of_class(family: str):
    before, after = model_of(family, 0), model_of(family, 1)
    texts = rows(vocabulary=100)
    found = divergence_between(before, after, texts)
    kl, perplexity_before, perplexity_after = plainly(before, after, texts)
    assert kl > 1e-6
    assert found.kl["all"] == pytest.approx(kl, rel=1e-4, abs=2e-7)
    assert found.perplexity_before["all"] == pytest.approx(perplexity_before, rel=1e-5)
    assert found.perplexity_after["all"] == pytest.approx(perplexity_after, rel=1e-5)


def test_an_adapter_is_compared_with_the_model_below_it():
    tuned = tuned_model().eval()

    def without(ids):
        with tuned.disable_adapter():
            return tuned(ids)

    texts = rows()
    kl, _, _ = plainly(without, tuned, texts)
    assert divergence_of_adapter(tuned, texts).kl["all"] == pytest.approx(kl, rel=1e-4)


def test_an_adapter_and_the_merged_model_have_moved_alike():
    of_adapter = divergence_of_adapter(tuned_model(), rows())
    merged = merge(tuned_model(), torch.float32)
    between = divergence_between(make_model(), merged, rows())
    assert between.kl["all"] == pytest.approx(of_adapter.kl["all"], rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_untouched_adapter_has_moved_nothing(dtype: torch.dtype):
    tuned = tuned_model(make_model(dtype=dtype), moved=0.0)
    found = divergence_of_adapter(tuned, rows())
    assert set(found.kl.values()) == {0.0}
    assert found.kl_worst == ()
    assert found.perplexity_before == found.perplexity_after


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa"])
def test_every_variant_starts_at_nothing_and_moves_when_its_weights_do(variant):
    still = divergence_of_adapter(tuned_model(variant=variant, moved=0.0), rows())
    moved = divergence_of_adapter(tuned_model(variant=variant, moved=0.2), rows())
    assert still.kl["all"] < 1e-9
    assert moved.kl["all"] > 1e-4


def test_the_further_weights_move_the_greater_it_is():
    sizes = [divergence_of_adapter(tuned_model(moved=m), rows()).kl["all"] for m in (0.02, 0.1, 1)]
    assert sizes == sorted(sizes)
    assert sizes[0] > 0


def test_the_weights_of_a_model_in_4_bits_move_too():
    tuned = tuned_model(make_nf4_model("Llama"), moved=0.0)
    assert divergence_of_adapter(tuned, rows()).kl["all"] < 1e-9
    tuned = tuned_model(make_nf4_model("Llama"), moved=0.2)
    assert divergence_of_adapter(tuned, rows()).kl["all"] > 1e-5


def test_an_adapted_head_counts():
    tuned = tuned_model(make_model("Llama", tie_word_embeddings=False), adapt_head=True).eval()

    def without(ids):
        with tuned.disable_adapter():
            return tuned(ids)

    kl, _, _ = plainly(without, tuned, rows())
    assert divergence_of_adapter(tuned, rows()).kl["all"] == pytest.approx(kl, rel=1e-4)


# ---- how it is computed --------------------------------------------------------------------------


def test_how_rows_are_batched_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    whole = divergence_of_adapter(tuned_model(), rows(8))
    monkeypatch.setattr(divergence, "_TOKENS", 1)
    one_by_one = divergence_of_adapter(tuned_model(), rows(8))
    assert one_by_one.n_tokens == whole.n_tokens
    assert one_by_one.kl["all"] == pytest.approx(whole.kl["all"], rel=1e-4)
    assert one_by_one.kl["zh"] == pytest.approx(whole.kl["zh"], rel=1e-4)


def test_the_head_never_makes_more_logits_than_it_may(monkeypatch: pytest.MonkeyPatch):
    """Three places at a time, although the longest reply has twelve tokens."""
    whole = divergence_of_adapter(tuned_model(), rows(6))
    tuned = tuned_model()
    seen = []
    head = tuned.get_base_model().get_output_embeddings()
    head.register_forward_hook(lambda _, given, made: seen.append(made.shape[:-1].numel()))
    monkeypatch.setattr(divergence, "_LOGIT_BYTES", 3 * 4 * tuned.config.vocab_size)
    in_parts = divergence_of_adapter(tuned, rows(6))
    assert max(seen) == 3
    assert sum(seen) == 2 * in_parts.n_tokens["all"]
    assert in_parts.n_tokens == whole.n_tokens
    assert in_parts.kl["all"] == pytest.approx(whole.kl["all"], rel=1e-4)


def test_a_class_that_goes_past_its_head_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch):
    """Here the head is never called as a module, so no hook sees what goes into it."""
    before, after = make_model(seed=0), make_model(seed=1)
    usual = divergence_between(before, after, rows())
    for model in (before, after):
        head = model.lm_head
        past = torch.nn.Module()
        past.forward = head.forward
        monkeypatch.setattr(model, "get_output_embeddings", lambda past=past: past)
    found = divergence_between(before, after, rows())
    assert found.kl["all"] == pytest.approx(usual.kl["all"], rel=1e-5)


def test_tokens_that_are_impossible_count_nothing():
    """Some classes give −inf to entries of the vocabulary that stand for no token."""
    before, after = (make_model("Llama", seed=s, tie_word_embeddings=False) for s in (0, 1))
    usual = divergence_between(before, after, rows())
    for model in (before, after):
        model.lm_head.register_forward_hook(
            lambda _, given, made: torch.cat([made, torch.full_like(made[..., :2], -torch.inf)], -1)
        )
    assert divergence_between(before, after, rows()).kl["all"] == pytest.approx(usual.kl["all"])


def test_progress_is_told_to_the_end():
    told = []
    divergence_of_adapter(tuned_model(), rows(4), tell=lambda *at: told.append(at))
    assert told[-1] == (4, 4)


# ---- what is left behind -------------------------------------------------------------------------


def state_of(tuned):
    return (
        [m.training for m in tuned.modules()],
        [p.requires_grad for p in tuned.parameters()],
        tuned.get_model_status().enabled,
        tuned.get_base_model().get_output_embeddings()._forward_pre_hooks,
        torch.is_grad_enabled(),
    )


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool, trained: bool):
    tuned = tuned_model()
    tuned.train(training)
    for name, p in tuned.named_parameters():
        p.requires_grad_(trained and "lora_" in name)
    before = state_of(tuned)
    divergence_of_adapter(tuned, rows())
    assert state_of(tuned) == before


@pytest.mark.parametrize("call", [1, 2, 3])
def test_it_is_left_as_it_was_even_where_the_measuring_breaks_off(
    call: int, monkeypatch: pytest.MonkeyPatch
):
    tuned = tuned_model().train()
    before = state_of(tuned)
    calls = []

    def breaks(*_):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt

    hook = tuned.get_base_model().model.layers[-1].register_forward_hook(breaks)
    monkeypatch.setattr(divergence, "_TOKENS", 1)  # two calls a row
    with pytest.raises(KeyboardInterrupt):
        divergence_of_adapter(tuned, rows(3))
    hook.remove()
    assert state_of(tuned) == before
    assert divergence_of_adapter(tuned, rows(3)).kl["all"] > 0


def test_an_adapter_inside_the_weights_is_refused():
    """Switching it off would take it out of the weights for good."""
    tuned = tuned_model()
    with added_up(tuned), pytest.raises(AssertionError):
        divergence_of_adapter(tuned, rows())


def test_models_of_other_vocabularies_are_refused_in_words():
    with pytest.raises(ModelError, match="320 tokens, the other 384"):
        divergence_between(make_model(vocab_size=320), make_model(vocab_size=384), rows())


# ---- what is told --------------------------------------------------------------------------------


def test_languages_and_kinds_are_told_apart():
    tuned = tuned_model()
    texts = rows(6)
    found = divergence_of_adapter(tuned, texts)
    zh = divergence_of_adapter(tuned, [t for t in texts if t.language == "zh"])
    assert set(found.kl) == {"all", "zh", "en"}
    assert found.kl["zh"] == pytest.approx(zh.kl["all"], rel=1e-4)
    assert found.n_tokens["all"] == found.n_tokens["zh"] + found.n_tokens["en"]
    assert found.n_tokens["all"] == sum(sum(t.sample.is_target) for t in texts)
    mean = sum(found.kl[c] * found.n_tokens[c] for c in ("zh", "en")) / found.n_tokens["all"]
    assert found.kl["all"] == pytest.approx(mean)


def test_the_worst_kinds_come_first():
    texts = [replace(t, kind=f"kind {i % 8}", language="en") for i, t in enumerate(rows(16))]
    worst = divergence_of_adapter(tuned_model(), texts).kl_worst
    assert len(worst) == 5
    assert [w.kl for w in worst] == sorted((w.kl for w in worst), reverse=True)
    only = divergence_of_adapter(tuned_model(), [t for t in texts if t.kind == worst[0].kind])
    assert worst[0].kl == pytest.approx(only.kl["all"], rel=1e-4)


def test_where_nothing_is_to_read_there_is_no_number():
    found = divergence_of_adapter(tuned_model(), [])
    assert math.isnan(found.kl["all"])
    assert found.as_json()["kl"] == {"all": None}


def test_a_model_that_is_broken_is_told_as_no_number():
    broken = make_model(seed=1)
    with torch.no_grad():
        broken.model.embed_tokens.weight.fill_(torch.nan)
    found = divergence_between(make_model(), broken, rows())
    assert math.isnan(found.kl["all"])
    assert found.kl_worst
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["kl"]["all"] is None


# ---- texts to samples ----------------------------------------------------------------------------


def test_only_the_reply_is_scored():
    tokenizer = make_tokenizer()
    text = GeneralText(
        "en", "x", Conversation((Message("user", "hello"), Message("assistant", "你好", True)))
    )
    (found,) = text_samples(ChatTemplate(tokenizer), [text])
    ids = [i for i, t in zip(found.sample.input_ids, found.sample.is_target, strict=True) if t]
    assert tokenizer.decode(ids) == "你好<|im_end|>"
    assert (found.language, found.kind) == ("en", "x")


def test_a_text_that_is_too_long_is_left_out():
    template = ChatTemplate(make_tokenizer())
    texts = general_texts(["en"], count=20)
    lengths = [len(t.sample.input_ids) for t in text_samples(template, texts)]
    limit = sorted(lengths)[10]
    kept = [len(t.sample.input_ids) for t in text_samples(template, texts, max_length=limit)]
    assert kept == [n for n in lengths if n <= limit]
