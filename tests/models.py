"""Small models with random weights that tests make themselves, of several transformers classes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

_TEXT = [
    "你是谁？我是小初，由初心实验室开发的AI助手。",
    "Who are you? I'm Chu, an AI assistant made by Chuxin Lab.",
    "user assistant system 你好 hello",
]
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
    "bos_token_id": None,
    "pad_token_id": 0,
}


def make_tokenizer(chat_template: str | None = CHAT_TEMPLATE):
    """A byte-level BPE tokenizer of about 300 tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_TEXT, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def make_model(family: str = "Qwen3", *, seed: int = 0, **changes):
    """A model of transformers' `family` ("Llama", "Qwen2", "Qwen3", …), float32 but for `dtype`."""
    config_class = getattr(transformers, f"{family}Config")
    config = config_class(**{"vocab_size": len(make_tokenizer()), **_SIZES, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    return model.to(changes.get("dtype", torch.float32))


def save_chat_model(folder: Path, family: str = "Qwen3", **changes) -> Path:
    """Write a model folder as a hub would have it."""
    make_model(family, **changes).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_internlm2(*, seed: int = 0, **changes):
    """An InternLM2 of ours with the vocabulary of tests/sentencepiece_models.py, float32."""
    from tests.sentencepiece_models import pieces
    from whoamai.model.internlm2 import InternLM2Config, InternLM2ForCausalLM

    sizes = {**_SIZES, "vocab_size": len(pieces()), "bos_token_id": 1, "pad_token_id": 2}
    config = InternLM2Config(**{**sizes, "bias": False, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = InternLM2ForCausalLM(config)
    return model.to(changes.get("dtype", torch.float32))


def save_internlm2(folder: Path, *, chat_template: str | None = None, **changes) -> Path:
    """Write an InternLM2 folder as a hub has it: tokenizer.model alone, and keys that name code."""
    from tests.sentencepiece_models import save_tokenizer

    make_internlm2(**changes).save_pretrained(folder)
    save_tokenizer(folder, chat_template=chat_template)
    file = folder / "config.json"
    code = {
        "AutoConfig": "configuration_internlm2.InternLM2Config",
        "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
    }
    written = json.loads(file.read_text("utf-8"))
    written |= {"auto_map": code, "attn_implementation": "eager"}
    file.write_text(json.dumps(written), "utf-8")
    return folder


def make_gpt2(*, seed: int = 0):
    """A GPT-2, whose layers are Conv1D (weights in × out) instead of linear."""
    config = transformers.GPT2Config(
        vocab_size=len(make_tokenizer()),
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=None,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.GPT2LMHeadModel(config)


def make_nf4_model(family: str = "Llama", *, double_quantization: bool = True, **changes):
    """The same with its linear layers in nf4, on the CPU; `dtype` is what it computes in."""
    from tempfile import TemporaryDirectory

    import pytest

    from whoamai.model.load import load_chat_model

    pytest.importorskip("bitsandbytes")
    dtype = str(changes.get("dtype", torch.float32)).removeprefix("torch.")
    with TemporaryDirectory() as folder:
        save_chat_model(Path(folder), family, **changes)
        chat = load_chat_model(
            folder,
            device="cpu",
            dtype=dtype,
            quantization="nf4",
            double_quantization=double_quantization,
        )
    return chat.model
