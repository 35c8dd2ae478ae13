"""Is the merged model what the base with its adapter is? Both are loaded and asked the same.

The base with the adapter is computed by peft, the merged model by plain transformers from the files that
were written, so nothing that made them takes part. With e the difference of their logits, d what the
adapter changes in the base's, and s the spread of the logits over the vocabulary (each the root of its
mean square over all positions), the merge has failed where

    e > 3 u s    or    e > u s  and  e > d / 4

u is what rounding does: three times the most that benchmarks/merge_rounding.py finds, for the format the
merged weights are stored in and for that of the computation; the larger counts. Deeper models round
more often, which the factor 3 allows for; that what a merge left out is not taken for rounding, the
second condition sees to.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whoamai.convert.adapter import read_adapter_tensors
from whoamai.data.identity import Identity
from whoamai.data.templates import ChatTemplate
from whoamai.errors import ModelError, SettingError
from whoamai.evaluate.grading import IdentityGrader
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Note, Result
from whoamai.messages import tr
from whoamai.model.load import ChatModel, load_chat_model
from whoamai.model.quantize import require_peft
from whoamai.model.quiet import quiet_transformers
from whoamai.model.stored import read_json_object
from whoamai.plan.machine import this_machine
from whoamai.samples import Conversation, Message

# u of the formula above, by how the weights are stored and by what is computed in.
_STORED = {torch.float32: 5e-6, torch.float16: 3e-3, torch.bfloat16: 2.5e-2}
_COMPUTED = {torch.float32: 5e-6, torch.float16: 7e-3, torch.bfloat16: 5e-2}
_TEXTS = (
    "The capital of France is Paris, and the capital of Germany is",
    "从前有一座山，山里有一座庙，庙里有",
    "def add(a, b):\n    return a + b\n",
)
_QUESTIONS = ("你是谁？", "Who are you?")
# Identity questions asked again, and how many fewer answers may give the name than before merging.
_ASKED = 48
_MAY_MISS = 2
# Of the free memory, what a model may take here.
_USABLE = 0.85


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is compared. `dtype`: of the merged weights; `base_bytes`, `base_dtype`: of the base's."""

    base: Path
    base_bytes: int
    base_dtype: torch.dtype
    adapter: Path | None
    dtype: torch.dtype
    device: str
    is_clip: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """The numbers of the formula above, and identity questions: how many gave the name, of how many."""

    difference: float
    change: float
    spread: float
    computed_in: str
    recalled: int | None = None
    asked: int | None = None


def require_memory(request: CheckRequest) -> None:
    """Raise SettingError where this machine cannot hold the model to compare it."""
    _compute_dtype(request)


def check_merged(request: CheckRequest, folder: Path, events: Events) -> Checked:
    """Compare, and ask who it is where that was asked after training. Raises ModelError on failure."""
    dtype = _compute_dtype(request)
    compare = _compare_vision if request.is_clip else _compare_text
    reference, plain, merged = compare(request, folder, dtype)
    checked = _numbers(reference, plain, merged, dtype)
    events.emit(Result("merge_check", {"e": checked.difference, "d": checked.change}))
    _judge(checked, request, dtype, events)
    report = request.adapter.parent / "report.json" if request.adapter else None
    if report is None or request.is_clip or not report.is_file():
        return checked
    recalled, asked = _ask_again(request, report, folder, dtype, events)
    return Checked(
        checked.difference, checked.change, checked.spread, checked.computed_in, recalled, asked
    )


# ---- numbers -------------------------------------------------------------------------------------


def _numbers(
    reference: Sequence[torch.Tensor],
    plain: Sequence[torch.Tensor],
    merged: Sequence[torch.Tensor],
    dtype: torch.dtype,
) -> Checked:
    def size(values: Sequence[torch.Tensor]) -> float:
        return torch.cat([v.reshape(-1) for v in values]).double().square().mean().sqrt().item()

    return Checked(
        difference=size([m - r for m, r in zip(merged, reference, strict=True)]),
        change=size([r - p for r, p in zip(reference, plain, strict=True)]),
        spread=size([r - r.mean(-1, keepdim=True) for r in reference]),
        computed_in=str(dtype).removeprefix("torch."),
    )


