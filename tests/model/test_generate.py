from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from transformers import GenerationConfig

from tests.models import make_model, make_tokenizer
from whoamai.model import generate
from whoamai.model.generate import greedy_replies, sampled_replies, stop_ids, stop_text

TOKENIZER = make_tokenizer()
PROMPTS = [
    TOKENIZER(text, add_special_tokens=False)["input_ids"]
    for text in ("你是谁？", "Who are you?", "a", "system user assistant", "你好 hello", "小初")
]


def model_that_talks(family: str = "Qwen3", **changes):
    """Random, with a wide spread of logits, so that replies differ from prompt to prompt."""
    model = make_model(family, **changes).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4 if p.dim() > 1 else 1)
    return model


def replies(model, prompts=PROMPTS, *, stop=(), n: int = 8, tokenizer=TOKENIZER) -> list[str]:
    found = dict(greedy_replies(model, tokenizer, prompts, stop=stop or [319], max_new_tokens=n))
    return [found[i] for i in range(len(prompts))]


def by_hand(model, prompt: list[int], stop: set[int], n: int) -> str:
    """One token after the other, without cache, padding or generate()."""
    ids = list(prompt)
    for _ in range(n):
        with torch.no_grad():
            token = int(
                model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()
            )
        if token in stop:
            break
        ids.append(token)
    return TOKENIZER.decode(ids[len(prompt) :]).strip()


@pytest.mark.parametrize(("family", "changes"), [("Mamba", {"state_size": 4}), ("Rwkv", {})])
def test_replies_of_a_recurrent_model_are_those_given_one_by_one(family: str, changes: dict):
    """They have no cache of keys and values, and would carry padding along."""
    model = model_that_talks(family, **changes, num_attention_heads=None, num_key_value_heads=None)
    expected = [by_hand(model, p, {319}, 8) for p in PROMPTS]
    assert len(set(expected)) > 1
    assert replies(model) == expected
    stop = {TOKENIZER(expected[1], add_special_tokens=False)["input_ids"][1]}
    assert replies(model, stop=stop) == [by_hand(model, p, stop, 8) for p in PROMPTS]


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3"])
def test_replies_given_together_are_those_given_one_by_one(family: str):
    model = model_that_talks(family)
    expected = [by_hand(model, p, {319}, 8) for p in PROMPTS]
    assert replies(model) == expected
    assert len(set(expected)) > 1


def test_replies_do_not_depend_on_how_they_are_batched(monkeypatch):
    model = model_that_talks()
    together = replies(model)
    monkeypatch.setattr(generate, "_MOST_ROWS", 2)
    assert replies(model) == together


def test_every_prompt_is_answered_once(monkeypatch):
    monkeypatch.setattr(generate, "_TOKENS_PER_BATCH", 20)
    found = greedy_replies(make_model(), TOKENIZER, PROMPTS * 3, stop=[319], max_new_tokens=1)
    assert sorted(i for i, _ in found) == list(range(len(PROMPTS) * 3))


def test_a_batch_holds_no_more_padded_tokens_than_its_budget(monkeypatch):
    monkeypatch.setattr(generate, "_TOKENS_PER_BATCH", 20)
    prompts = [[1] * n for n in (3, 9, 4, 30, 5, 9)]
    for batch in generate._batches(prompts):
        longest = max(len(prompts[i]) for i in batch)
        assert len(batch) * longest <= 20 or len(batch) == 1


def test_a_reply_ends_before_its_stop_token():
    model = model_that_talks()
    prompt = PROMPTS[1]
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=319
        )
    tokens = out[0, len(prompt) :].tolist()
    stop = next(t for i, t in enumerate(tokens) if i >= 2 and t not in tokens[:i])
    expected = TOKENIZER.decode(tokens[: tokens.index(stop)]).strip()
    assert replies(model, [prompt], stop=[stop], n=6) == [expected]


@pytest.mark.parametrize("n", [1, 5])
def test_a_reply_that_does_not_end_is_cut(n: int):
    model = model_that_talks()
    assert replies(model, PROMPTS[:1], n=n) == [by_hand(model, PROMPTS[0], {319}, n)]


