"""Replies to many prompts at once: the most likely ones, or ones drawn by lot."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

# Prompt tokens in one generation batch; short prompts go many at a time.
_TOKENS_PER_BATCH = 6144
_MOST_ROWS = 128
# Rows that are over are dropped when no more than this share of the batch is still going.
_KEEP_SHARE = 0.8


def stop_ids(model: Any, tokenizer: Any, ending: str) -> list[int]:
    """Tokens that end a reply: the template's, the tokenizer's and the generation config's."""
    ids = {tokenizer.eos_token_id, *_special_ids(tokenizer, ending)}
    configured = model.generation_config.eos_token_id
    ids.update(configured if isinstance(configured, list) else [configured])
    return sorted(i for i in ids if i is not None)


def stop_text(tokenizer: Any, ending: str) -> str:
    """The text a reply ends before, where no token of its own says so; "" where one does.

    ChatML on a tokenizer that does not know <|im_end|> writes it in plain letters.
    """
    return "" if _special_ids(tokenizer, ending) else ending.strip()


def _special_ids(tokenizer: Any, text: str) -> set[int]:
    """Tokens of `text` that never occur in what a person writes: a space in it ends nothing."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return special.intersection(tokenizer(text, add_special_tokens=False)["input_ids"])


# The next token of some rows of a batch: (which rows, logits_RV) -> token_R.
_Choice = Callable[[Sequence[int], torch.Tensor], torch.Tensor]


@torch.inference_mode()
def greedy_replies(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Sequence[int],
    stop_text: str = "",
    max_new_tokens: int,
) -> Iterator[tuple[int, str]]:
    """Yield (index of the prompt, its reply) as batches finish, prompts of like length together.

    A reply ends before its stop token or before `stop_text`, or at `max_new_tokens`. Whatever sampling
    or penalties the model's own settings ask for is left out.
    """
    for indices in _batches(prompts):
        rows = [prompts[i] for i in indices]
        replies = _batch(model, tokenizer, rows, _most_likely, stop, stop_text, max_new_tokens)
        yield from zip(indices, replies, strict=True)


@torch.inference_mode()
def sampled_replies(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Sequence[int],
    stop_text: str = "",
    max_new_tokens: int,
    temperature: float,
    seed: int,
    samples: int = 1,
) -> Iterator[tuple[int, int, str]]:
    """Yield (index of the prompt, number of the sample, the reply) as batches finish.

    Each token is drawn from softmax(logits / temperature), the whole of it, whatever the model's own
    settings ask for; otherwise as greedy_replies(). Every reply is drawn by a generator of its own,
    made from (seed, prompt, sample): nobody else's random numbers are used up, and a reply does not
    depend on which others are drawn beside it, but for the last bits of the logits.

    Raises ValueError for a temperature that is not above 0; greedy_replies() is for 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: must be above 0")
    asked = [(i, sample) for i in range(len(prompts)) for sample in range(samples)]
    for batch in _batches([prompts[i] for i, _ in asked]):
        rows = [prompts[asked[at][0]] for at in batch]
        lots = [random.Random(f"{seed}-{i}-{sample}") for i, sample in (asked[at] for at in batch)]
        draw = _drawn(lots, temperature)
        replies = _batch(model, tokenizer, rows, draw, stop, stop_text, max_new_tokens)
        for at, reply in zip(batch, replies, strict=True):
            yield *asked[at], reply


def _most_likely(rows: Sequence[int], logits_RV: torch.Tensor) -> torch.Tensor:
    return logits_RV.argmax(-1)


def _drawn(lots: Sequence[random.Random], temperature: float) -> _Choice:
    """One number in [0, 1) a token, looked up in the row's cumulated probabilities.

    The sums are made in float64: over 150,000 tokens those of float32 lose what is unlikely.
    """

    def choose(rows: Sequence[int], logits_RV: torch.Tensor) -> torch.Tensor:
        sums_RV = (logits_RV.double() / temperature).softmax(-1).cumsum(-1)
        lots_R1 = sums_RV.new_tensor([[lots[row].random()] for row in rows])
        # The first token whose sum is above the lot; one without probability never is.
        token_R1 = torch.searchsorted(sums_RV, lots_R1 * sums_RV[:, -1:], right=True)
        return token_R1[:, 0].clamp(max=logits_RV.shape[-1] - 1)

    return choose


