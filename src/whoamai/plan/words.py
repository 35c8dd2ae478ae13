"""A config in words: what each setting is and does, and what is known of an adapter's strength."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from whoamai.config import LoraSettings, RunConfig
from whoamai.messages import tr

if TYPE_CHECKING:  # which needs SettingWords
    from whoamai.plan.explanation import StopFacts, TrainedPart


@dataclass(frozen=True, slots=True)
class SettingWords:
    """One setting: its full name is section.name, or name alone where `section` is "".

    value, default: as a config file has them. about: what it is. more, less: what a higher and a lower
    value does, "" where there is nothing to say.
    """

    section: str
    name: str
    value: Any
    default: Any
    about: str
    more: str
    less: str

    @property
    def is_default(self) -> bool:
        return self.value == self.default


def settings_in_words(config: RunConfig) -> tuple[SettingWords, ...]:
    """Every setting of the config, section by section, with its texts in the current language."""
    return tuple(_settings(config))


def _settings(config: RunConfig) -> Iterator[SettingWords]:
    whole = config.model_dump(mode="json")
    default = RunConfig().model_dump(mode="json")
    plain = []
    for section, field in RunConfig.model_fields.items():
        part = getattr(config, section)
        if isinstance(part, BaseModel):
            for name, setting in type(part).model_fields.items():
                before = (default[section] or {}).get(name)
                yield _words(section, name, setting, whole[section][name], before)
        elif section == "lora":
            yield SettingWords("", "lora", None, "…", _no_adapter(), "", "")
        else:
            plain.append(_words("", section, field, whole[section], default[section]))
    yield from plain


def _words(section: str, name: str, field: FieldInfo, value: Any, default: Any) -> SettingWords:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    more, less = (str(extra.get(key) or "") for key in ("more", "less"))
    about = tr(field.description) if field.description else ""
    # The catalogue has no entry for "": gettext would answer with its own head.
    return SettingWords(section, name, value, default, about, more and tr(more), less and tr(less))


def _no_adapter() -> str:
    return tr("null: there is no adapter, every weight of the model is trained.")


# ---- the adapter's strength ----------------------------------------------------------------------


def scale_of(lora: LoraSettings) -> float:
    """What the adapter's output is multiplied by."""
    return lora.lora_alpha / (lora.r**0.5 if lora.variant == "rslora" else lora.r)


def scale_in_words(lora: LoraSettings) -> tuple[str, ...]:
    """What alpha and r do together: the rule with numbers, the literature, what was measured here.

    Hu et al. 2021, arXiv 2106.09685, section 4.1; Kalajdzievski 2023, arXiv 2312.03732; Biderman et al.
    2024, arXiv 2405.09673; runs of benchmarks/rename_settings.py in benchmarks/NOTES.md.
    """
    rule = tr(
        "Beside each frozen layer W two small matrices A ({r} × in) and B (out × {r}) are trained; the "
        "layer then computes W·x + {scale:g} · B·A·x. The factor is {formula}."
    ).format(r=lora.r, scale=scale_of(lora), formula=_formula(lora))
    learning_rate = tr(
        "r says how much can be learned, alpha how strongly it acts. With AdamW a higher alpha works "
        "much like a higher learning rate, so leave one of the two alone (Hu et al. 2021)."
    )
    return (rule, learning_rate, _about_large_ranks(lora), _forgetting(), *_measured())


def _formula(lora: LoraSettings) -> str:
    if lora.variant == "rslora":
        return f"lora_alpha / √r = {lora.lora_alpha:g} / √{lora.r} = {scale_of(lora):g}"
    return f"lora_alpha / r = {lora.lora_alpha:g} / {lora.r} = {scale_of(lora):g}"


def _about_large_ranks(lora: LoraSettings) -> str:
    if lora.variant == "rslora":
        return tr(
            "Dividing by √r instead of r keeps large ranks from learning more slowly (Kalajdzievski "
            "2023)."
        )
    text = tr(
        "Dividing by r makes large ranks learn more slowly; dividing by √r does not (Kalajdzievski "
        "2023). lora.variant=rslora does that: here {alpha:g} / √{r} = {scale:g}, so lower lr with it."
    )
    scale = lora.lora_alpha / lora.r**0.5
    return text.format(alpha=lora.lora_alpha, r=lora.r, scale=round(scale, 2))