def test_no_prompts_have_no_replies():
    assert replies(make_model(), []) == []


def test_replies_are_greedy_whatever_the_models_own_settings_say():
    model = model_that_talks()
    expected = replies(model)
    model.generation_config = GenerationConfig(do_sample=True, temperature=5.0, top_k=0)
    torch.manual_seed(1)
    assert replies(model) == expected


def test_replies_are_not_bent_by_the_models_own_penalties():
    """What is compared before and after is what the model says, not what a sampler makes of it."""
    model = model_that_talks()
    expected = replies(model)
    own = GenerationConfig(repetition_penalty=1.8, no_repeat_ngram_size=1, suppress_tokens=[5, 6])
    model.generation_config = own
    assert replies(model) == expected
    assert model.generation_config is own


def test_a_tokenizer_with_neither_padding_nor_end_pads_with_anything():
    """Padding is masked."""
    model, tokenizer = model_that_talks(), make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    assert replies(model, tokenizer=tokenizer) == replies(model)


# ---- stop tokens ---------------------------------------------------------------------------------


def test_the_ends_of_template_tokenizer_and_model_all_stop_a_reply():
    tokenizer, model = make_tokenizer(), make_model()
    model.generation_config.eos_token_id = [5, 6]
    ids = stop_ids(model, tokenizer, "<|im_start|>")
    assert ids == sorted({5, 6, tokenizer.eos_token_id, tokenizer("<|im_start|>")["input_ids"][0]})


def test_a_model_without_end_token_of_its_own_adds_none():
    tokenizer, model = make_tokenizer(), make_model()
    model.generation_config.eos_token_id = None
    assert stop_ids(model, tokenizer, "<|im_end|>") == [tokenizer.eos_token_id]


def test_a_space_before_the_end_token_stops_nothing():
    """Llama 2's template ends a reply with " </s>"; a space alone must not end one."""
    tokenizer, model = make_tokenizer(), make_model()
    space = tokenizer(" ")["input_ids"][0]
    assert space not in stop_ids(model, tokenizer, " <|im_end|>")


def test_an_end_written_in_plain_letters_does_not_stop_at_its_first_letter():
    """ChatML on a tokenizer that does not know <|im_end|>: "<" alone is no end."""
    tokenizer, model = make_tokenizer(), make_model()
    bracket = tokenizer("<")["input_ids"][0]
    assert bracket not in stop_ids(model, tokenizer, "<|end of turn|>")


def test_an_end_of_several_tokens_stops_at_its_special_one():
    tokenizer = make_tokenizer()
    assert stop_ids(make_model(), tokenizer, " <|im_end|>") == [tokenizer.eos_token_id]
    assert stop_text(tokenizer, " <|im_end|>") == ""


def test_an_end_without_token_of_its_own_ends_a_reply_where_its_text_stands():
    """Also where its tokens in a reply are not those the end has when it stands alone."""
    model = model_that_talks()
    whole = replies(model, n=12)
    ends = [text[3:6] for text in whole]
    for i, (text, end) in enumerate(zip(whole, ends, strict=True)):
        ((_, reply),) = greedy_replies(
            model, TOKENIZER, [PROMPTS[i]], stop=[319], stop_text=end, max_new_tokens=12
        )
        assert reply == text.partition(end)[0].strip()


def test_an_end_in_the_prompt_ends_no_reply():
    """Earlier turns hold it too."""
    model = model_that_talks()
    prompt = PROMPTS[1]
    expected = replies(model, [prompt])
    end = TOKENIZER.decode(prompt)[-3:]
    assert end not in expected[0]
    found = greedy_replies(model, TOKENIZER, [prompt], stop=[319], stop_text=end, max_new_tokens=8)
    assert dict(found)[0] == expected[0]


