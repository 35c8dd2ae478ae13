"""Adapters with random numbers, made with peft, and what peft itself computes with them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model


def save_adapter(folder: Path, model: Any, *, seed: int = 1, **settings: Any) -> Path:
    """Write a peft adapter for `model` with nothing in it zero. `model` is not to be used afterwards."""
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        tuned = get_peft_model(model, LoraConfig(**{**chosen, **settings}))
        for name, parameter in tuned.named_parameters():
            if parameter.requires_grad:
                if "magnitude" in name:
                    parameter.data.mul_(1 + 0.1 * torch.rand_like(parameter))
                else:
                    parameter.data.add_(0.05 * torch.randn_like(parameter))
        tuned.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@torch.inference_mode()
def logits(model: Any, seed: int = 3) -> torch.Tensor:
    """Logits of random ids of the model's vocabulary, (2, 12, V), float32."""
    ids = torch.randint(3, model.config.vocab_size, (2, 12), generator=_generator(seed))
    return model.eval()(input_ids=ids).logits.float()


def with_adapter(model: Any, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(model, str(folder))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