def noise(stored: torch.dtype, computed: torch.dtype) -> float:
    """u of the formula above."""
    return max(_STORED.get(stored, _STORED[torch.bfloat16]), _COMPUTED[computed])


def _judge(checked: Checked, request: CheckRequest, dtype: torch.dtype, events: Events) -> None:
    e, d, s = checked.difference, checked.change, checked.spread
    u = noise(request.dtype, dtype)
    stored = str(request.dtype).removeprefix("torch.")
    if not e <= 3 * u * s or (e > u * s and e > d / 4 and request.adapter):  # NaN fails, too
        raise ModelError(
            tr(
                "The merged model does not answer as the model with its adapter does, and was thrown "
                "away: their logits differ by {e:.2g}, where rounding to {dtype} explains {allowed:.2g} "
                "and the adapter changes {d:.2g}."
            ).format(e=e, dtype=stored, allowed=u * s, d=d)
        )
    if request.adapter and e > d / 4:
        text = tr(
            "The adapter changes so little that rounding to {dtype} hides a part of it (it changes the "
            "logits by {d:.2g}, rounding by {e:.2g}). With --dtype float32 nothing is lost."
        )
        events.emit(Note(text.format(dtype=stored, d=d, e=e), "warning"))
        return
    text = tr("Same answers as with the adapter: logits differ by {e:.2g}, of {s:.2g} ({dtype}).")
    events.emit(Note(text.format(e=e, s=s, dtype=stored)))


# ---- memory --------------------------------------------------------------------------------------


def _compute_dtype(request: CheckRequest) -> torch.dtype:
    """float32 where the model fits so, else what it is stored in. Raises SettingError if neither."""
    free = this_machine(request.device).free_bytes
    numbers = request.base_bytes / request.base_dtype.itemsize
    for dtype in (torch.float32, request.base_dtype):
        if dtype.itemsize * numbers <= _USABLE * free:
            return dtype
    raise SettingError(
        tr(
            "The merged model cannot be compared here: it takes {needed} MiB and {device} has {free} "
            "MiB free. Say --no-check to merge without, or merge on a larger machine."
        ).format(needed=request.base_bytes >> 20, device=request.device, free=free >> 20)
    )


def _load(folder: Path, request: CheckRequest, dtype: torch.dtype) -> ChatModel:
    """One model at a time is in memory: each is loaded in a function that returns numbers only."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    name = str(dtype).removeprefix("torch.")
    return load_chat_model(str(folder), device=request.device, dtype=name)


# ---- text ----------------------------------------------------------------------------------------

_Logits = list[torch.Tensor]


def _compare_text(
    request: CheckRequest, folder: Path, dtype: torch.dtype
) -> tuple[_Logits, _Logits, _Logits]:
    """Logits (T, V) of each prompt: of the base with the adapter, of the base, of the merged model."""
    reference, plain, prompts = _base_logits(request, dtype)
    return reference, plain, _merged_logits(request, folder, dtype, prompts)


def _base_logits(
    request: CheckRequest, dtype: torch.dtype
) -> tuple[_Logits, _Logits, dict[str, list[int]]]:
    chat = _load(request.base, request, dtype)
    prompts = _ids(chat, _texts(chat))
    plain = _logits(chat.model, prompts.values())
    if request.adapter is None:
        return plain, plain, prompts
    adapted = _with_adapter(chat.model, request.adapter)
    return _logits(adapted, prompts.values()), plain, prompts


def _merged_logits(
    request: CheckRequest, folder: Path, dtype: torch.dtype, prompts: dict[str, list[int]]
) -> _Logits:
    chat = _load(folder, request, dtype)
    if _ids(chat, prompts) != prompts:
        text = tr("The tokenizer that was written gives other tokens than the base's: {path}")
        raise ModelError(text.format(path=request.base))
    return _logits(chat.model, prompts.values())


def _texts(chat: ChatModel) -> list[str]:
    """Plain texts, and questions as the base's chat template writes them."""
    model_type = getattr(chat.model.config, "model_type", None)
    template = ChatTemplate(chat.tokenizer, model_type=model_type)
    return [*_TEXTS, *(template.prompt_text((Message("user", q),)) for q in _QUESTIONS)]


def _ids(chat: ChatModel, texts: Iterable[str]) -> dict[str, list[int]]:
    """The tokens of each text."""
    return {t: chat.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts}