def test_no_more_is_generated_once_every_reply_has_ended():
    model = model_that_talks()
    (text,) = replies(model, PROMPTS[:1], n=40)
    steps = []
    model.register_forward_hook(lambda *_: steps.append(1))
    list(
        greedy_replies(
            model, TOKENIZER, PROMPTS[:1], stop=[319], stop_text=text[:1], max_new_tokens=40
        )
    )
    assert len(steps) < 10


# ---- drawn by lot --------------------------------------------------------------------------------


def drawn(
    model, prompts=PROMPTS, *, n: int = 8, temperature: float = 0.8, seed: int = 0, samples: int = 1
) -> dict[tuple[int, int], str]:
    found = sampled_replies(
        model,
        TOKENIZER,
        prompts,
        stop=[319],
        max_new_tokens=n,
        temperature=temperature,
        seed=seed,
        samples=samples,
    )
    return {(i, sample): reply for i, sample, reply in found}


def test_the_same_seed_draws_the_same_replies_and_another_seed_others():
    model = model_that_talks()
    first = drawn(model, temperature=3.0, samples=3)
    assert drawn(model, temperature=3.0, samples=3) == first
    assert drawn(model, temperature=3.0, samples=3, seed=1) != first


def test_every_sample_of_every_prompt_is_drawn_once_and_by_itself():
    found = drawn(model_that_talks(), temperature=3.0, samples=4)
    assert sorted(found) == [(i, k) for i in range(len(PROMPTS)) for k in range(4)]
    assert len(set(found.values())) > len(PROMPTS) * 3


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_drawn_reply_does_not_depend_on_what_is_drawn_beside_it(monkeypatch, rows: int):
    model = model_that_talks()
    together = drawn(model, temperature=2.0, samples=3)
    monkeypatch.setattr(generate, "_MOST_ROWS", rows)
    fewer = drawn(model, PROMPTS[:4], temperature=2.0, samples=2)
    assert fewer == {key: together[key] for key in fewer}


def test_drawing_uses_up_nobody_elses_random_numbers():
    torch.manual_seed(7)
    random.seed(7)
    before = torch.get_rng_state(), random.getstate()
    drawn(model_that_talks(), samples=2)
    after = torch.get_rng_state(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]


@pytest.mark.parametrize("temperature", [0.5, 0.8, 2.0])
def test_tokens_are_drawn_as_often_as_softmax_says(temperature: float):
    logits_RV = torch.tensor([[2.0, 0.0, 1.0, float("-inf"), 0.5]]).expand(4000, 5)
    lots = [random.Random(f"0-0-{k}") for k in range(len(logits_RV))]
    tokens = generate._drawn(lots, temperature)(range(len(lots)), logits_RV).tolist()
    counts = Counter(tokens)
    expected = (logits_RV[0] / temperature).softmax(-1).tolist()
    for token, p in enumerate(expected):
        spread = (p * (1 - p) / len(tokens)) ** 0.5
        assert abs(counts[token] / len(tokens) - p) <= 4 * spread, token


def test_the_greatest_lot_draws_a_token_there_is():
    class Highest(random.Random):
        def random(self) -> float:
            return 1 - 2**-53

    logits_RV = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    logits_RV[:, -1] = -5.0
    tokens = generate._drawn([Highest()] * 3, 0.8)(range(3), logits_RV).tolist()
    assert tokens == [999, 999, 999]


def test_replies_drawn_at_hardly_any_temperature_are_the_greedy_ones():
    model = model_that_talks()
    assert [drawn(model, temperature=1e-4)[i, 0] for i in range(len(PROMPTS))] == replies(model)


def test_a_recurrent_model_draws_too():
    changes = {"state_size": 4, "num_attention_heads": None, "num_key_value_heads": None}
    model = model_that_talks("Mamba", **changes)
    found = drawn(model, temperature=3.0, samples=2)
    assert len(set(found.values())) > len(PROMPTS)
    assert found == drawn(model, temperature=3.0, samples=2)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_without_temperature_nothing_can_be_drawn(temperature: float):
    with pytest.raises(ValueError, match="above 0"):
        drawn(make_model(), temperature=temperature)
