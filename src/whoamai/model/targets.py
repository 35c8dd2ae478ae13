"""Which layers of a model get an adapter, by their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from torch import nn

from whoamai.errors import ModelError, SettingError
from whoamai.messages import tr
from whoamai.model.quantize import n_weights

# What transformers calls the layer that chooses a token's experts. Training it without the loss that
# keeps the experts evenly used spoils the choice, so it is left alone unless it is named.
ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
# In these classes' fast kernels the weights of these layers are read past the layer, so an adapter on
# it would do nothing; peft refuses them.
_READ_PAST = frozenset({"out_proj", "conv1d"})
_READ_PAST_IN = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})


def linear_layers(model: Any) -> set[str]:
    """Last parts of the names of the layers "all-linear" stands for ("q_proj", "down_proj", …).

    All linear ones (4-bit ones and GPT-2's Conv1D too) but the head, the routers of experts, and those
    that Mamba-like classes read past.
    """
    return _last_parts(model) - ROUTERS - layers_read_past(model)


def layers_read_past(model: Any) -> set[str]:
    """Linear layers on which an adapter is not possible, because the class does not call them."""
    if getattr(getattr(model, "config", None), "model_type", None) not in _READ_PAST_IN:
        return set()
    return _last_parts(model) & _READ_PAST


def chosen_layers(
    model: Any, wanted: Literal["all-linear"] | Sequence[str], *, adapt_head: bool
) -> list[str]:
    """The names peft is to look for: last parts of names, and the whole name of the head.

    Raises SettingError for names that are no linear layer, with the nearest ones, and where the head
    shares its weights with the embeddings; ModelError where the model has no linear layers.
    """
    everything = linear_layers(model)
    if not everything:
        raise ModelError(tr("The model has no linear layers an adapter could be put on."))
    names = everything if wanted == "all-linear" else set(wanted)
    problems = [*_unknown(model, sorted(names - everything))]
    if not names:
        problems.append(
            tr(
                "lora.target_modules is empty. This model has: {there}. Or write: all-linear"
            ).format(there=", ".join(sorted(everything)))
        )
    if adapt_head and is_tied(model):
        problems.append(
            tr(
                "lora.adapt_head: true is not possible with this model: its head and its embeddings are "
                "the same weights, so an adapter on the head could not be merged without changing the "
                "embeddings. Set lora.adapt_head: false"
            )
        )
    if problems:
        raise SettingError("\n".join(problems))
    return sorted(names | {head_name(model) or ""} if adapt_head else names)


def adapted_modules(model: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """The layers these names stand for, as peft finds them, by their whole names."""
    return {
        whole: module
        for whole, module in model.named_modules()
        if any(_stands_for(name, whole) for name in names)
    }


def head_name(model: Any) -> str | None:
    """The whole name of the layer that makes logits ("lm_head"), where there is one."""
    head = model.get_output_embeddings()
    return next((name for name, module in model.named_modules() if module is head), None)


def is_tied(model: Any) -> bool:
    """Are head and embeddings the same weights?"""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and embeddings is not None and head.weight is embeddings.weight


def is_transposed(module: nn.Module) -> bool:
    """Does the layer hold its weight as in × out? GPT-2's Conv1D does; linear layers hold out × in."""
    return type(module).__name__ == "Conv1D"


def smaller_side(module: Any) -> int:
    """The smaller of a layer's numbers of inputs and outputs: the rank its weight can have at most."""
    if is_transposed(module):
        return min(module.weight.shape)
    return min(module.in_features, module.out_features)


def fused_experts(model: Any) -> dict[str, int]:
    """Names and sizes of experts that are held in one tensor a layer: no linear layers at all.

    Neither adapters nor nf4 reach them.
    """
    return {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() == 3 and "experts" in name and "lora_" not in name
    }


def adapter_notes(model: Any) -> list[str]:
    """What a person should know about where an adapter does not go, a sentence each."""
    notes = []
    if experts := fused_experts(model):
        everything = sum(
            n_weights(p) for name, p in model.named_parameters() if "lora_" not in name
        )
        text = tr(
            "{share:.0%} of the model's numbers are experts held in one tensor a layer ({example}). An "
            "adapter does not reach them and nf4 does not shorten them: they stay as they are."
        )
        share = sum(experts.values()) / everything
        notes.append(text.format(share=share, example=next(iter(experts))))
    if past := layers_read_past(model):
        text = tr(
            "The layers {names} get no adapter: models of the type {type} do not call them, they read "
            "their weights."
        )
        names = ", ".join(sorted(past))
        notes.append(text.format(names=names, type=model.config.model_type))
    routers = _last_parts(model) & ROUTERS
    if routers:
        text = tr(
            "The layers that choose a token's experts ({names}) get no adapter, unless they are named "
            "in lora.target_modules."
        )
        notes.append(text.format(names=", ".join(sorted(routers))))
    return notes


def _linear(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """All linear layers but the head, by their whole names."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if module is not head and (isinstance(module, nn.Linear) or is_transposed(module)):
            yield name, module


def _last_parts(model: Any) -> set[str]:
    return {name.rpartition(".")[2] for name, _ in _linear(model)}


def _unknown(model: Any, names: Sequence[str]) -> Iterator[str]:
    """A line for each name that stands for no linear layer, for the head, or for what is not called."""
    linear = {name for name, _ in _linear(model)}
    past = layers_read_past(model)
    there = sorted({name.rpartition(".")[2] for name in linear} - past)
    for name in names:
        found = adapted_modules(model, [name]).keys()
        if name.rpartition(".")[2] in past:
            text = tr(
                "lora.target_modules: models of the type {type} do not call {name}, so an adapter on it "
                "would do nothing. This model has: {there}"
            )
            there_text = ", ".join(there)
            yield text.format(type=model.config.model_type, name=name, there=there_text)
        elif found == {head_name(model)}:
            yield tr(
                "lora.target_modules: {name} is the head. To adapt it, set lora.adapt_head: true"
            ).format(name=name)
        elif not found:
            near = get_close_matches(name, there, n=3)
            text = tr("lora.target_modules: there is no layer {name}. This model has: {there}")
            hint = " " + tr("Did you mean {near}?").format(near=", ".join(near)) if near else ""
            yield text.format(name=name, there=", ".join(there)) + hint
        elif not found - {head_name(model)} <= linear:
            text = tr("lora.target_modules: {name} is no linear layer. This model has: {there}")
            yield text.format(name=name, there=", ".join(there))


def _stands_for(name: str, whole: str) -> bool:
    return whole == name or whole.endswith(f".{name}")