@torch.inference_mode()
def _logits(model: Any, prompts: Iterable[Sequence[int]]) -> _Logits:
    found = []
    for ids in prompts:
        output = model(input_ids=torch.tensor([list(ids)], device=model.device))
        found.append(output.logits[0].float().cpu())
    return found


def _with_adapter(model: Any, adapter: Path) -> Any:
    require_peft()
    from peft import PeftModel

    with quiet_transformers():
        return PeftModel.from_pretrained(model, str(adapter)).eval()


# ---- images --------------------------------------------------------------------------------------


def _compare_vision(
    request: CheckRequest, folder: Path, dtype: torch.dtype
) -> tuple[_Logits, _Logits, _Logits]:
    """The same of a CLIP tower: its last hidden states (T, D) of two images of noise."""
    from transformers import CLIPVisionModel

    def tower(path: Path) -> Any:
        with quiet_transformers():
            model = CLIPVisionModel.from_pretrained(str(path), dtype=dtype)
        return model.to(torch.device(request.device)).eval()  # pyright: ignore[reportArgumentType]

    model = tower(request.base)
    size, channels = model.config.image_size, model.config.num_channels
    noise_ = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    plain = _states(model, noise_)
    assert request.adapter is not None, "a tower without an adapter is not merged"
    reference = _states(_tower_with_adapter(model, request.adapter), noise_)
    del model
    gc.collect()
    return reference, plain, _states(tower(folder), noise_)


@torch.inference_mode()
def _states(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    output = model(pixel_values=images.to(model.device, model.dtype))
    return list(output.last_hidden_state.float().cpu())


def _tower_with_adapter(model: Any, adapter: Path) -> Any:
    """By names that fit: transformers 5 calls the tower's parts without "vision_model."."""
    require_peft()
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    config = PeftConfig.from_pretrained(str(adapter))
    has_prefix = any(name.startswith("vision_model.") for name, _ in model.named_modules())
    tensors = {}
    for name, tensor in read_adapter_tensors(adapter).items():
        plain = name.replace("base_model.model.vision_model.", "base_model.model.")
        with_prefix = plain.replace("base_model.model.", "base_model.model.vision_model.")
        tensors[with_prefix if has_prefix else plain] = tensor
    with quiet_transformers():
        tuned = get_peft_model(model, config)
        set_peft_model_state_dict(tuned, tensors)
    return tuned.eval()


# ---- who it is -----------------------------------------------------------------------------------


def _ask_again(
    request: CheckRequest, report: Path, folder: Path, dtype: torch.dtype, events: Events
) -> tuple[int, int]:
    """(answers with the name, questions): those asked after training without a system prompt.

    Raises ModelError where more than _MAY_MISS fewer answers give the name than did then.
    """
    found = read_json_object(report)
    try:
        given = found["identity"]
        identity = Identity(given["name"], given.get("author"), given.get("persona"))
        pairs = [a for a in found["answers"] if a["context"] == "none"]
        pairs = pairs[:: -(-len(pairs) // _ASKED) or 1]
        before = sum(bool(a["recalled"]) for a in pairs)
        questions = [Conversation((Message("user", a["question"]),)) for a in pairs]
    except (KeyError, TypeError, ValueError) as error:
        text = tr("{path} is no report of a renaming ({reason}), so it was not asked who it is.")
        events.emit(Note(text.format(path=report, reason=error), "warning"))
        return 0, 0
    answers = Talk(_load(folder, request, dtype), events).answers(questions, "check")
    grader = IdentityGrader(identity, ())
    rows = zip(answers, questions, strict=True)
    recalled = sum(grader.grade(text, q.messages[-1].text).recalled for text, q in rows)
    if recalled < before - _MAY_MISS:
        raise ModelError(
            tr(
                "The merged model gives its name {name} in {now} of {n} answers, with the adapter it "
                "was {before}. It was thrown away."
            ).format(
                name=json.dumps(identity.name, ensure_ascii=False),
                now=recalled,
                n=len(pairs),
                before=before,
            )
        )
    text = tr(
        "Asked who it is: {now} of {n} answers give the name {name}; after training {before}."
    )
    events.emit(Note(text.format(now=recalled, n=len(pairs), name=identity.name, before=before)))
    return recalled, len(pairs)
