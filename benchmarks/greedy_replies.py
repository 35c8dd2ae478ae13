"""Our batched greedy replies beside transformers' generate() on the same prompts and batches.

    python benchmarks/greedy_replies.py [--prompts 300]

Both give the same replies (checked). Ours drops rows that are over; generate() keeps them to the end.
The floor counts what no implementation can avoid: every token read or written once, at the speed of
the prompts alone (no cache, no reply), which is measured in the same run.
"""

from __future__ import annotations

import argparse
import time

import torch
from transformers import GenerationConfig

from whoamai.data.replay import replay_prompts
from whoamai.data.templates import ChatTemplate
from whoamai.model import generate
from whoamai.model.load import BUNDLED, load_chat_model

MAX_NEW_TOKENS = 96


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=300)
    chat = load_chat_model(BUNDLED)
    template = ChatTemplate(chat.tokenizer)
    stop = generate.stop_ids(chat.model, chat.tokenizer, template.ending)
    conversations = replay_prompts(parser.parse_args().prompts, languages=("zh", "en"), seed=0)
    prompts = [template.prompt_ids(c) for c in conversations]
    batches = list(generate._batches(prompts))

    start = time.perf_counter()
    found = dict(
        generate.greedy_replies(
            chat.model, chat.tokenizer, prompts, stop=stop, max_new_tokens=MAX_NEW_TOKENS
        )
    )
    ours = time.perf_counter() - start

    settings = GenerationConfig(
        do_sample=False, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=stop, pad_token_id=0
    )
    theirs, expected = 0.0, {}
    for indices in batches:
        ids_RT, mask_RT = generate._pad_left([prompts[i] for i in indices], 0)
        start = time.perf_counter()
        output = chat.model.generate(
            input_ids=ids_RT, attention_mask=mask_RT, generation_config=settings
        )
        theirs += time.perf_counter() - start
        for i, row in zip(indices, output[:, ids_RT.shape[1] :].tolist(), strict=True):
            length = next((n for n, token in enumerate(row) if token in stop), len(row))
            expected[i] = chat.tokenizer.decode(row[:length]).strip()

    start = time.perf_counter()
    for indices in batches:
        ids_RT, mask_RT = generate._pad_left([prompts[i] for i in indices], 0)
        chat.model(input_ids=ids_RT, attention_mask=mask_RT, logits_to_keep=1)
    reading = time.perf_counter() - start
    n_read = sum(map(len, prompts))
    n_written = sum(len(chat.tokenizer(text)["input_ids"]) + 1 for text in found.values())
    floor = reading * (n_read + n_written) / n_read

    same = sum(found[i] == expected[i] for i in range(len(prompts)))
    print(f"{len(prompts)} prompts, {same} replies the same")
    print(f"ours {ours:.1f} s, generate() {theirs:.1f} s, ratio {theirs / ours:.1f}")
    print(f"floor {floor:.1f} s (tokens at the speed of reading prompts, {reading:.1f} s)")


if __name__ == "__main__":
    main()
