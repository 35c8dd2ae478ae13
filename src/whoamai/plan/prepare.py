"""From a config to what is trained on and when: the one way, for `train` and for `explain`.

data files ─▶ conversations ─▶ rows of token ids ─▶ which rows make which optimizer step
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from whoamai.config import RunConfig
from whoamai.data.encode import Encoded, Encoding, encode
from whoamai.data.packing import StepShape, shape_of_step
from whoamai.data.readers import read_conversations
from whoamai.data.replace import replace_names
from whoamai.data.sources import find_sources
from whoamai.data.steps import StepSize
from whoamai.data.templates import ChatTemplate
from whoamai.data.xtuner_encoding import XTunerEncoding
from whoamai.engine.schedule import Schedule, make_schedule
from whoamai.errors import DataError, SettingError
from whoamai.events import Events, Note
from whoamai.messages import joined, tr
from whoamai.samples import Conversation

_SHOWN_PLACES = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """The conversations read, their rows, the steps they make, and what wrote them."""

    conversations: Sequence[Conversation]
    encoded: Encoded
    schedule: Schedule
    step_size: StepSize
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Demands:
    """What the rows ask of a device.

    longest_row: tokens of the longest row. step_tokens: tokens computed in the largest optimizer step.
    tokens, computed, targets: over the whole run; `computed` counts what rows of a step share once,
    unless train.share_prefixes is off, where each step is computed at once. Tokens are those fed in: of
    each row all but its last target and what is behind it.
    """

    longest_row: int
    step_tokens: int
    tokens: int
    computed: int
    targets: int
    shapes: tuple[StepShape, ...] = field(default=(), repr=False)

    def computed_at(self, tokens_per_pass: int) -> int:
        """Tokens computed over the whole run where so many go through the model at once.

        What rows share is computed again in each pass that a step is cut into.
        """
        return sum(shape.computed(tokens_per_pass) for shape in self.shapes)

    @property
    def target_share(self) -> float:
        """Targets for each computed token."""
        return self.targets / self.computed

    @property
    def saved_share(self) -> float:
        """Share of the tokens that need not be computed, because rows of a step share them."""
        return 1 - self.computed / self.tokens


def prepare(
    config: RunConfig, tokenizer: Any, model_type: str | None, events: Events | None = None
) -> Prepared:
    """Read the data, write it as token ids and decide the steps; says what was cut and left out.

    Raises DataError where the data cannot be read or leaves nothing to train on, SettingError for an
    unknown template.
    """
    return prepare_with(config, encoding_for(config, tokenizer, model_type), events)


def prepare_with(config: RunConfig, encoding: Encoding, events: Events | None = None) -> Prepared:
    """The same with an encoding that exists already."""
    conversations = read_data(config)
    data = config.data
    encoded = encode(conversations, encoding, max_length=data.max_length, system=data.system)
    _tell(encoded, config, events)
    if not encoded.samples:
        raise DataError(
            tr(
                "Of {n} conversations none has a reply to train on within {max_length} tokens. Raise "
                "data.max_length, or look at the data with whoamai data check."
            ).format(n=len(conversations), max_length=data.max_length)
        )
    size = step_size(config)
    schedule = schedule_for(config, encoded.lengths)
    return Prepared(conversations, encoded, schedule, size, encoding)


def read_data(config: RunConfig) -> Sequence[Conversation]:
    """The conversations of data.data_path, with {{name}} and {{author}} filled in."""
    data = config.data
    if not data.files:
        raise SettingError(
            tr(
                "data.data_path is empty: nothing to train on. Name a file, for example "
                "data.data_path=my_data.jsonl; whoamai data make writes one."
            )
        )
    try:
        find_sources(data.files)
    except DataError as error:
        cure = tr(
            "Set data.data_path to your conversations; whoamai data make --name NAME FILE writes some."
        )
        raise DataError(joined(str(error), cure)) from None
    conversations = read_conversations(data.files, seed=config.train.seed, allow=config.allow)
    known = {"name": data.name, "author": data.author}
    values = {key: value for key, value in known.items() if value}
    return replace_names(conversations, {}, values).conversations if values else conversations


def encoding_for(config: RunConfig, tokenizer: Any, model_type: str | None) -> Encoding:
    """What writes conversations as token ids: the chat template, or XTuner's way."""
    data = config.data
    if data.encoding == "whoamai":
        return ChatTemplate(tokenizer, name=data.prompt_template, model_type=model_type)
    if data.prompt_template is None:
        raise SettingError(
            tr(
                "data.encoding xtuner needs XTuner's name of the template: set data.prompt_template, "
                "for example internlm2_chat."
            )
        )
    return XTunerEncoding(tokenizer, data.prompt_template)


def step_size(config: RunConfig) -> StepSize:
    """How much an optimizer step takes: tokens where rows are packed, else rows."""
    counted = config.train.rows_or_packs
    if config.data.pack_to_max_length:
        return StepSize(tokens=config.data.max_length * counted)
    return StepSize(rows=counted)


def schedule_for(config: RunConfig, lengths: Sequence[int]) -> Schedule:
    """The schedule of this config for rows of these lengths (tokens)."""
    train = config.train
    asks = bool(config.evaluation.evaluation_inputs)
    return make_schedule(
        lengths,
        step_size(config),
        epochs=train.max_epochs,
        seed=train.seed,
        lr=train.lr,
        warmup_ratio=train.warmup_ratio,
        save_steps=config.checkpoint.save_steps,
        evaluation_freq=config.evaluation.evaluation_freq if asks else None,
    )


def demands(prepared: Prepared, config: RunConfig) -> Demands:
    """What the steps of this run ask of a device. Expects at least one row."""
    samples, steps = prepared.encoded.samples, prepared.schedule.steps
    share = config.train.share_prefixes
    shapes = tuple(shape_of_step([samples[i] for i in step], share=share) for step in steps)
    at_once = [shape.computed(sum(shape.lengths)) for shape in shapes]
    targets = [sum(sample.is_target[1:]) for sample in samples]
    return Demands(
        longest_row=max(max(shape.lengths, default=1) for shape in shapes),
        step_tokens=max(at_once),
        tokens=sum(sum(shape.lengths) for shape in shapes),
        computed=sum(at_once),
        targets=sum(targets[i] for step in steps for i in step),
        shapes=shapes,
    )


def _tell(encoded: Encoded, config: RunConfig, events: Events | None) -> None:
    if events is None:
        return
    longest = config.data.max_length
    if encoded.cut:
        text = tr(
            "{n} rows were longer than {max_length} tokens and were cut after their last whole turn "
            "that fits: {places}"
        )
        places = _places(encoded.cut)
        text = text.format(n=len(encoded.cut), max_length=longest, places=places)
        events.emit(Note(text, "warning"))
    if encoded.left_out:
        text = tr("{n} rows were left out: no trained reply within {max_length} tokens: {places}")
        places = _places(encoded.left_out)
        text = text.format(n=len(encoded.left_out), max_length=longest, places=places)
        events.emit(Note(text, "warning"))


def _places(sources: Sequence[str]) -> str:
    shown = ", ".join(sources[:_SHOWN_PLACES])
    return shown + (", …" if len(sources) > _SHOWN_PLACES else "")