def _batch(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    choose: _Choice,
    stop: Sequence[int],
    stop_text: str,
    max_new_tokens: int,
) -> list[str]:
    """The replies to the prompts of one batch as text, without what ended them."""
    ends = set(stop)
    ids_RT, mask_RT = _pad_left(prompts, _padding_id(tokenizer))
    over = _ending_test(tokenizer, ends, stop_text)
    texts = []
    for ids in _replies(model, ids_RT, mask_RT, choose, over, max_new_tokens):
        kept = ids[:-1] if ids and ids[-1] in ends else ids
        reply = tokenizer.decode(kept, skip_special_tokens=False)
        texts.append((reply.partition(stop_text)[0] if stop_text else reply).strip())
    return texts


def _replies(
    model: Any,
    ids_RT: torch.Tensor,
    mask_RT: torch.Tensor,
    choose: _Choice,
    is_over: Callable[[list[int]], bool],
    max_new_tokens: int,
) -> list[list[int]]:
    """The token chosen again and again, for R prompts padded on the left to T tokens.

    Replies differ much in length, so rows that are over leave the batch and its cache, where generate()
    keeps them to the end (`python benchmarks/greedy_replies.py` compares the two). A reply ends with the
    token that made `is_over` true.

    A class without past_key_values (Mamba, RWKV) carries along what it has read, padding too: its
    prompts are answered one by one, all tokens computed again for each new one.
    """
    device = model.device
    mask_RT = mask_RT.to(device)
    position_RT = (mask_RT.cumsum(-1) - 1).clamp(min=0)
    replies: list[list[int]] = [[] for _ in range(len(mask_RT))]
    rows = list(range(len(mask_RT)))  # the replies that rows of the batch belong to
    going = set(rows)
    input_RT, cache = ids_RT.to(device), None
    for _ in range(max_new_tokens):
        output = model(
            input_ids=input_RT,
            attention_mask=mask_RT,
            position_ids=position_RT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = getattr(output, "past_key_values", None)
        if cache is None:
            rows_of_ids = (
                ids_T[mask_T.bool()] for ids_T, mask_T in zip(input_RT, mask_RT, strict=True)
            )
            return [
                _reply_alone(model, ids_T, row, choose, is_over, max_new_tokens)
                for row, ids_T in enumerate(rows_of_ids)
            ]
        token_R = choose(rows, output.logits[:, -1])
        for row, token in zip(rows, token_R.tolist(), strict=True):
            if row in going:
                replies[row].append(token)
                if is_over(replies[row]):
                    going.discard(row)
        if not going:
            break
        position_RT = position_RT[:, -1:] + 1
        if len(going) <= _KEEP_SHARE * len(rows) and hasattr(cache, "batch_select_indices"):
            kept_R = torch.tensor([at for at, row in enumerate(rows) if row in going])
            kept_R = kept_R.to(device)
            cache.batch_select_indices(kept_R)
            rows = [row for row in rows if row in going]
            token_R, mask_RT = token_R[kept_R], mask_RT[kept_R]
            position_RT = position_RT[kept_R]
        input_RT = token_R[:, None]
        mask_RT = torch.cat((mask_RT, mask_RT.new_ones(len(rows), 1)), dim=-1)
    return replies


def _reply_alone(
    model: Any,
    ids_T: torch.Tensor,
    row: int,
    choose: _Choice,
    is_over: Callable[[list[int]], bool],
    max_new_tokens: int,
) -> list[int]:
    reply: list[int] = []
    while len(reply) < max_new_tokens and not (reply and is_over(reply)):
        ids_1T = torch.cat((ids_T, ids_T.new_tensor(reply)))[None]
        logits = model(input_ids=ids_1T, use_cache=False, logits_to_keep=1).logits
        reply.append(int(choose([row], logits[:, -1])))
    return reply


def _ending_test(tokenizer: Any, ends: set[int], stop_text: str) -> Callable[[list[int]], bool]:
    """Is a reply over, given its tokens so far?"""
    # A token has a byte at least, and one more token may go over the end.
    window = len(stop_text.encode()) + 1

    def is_over(ids: list[int]) -> bool:
        if ids[-1] in ends:
            return True
        return bool(stop_text) and stop_text in tokenizer.decode(ids[-window:])

    return is_over


def _padding_id(tokenizer: Any) -> int:
    """Padding is masked, so any token will do where the tokenizer has none for it."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(i for i in known if i is not None)


def _pad_left(rows: Sequence[Sequence[int]], padding_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both of shape R × T; the mask is 0 on padding."""
    longest = max(map(len, rows))
    ids_RT = [[padding_id] * (longest - len(row)) + list(row) for row in rows]
    mask_RT = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids_RT), torch.tensor(mask_RT)


def _batches(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batch: list[int] = []
    for i in order:
        if batch and (
            len(batch) == _MOST_ROWS or len(prompts[i]) * (len(batch) + 1) > _TOKENS_PER_BATCH
        ):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
