"""Files such as XTuner, mmengine and DeepSpeed write, made by tests without any of them."""

from __future__ import annotations

import math
import sys
import types
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
import torch

BASE = "models/tiny-internlm2"


def real_files() -> Path:
    """What XTuner and DeepSpeed themselves wrote, beside the project; skips where it is not there."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "xtuner_ckpt"
    if not folder.is_dir():
        pytest.skip("the files that XTuner wrote (shared/fixtures/xtuner_ckpt) are not here")
    return folder


def config_text(**changes: Any) -> str:
    """A config in the form XTuner puts into a checkpoint; changes: r, lora_alpha, base, lora."""
    given = {"base": BASE, "r": 4, "lora_alpha": 8, "lora": True, **changes}
    lora = (
        f"dict(bias='none', lora_alpha={given['lora_alpha']}, lora_dropout=0.1, r={given['r']}, "
        "task_type='CAUSAL_LM', type='peft.LoraConfig')"
    )
    llm = (
        f"dict(pretrained_model_name_or_path={given['base']!r}, torch_dtype='torch.float16', "
        "trust_remote_code=True, type='transformers.AutoModelForCausalLM.from_pretrained')"
    )
    return (
        "prompt_template = 'xtuner.utils.PROMPT_TEMPLATE.internlm2_chat'\n"
        f"model = dict(llm={llm}, lora={lora if given['lora'] else None}, "
        "type='xtuner.model.SupervisedFinetune')\n"
    )


def adapter_state(r: int = 4, hidden: int = 6, layers: int = 2) -> dict[str, torch.Tensor]:
    """LoRA weights under XTuner's names, every one its own numbers."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer in range(layers):
        for module in ("attention.wqkv", "feed_forward.w1"):
            name = f"llm.base_model.model.model.layers.{layer}.{module}"
            for half, shape in (("lora_A", (r, hidden)), ("lora_B", (hidden + 1, r))):
                state[f"{name}.{half}.default.weight"] = torch.randn(*shape, generator=generator)
    return state


def save_pth(path: Path, state: Mapping[str, torch.Tensor], cfg: str | None) -> Path:
    """XTuner's iter_N.pth, with the objects of mmengine and numpy that are in a real one."""
    import numpy as np

    meta = {"epoch": 0, "iter": 17, "seed": 0} | ({"cfg": cfg} if cfg else {})
    with foreign_classes() as foreign:
        history = foreign.HistoryBuffer(np.arange(3.0))
        content = {
            "meta": meta,
            "state_dict": OrderedDict(state),
            "message_hub": {"log_scalars": {"loss": history}, "eta": np.float64(0.5)},
            "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        }
        torch.save(content, path)
    return path


def save_zero(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    *,
    world: int,
    stage: int = 2,
    dtype: torch.dtype = torch.bfloat16,
    cfg: str | None = None,
    short: bool = False,
) -> Path:
    """A folder as DeepSpeed leaves it. short: the last shard without what fills it up."""
    folder.mkdir(parents=True)
    shapes = OrderedDict((name, t.shape) for name, t in state.items())
    with foreign_classes() as foreign:
        module = {} if stage == 3 else OrderedDict((n, t.to(dtype)) for n, t in state.items())
        model = {
            "module": module,
            "buffer_names": [],
            "param_shapes": [shapes],
            "frozen_param_shapes": None,
            "shared_params": {},
            "frozen_param_fragments": None,
            "ds_config": foreign.ConfigDict(zero_optimization=foreign.ConfigDict(stage=stage)),
            "meta": {"cfg": cfg} if cfg else {},
        }
        names = ["mp_rank_00_model_states.pt"]
        if stage == 3:
            names = [f"zero_pp_rank_{r}_mp_rank_00_model_states.pt" for r in range(world)]
        for name in names:
            torch.save(model, folder / name)
        prefix = "" if dtype == torch.float32 else "bf16_"
        shards = _shards_3(state, world) if stage == 3 else _shards(state, world, short=short)
        for rank, shard in enumerate(shards):
            key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
            optimizer = {
                "loss_scaler": foreign.LossScaler(1.0),
                "zero_stage": foreign.ZeroStageEnum(stage),
                "partition_count": world if stage == 3 else [world],
                key: [shard.clone()],
            }
            name = f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            torch.save({"optimizer_state_dict": optimizer}, folder / name)
    return folder


def _shards(
    state: Mapping[str, torch.Tensor], world: int, *, short: bool
) -> Sequence[torch.Tensor]:
    """One vector, filled up to a multiple of twice the ranks, in equal parts."""
    flat = torch.cat([t.flatten() for t in state.values()])
    filling = -len(flat) % (2 * world)
    shards = list(torch.cat([flat, torch.zeros(filling)]).chunk(world))
    if short and filling:
        shards[-1] = shards[-1][:-filling]
    return shards


def _shards_3(state: Mapping[str, torch.Tensor], world: int) -> Sequence[torch.Tensor]:
    """Each parameter in `world` parts, the last filled up."""
    parts: list[list[torch.Tensor]] = [[] for _ in range(world)]
    for tensor in state.values():
        size = math.ceil(tensor.numel() / world)
        filled = torch.zeros(size * world)
        filled[: tensor.numel()] = tensor.flatten()
        for rank in range(world):
            parts[rank].append(filled[rank * size : (rank + 1) * size])
    return [torch.cat(part) for part in parts]


@contextmanager
def foreign_classes():
    """Classes by the names that mmengine's and DeepSpeed's have; the packages are not needed."""

    class HistoryBuffer:
        def __init__(self, log):
            self._log_history = log
            self._statistics_methods = {"mean": HistoryBuffer.mean}

        def mean(self):
            return 0

    class ConfigDict(dict):
        def __reduce_ex__(self, _):
            return ConfigDict, (dict(self),)

    class LossScaler:
        def __init__(self, scale):
            self.cur_scale = scale

    class ZeroStageEnum(IntEnum):
        gradients = 1
        optimizer_states = 2
        weights = 3

    places = {
        "mmengine.logging.history_buffer": HistoryBuffer,
        "mmengine.config.config": ConfigDict,
        "deepspeed.runtime.fp16.loss_scaler": LossScaler,
        "deepspeed.runtime.zero.config": ZeroStageEnum,
    }
    made = {}
    for module, kind in places.items():
        kind.__module__, kind.__qualname__ = module, kind.__name__
        parts = module.split(".")
        for n in range(1, len(parts) + 1):
            made.setdefault(".".join(parts[:n]), types.ModuleType(".".join(parts[:n])))
        setattr(made[module], kind.__name__, kind)
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    HistoryBuffer.mean.__module__ = "mmengine.logging.history_buffer"
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield types.SimpleNamespace(**{kind.__name__: kind for kind in places.values()})
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