def _forgetting() -> str:
    return tr(
        "Beside training all weights, LoRA learned less and forgot less, in code and mathematics "
        "(Biderman et al. 2024)."
    )


def _measured() -> tuple[str, str]:
    factors = tr(
        "Measured here on the bundled model with r = 32 at one learning rate: factors 0.25, 1, 2 and 4 "
        "all teach the name (99 to 100 %); where a system prompt gives it a role, it is still given in "
        "89, 99, 100 and 99 %; of what was right before, 98.8, 99.8, 99.0 and 98.3 % stay right."
    )
    ranks = tr(
        "At the factor 2, ranks 8, 16 and 64 all teach it; 96.2, 96.9 and 98.1 % stay right. So neither "
        "matters much for a name: the learning rate does (benchmarks/NOTES.md)."
    )
    return factors, ranks


# ---- a run that ends once the name is learned ----------------------------------------------------


def stop_in_words(stops: StopFacts, steps: str) -> tuple[str, str, str]:
    """When it ends; what is asked, after which `steps`; what happens then."""
    if stops.soonest is None:
        text = tr(
            "Once {recall:g}% of the answers give {name} and at most {leak:g}% another name, at {n} "
            "probes in a row in {languages}; with so few steps not before the last."
        )
    else:
        text = tr(
            "Once {recall:g}% of the answers give {name} and at most {leak:g}% another name, at {n} "
            "probes in a row in {languages}; after step {soonest} at the soonest."
        )
    when = text.format(
        recall=stops.recall,
        name=stops.name,
        leak=stops.leak,
        n=stops.in_a_row,
        languages=_languages(stops),
        soonest=stops.soonest,
    )
    text = tr("Probes: {n} questions about who it is, after step {steps}.")
    then = tr(
        "Then the learning rate runs out over a third as many steps as were made, and the adapter of "
        "the best probe is kept."
    )
    return when, text.format(n=stops.questions, steps=steps), then


def _languages(stops: StopFacts) -> str:
    counts = {"zh": tr("Chinese ({n:,} rows)"), "en": tr("English ({n:,} rows)")}
    found = [counts[code].format(n=n) for code, n in stops.languages]
    if not found:
        return tr("Chinese and English, though the data is in neither")
    return (
        found[0]
        if len(found) == 1
        else tr("{one} and {other}").format(one=found[0], other=found[1])
    )


# ---- parts of a model and of the memory ----------------------------------------------------------


def layer_in_words(name: str) -> str:
    """What a linear layer of this name does in the usual models; "" for other names."""
    return {
        "wqkv": tr("attention: query, key and value"),
        "q_proj": tr("attention: query"),
        "k_proj": tr("attention: key"),
        "v_proj": tr("attention: value"),
        "wo": tr("attention: output"),
        "o_proj": tr("attention: output"),
        "w1": tr("feed-forward: gate"),
        "gate_proj": tr("feed-forward: gate"),
        "w3": tr("feed-forward: up"),
        "up_proj": tr("feed-forward: up"),
        "w2": tr("feed-forward: down"),
        "down_proj": tr("feed-forward: down"),
        "output": tr("head: a score for each token of the vocabulary"),
        "lm_head": tr("head: a score for each token of the vocabulary"),
    }.get(name, "")


def layer_formula(part: TrainedPart, rank: int | None) -> str:
    """How the number comes about; dora and pissa train more than r × (in + out) a layer."""
    if rank is None:
        return f"{part.n_in:,} × {part.n_out:,} × {part.count}"
    ends = part.n_in + part.n_out
    pairs, lengths = divmod(part.parameters // part.count, rank * ends)
    text = f"{rank} × ({part.n_in:,} + {part.n_out:,})"
    if lengths:
        text = f"({text} + {lengths:,})"
    return f"{text} × {part.count}" if pairs == 1 else f"{pairs} × {text} × {part.count}"


def part_name(name: str) -> str:
    """A part of the memory in words."""
    return {
        "weights": tr("weights"),
        "quantization": tr("quantization constants"),
        "adapter": tr("adapter"),
        "gradients": tr("gradients"),
        "optimizer": tr("optimizer"),
        "activations": tr("activations"),
        "logits": tr("logits"),
        "workspace": tr("workspace"),
        "context": tr("CUDA context"),
    }.get(name, name)
