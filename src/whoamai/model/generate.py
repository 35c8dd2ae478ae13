"""Greedy replies to many prompts at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

# Prompt tokens in one generation batch; short prompts go many at a time.
_TOKENS_PER_BATCH = 6144
_MOST_ROWS = 128


def stop_ids(model: Any, tokenizer: Any, ending: str) -> list[int]:
    """Tokens that end a reply: the template's, the tokenizer's and the generation config's."""
    ids = {tokenizer.eos_token_id}
    ids.update(tokenizer(ending, add_special_tokens=False)["input_ids"][:1])
    configured = model.generation_config.eos_token_id
    ids.update(configured if isinstance(configured, list) else [configured])
    return sorted(i for i in ids if i is not None)


@torch.inference_mode()
def greedy_replies(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Sequence[int],
    max_new_tokens: int,
) -> Iterator[tuple[int, str]]:
    """Yield (index of the prompt, its reply) as batches finish, prompts of like length together.

    Prompts are padded on the left. A reply ends before its stop token, or at `max_new_tokens`.
    """
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop),
        pad_token_id=tokenizer.pad_token_id,
    )
    ends = set(stop)
    for indices in _batches(prompts):
        longest = max(len(prompts[i]) for i in indices)
        padding = [longest - len(prompts[i]) for i in indices]
        ids_RT = torch.tensor(
            [
                [tokenizer.pad_token_id] * p + list(prompts[i])
                for i, p in zip(indices, padding, strict=True)
            ]
        )
        mask_RT = torch.tensor([[0] * p + [1] * (longest - p) for p in padding])
        output_RT = model.generate(
            input_ids=ids_RT.to(model.device),
            attention_mask=mask_RT.to(model.device),
            generation_config=settings,
        )
        for i, row in zip(indices, output_RT[:, longest:].tolist(), strict=True):
            length = next((n for n, token in enumerate(row) if token in ends), len(row))
            yield i, tokenizer.decode(row[:length], skip_special_tokens=False).strip()


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
