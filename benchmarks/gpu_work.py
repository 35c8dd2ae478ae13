"""The work of the GPU benchmarks: InternLM2.5-7B's shape with random weights, and the seed's data.

Weights are random, so nothing is learned; speed and memory do not notice. The tokenizer is trained on
the data itself, with so few tokens that a row has as many as it is counted with elsewhere: 0.65 a
character of its answer, about 300 for the system prompt, 616 thousand in the 1,500 rows. What rows share
(the system prompt, repeated questions, answers that begin alike) is the data's own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from whoamai.samples import Sample

SEED_DATA = Path(__file__).resolve().parents[2] / "shared/data/assistant_Tuner_fixed.jsonl"
# Hidden size, intermediate size, layers, heads, key-value heads, vocabulary.
SCALES = {"full": (4096, 14336, 32, 32, 8, 92544), "tiny": (64, 128, 2, 4, 2, 2048)}
RANK, ALPHA = 64, 16
# Rows of an optimizer step: their forest has about 16 thousand nodes.
ROWS_OF_STEP = 150
_TOKENS = 1100
_SYSTEM_SEEN = 69  # times in the tokenizer's training text: the more, the fewer tokens it becomes
_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def internlm2_config(scale: str) -> Any:
    from whoamai.model.internlm2 import InternLM2Config

    hidden, intermediate, layers, heads, kv_heads, vocabulary = SCALES[scale]
    rope: Any = {"rope_theta": 1e6, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    return InternLM2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=32768,
        **rope,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        bias=False,
    )


def random_model(scale: str, device: str, dtype: Any, *, seed: int = 0) -> Any:
    """The model with weights drawn on the device: σ is 0.02 at full width, scaled for a narrower one."""
    import torch

    from whoamai.model.internlm2 import InternLM2ForCausalLM, register_internlm2

    register_internlm2()
    config = internlm2_config(scale)
    with torch.device("meta"):
        model = InternLM2ForCausalLM(config)
    model = model.to(dtype).to_empty(device=device)
    drawn = torch.Generator(device).manual_seed(seed)
    sigma = 0.02 * (4096 / config.hidden_size) ** 0.5
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.fill_(1.0)
            else:
                p.normal_(0, sigma, generator=drawn)
    return model.eval()


def tokenizer(data: Path) -> Any:
    """A byte-level BPE that gives the rows of `data` their length; see above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    turns = [json.loads(line)["conversation"][0] for line in data.open(encoding="utf-8")]
    texts = [turns[0]["system"]] * _SYSTEM_SEEN
    texts += [*sorted({turn["input"] for turn in turns}), *(turn["output"] for turn in turns)]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_TOKENS,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.chat_template = _TEMPLATE
    return made


def samples(data: Path) -> list[Sample]:
    """The rows of `data` as token ids, as `whoamai train` makes them."""
    from whoamai.data.encode import encode
    from whoamai.data.readers import read_conversations
    from whoamai.data.templates import ChatTemplate

    template = ChatTemplate(tokenizer(data), model_type="internlm2")
    return list(encode(read_conversations([data]), template, max_length=2048).samples)


def write_model(folder: Path, scale: str, data: Path, device: str) -> int:
    """A folder as a hub has it: random weights in bfloat16, the tokenizer; the bytes of the weights."""
    import torch
    from internlm2_7b import _ones, _random_rows
    from merge_memory import shapes

    from whoamai.convert.shards import Entry, write_shards

    config = internlm2_config(scale)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    numbers = partial(_random_rows, device, 0.02 * (4096 / hidden) ** 0.5)
    entries = [
        Entry(name, shape, torch.bfloat16, partial(numbers, shape))
        for name, shape in shapes(config).items()
    ]
    names = [f"model.layers.{n}.{w}" for n in range(layers) for w in ("attention_norm", "ffn_norm")]
    for name in (*names, "model.norm"):
        ones = partial(_ones, hidden)
        entries.append(Entry(f"{name}.weight", (hidden,), torch.bfloat16, ones))
    folder.mkdir(parents=True)
    write_shards(folder, entries, max_bytes=2 * 10**9)
    named = {"architectures": ["InternLM2ForCausalLM"], "torch_dtype": "bfloat16"}
    text = json.dumps(config.to_dict() | named, default=str)
    (folder / "config.json").write_text(text, "utf-8")
    tokenizer(data).save_pretrained(folder)
    return sum(entry.nbytes for entry in entries)


def floor_flops(nodes: int, context: float, places: int, scale: str = "full") -> float:
    """Operations of one forward and backward pass that cannot be left out, nothing computed again.

    Each computed token: 4 for a frozen weight, 6 for a trained one, and in attention 2 products forward
    and 4 backward over the `context` tokens it sees on average; the head at `places` places.
    """
    hidden, intermediate, layers, heads, kv_heads, vocabulary = SCALES[scale]
    size = hidden // heads
    qkv = (heads + 2 * kv_heads) * size
    frozen = hidden * (qkv + heads * size + 3 * intermediate)
    trained = RANK * (2 * hidden + qkv + heads * size + 3 * (hidden + intermediate))
    layer = 4 * frozen + 6 * trained + 12 * heads * size * context
    return nodes * layers * layer + 4 * places * hidden * vocabulary


def mean_context(packs: Sequence[Any]) -> float:
    """Tokens that a node sees on average."""
    depth = sum(int(pack.position_T[: pack.n_nodes].sum()) + pack.n_nodes for pack in packs)
    return depth / sum(pack.n_nodes for pack in packs)
