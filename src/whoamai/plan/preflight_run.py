"""Preflight's checks of how it is trained and on what: steps, learning rate, precision, space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whoamai.config import RunConfig
from whoamai.engine.checkpoint import find_checkpoints
from whoamai.messages import tr
from whoamai.plan.architecture import lora_parameters
from whoamai.plan.preflight_facts import Facts, PreflightFinding, finding, places, size
from whoamai.plan.prepare import schedule_for
from whoamai.plan.words import part_name, scale_of

# ---- optimizer steps -----------------------------------------------------------------------------

LEAST_STEPS = 20
_MOST_EPOCHS = 100  # beyond that, more epochs are no cure


def few_steps(facts: Facts) -> Iterator[PreflightFinding]:
    """Fewer than 20 optimizer steps; the cure names values that give enough."""
    assert facts.schedule
    assert facts.encoded
    total, epochs = facts.schedule.total, facts.config.train.max_epochs
    if total >= LEAST_STEPS or not facts.encoded.samples:
        return
    text = tr(
        "{rows:,} rows make {steps} optimizer steps in {epochs} epochs; {least} is the least."
    )
    text = text.format(
        rows=len(facts.encoded.samples), steps=total, epochs=epochs, least=LEAST_STEPS
    )
    if total == epochs:
        text += " " + tr(
            "That is one optimizer step an epoch: all rows together fit into one step ({size})."
        ).format(size=_step_size_text(facts.config))
    cures = [
        tr("{changes}: {steps} steps").format(changes=" ".join(changes), steps=steps)
        for changes, steps in _more_steps(facts.config, facts.encoded.lengths)
    ]
    cure = tr("One of: {cures}.").format(cures="; ".join(cures)) if cures else None
    yield finding("few-steps", text, cure=cure)


def _step_size_text(config: RunConfig) -> str:
    """ "max_length 2,048 × batch_size 1 × accumulative_counts 16 = 32,768 tokens"."""
    data, train = config.data, config.train
    factors = f"batch_size {train.batch_size} × accumulative_counts {train.accumulative_counts}"
    if not data.pack_to_max_length:
        return tr("{factors} = {n:,} rows").format(factors=factors, n=train.rows_or_packs)
    n = data.max_length * train.rows_or_packs
    factors = f"max_length {data.max_length:,} × {factors}"
    return tr("{factors} = {n:,} tokens").format(factors=factors, n=n)


def _more_steps(config: RunConfig, lengths: list[int]) -> Iterator[tuple[list[str], int]]:
    """(settings to change, the steps there would be), of each kind the smallest change that does."""
    train, data = config.train, config.data

    def with_product(n: int) -> dict[str, int]:
        """batch_size × accumulative_counts of at most n; the latter goes first, it is only a factor."""
        if n >= train.batch_size:
            return {"accumulative_counts": n // train.batch_size, "batch_size": train.batch_size}
        return {"accumulative_counts": 1, "batch_size": n}

    n = _largest(train.rows_or_packs - 1, lambda n: _steps(config, lengths, **with_product(n)))
    if n:
        new = with_product(n)
        changes = [
            f"train.{key}={value}" for key, value in new.items() if value != getattr(train, key)
        ]
        yield changes, _steps(config, lengths, **new)
    if data.pack_to_max_length:
        # Not below the longest row: rows are to stay whole.
        shorter = _largest(
            (data.max_length - 1) // 8, lambda n: _steps(config, lengths, max_length=8 * n)
        )
        if shorter and 8 * shorter >= max(lengths):
            found = _steps(config, lengths, max_length=8 * shorter)
            yield [f"data.max_length={8 * shorter}"], found
        unpacked = _steps(config, lengths, pack_to_max_length=False)
        if unpacked >= LEAST_STEPS:
            yield ["data.pack_to_max_length=false"], unpacked
    by_epoch = _steps(config, lengths, max_epochs=1)
    epochs = -(-LEAST_STEPS // by_epoch)
    if train.max_epochs < epochs <= _MOST_EPOCHS:
        found = _steps(config, lengths, max_epochs=epochs)
        if found >= LEAST_STEPS:
            yield [f"train.max_epochs={epochs}"], found


def _largest(most: int, steps: Any) -> int:
    """The largest number from 1 to `most` that gives enough steps (fewer the larger it is); else 0."""
    low, high = 0, max(0, most)
    while low < high:
        middle = (low + high + 1) // 2
        if steps(middle) >= LEAST_STEPS:
            low = middle
        else:
            high = middle - 1
    return low


def _steps(config: RunConfig, lengths: list[int], **changed: Any) -> int:
    """The optimizer steps of the config with these settings changed."""
    of_train = {k: v for k, v in changed.items() if k in type(config.train).model_fields}
    of_data = {k: v for k, v in changed.items() if k in type(config.data).model_fields}
    other = config.model_copy(
        update={
            "train": config.train.model_copy(update=of_train),
            "data": config.data.model_copy(update=of_data),
        }
    )
    return schedule_for(other, lengths).total


# ---- learning rate -------------------------------------------------------------------------------

# Usual peaks for a model 4,096 wide; for an adapter, where lora_alpha = r.
_USUAL_LORA = (5e-5, 5e-4)
_USUAL_FULL = (1e-6, 5e-5)
_WARNS, _BLOCKS = 3, 10  # times outside of the usual


def usual_learning_rates(config: RunConfig, hidden: int) -> tuple[float, float]:
    """The usual peak learning rates, (lowest, highest), for this method and a model `hidden` wide.

    5e-5 to 5e-4 for an adapter with alpha = r on a model 4,096 wide, 1e-6 to 5e-5 for all weights.
    Narrower models take more, in proportion to 1 / width up to ten times (the rule `rename` follows).
    Adam's steps do not depend on the size of a gradient, so what the adapter adds grows with
    lr · alpha / r, and the usual lr falls with alpha / r (rslora: alpha / √r).
    """
    low, high = _USUAL_FULL if config.lora is None else _USUAL_LORA
    scale = scale_of(config.lora) if config.lora else 1.0
    factor = min(10.0, 4096 / hidden) / scale
    return low * factor, high * factor


def learning_rate(facts: Facts) -> Iterator[PreflightFinding]:
    """Warns at 3 times outside of the usual, blocks at 10.

    Too low is refused only by the measure of a wide model: that narrow ones need more is a rule of
    thumb, and a rate that others use is no reason to stop.
    """
    assert facts.architecture
    config, hidden = facts.config, facts.architecture.hidden
    lr = config.train.lr
    low, high = usual_learning_rates(config, hidden)
    above, below = lr / high, low / lr
    if above < _WARNS and below < _WARNS:
        return
    text = tr(
        "train.lr is {lr}; {low} to {high} is usual for {method} on a model {hidden:,} wide{scale}."
    ).format(
        lr=_rate(lr),
        low=_rate(low),
        high=_rate(high),
        method=_method_text(config),
        hidden=hidden,
        scale=_scale_text(config),
    )
    cure = tr("For example train.lr={lr}.").format(lr=_rate((low * high) ** 0.5))
    if above >= _WARNS:
        text += " " + tr("It is {times:.0f} times the highest.").format(times=above)
        severity = "blocks" if above >= _BLOCKS else "warns"
        yield finding("lr-high", text, severity=severity, cure=cure)
    else:
        text += " " + tr("The lowest is {times:.0f} times as much.").format(times=below)
        wide = usual_learning_rates(config, max(hidden, 4096))[0] / lr
        severity = "blocks" if wide >= _BLOCKS else "warns"
        yield finding("lr-low", text, severity=severity, cure=cure)


def _rate(value: float) -> str:
    """ "2e-4", "1.5e-3"; "20" where a rate is no small number."""
    if value >= 0.1:
        return f"{value:g}"
    number, _, power = f"{value:.1e}".partition("e")
    return f"{number.removesuffix('.0')}e{int(power)}"


def _method_text(config: RunConfig) -> str:
    return {"qlora": "QLoRA", "lora": "LoRA", "full": tr("training all weights")}[config.method]


def _scale_text(config: RunConfig) -> str:
    if config.lora is None:
        return ""
    rule = "lora_alpha / √r" if config.lora.variant == "rslora" else "lora_alpha / r"
    return f" ({rule} = {scale_of(config.lora):g})"


# ---- precision -----------------------------------------------------------------------------------

# Their activations exceed float16's largest value, 65,504.
_OVERFLOWING = frozenset(("gemma2", "gemma3", "gemma3_text", "qwen2"))


def float16_overflow(facts: Facts) -> Iterator[PreflightFinding]:
    assert facts.architecture
    arch, config = facts.architecture, facts.config
    if _computed_in(facts) != "float16":
        return
    if arch.dtype != "bfloat16" and arch.model_type not in _OVERFLOWING:
        return
    text = tr(
        "{model} ({model_type}, stored in {stored}) is to be computed in float16, whose largest value "
        "is 65,504: what it computes may exceed that."
    ).format(
        model=arch.label, model_type=arch.model_type, stored=arch.dtype or tr("unknown precision")
    )
    if config.lora is None:
        text += " " + tr("With all weights trained, an overflow spoils all of them.")
    yield finding("fp16-overflow", text, severity="blocks" if config.lora is None else "warns")


def no_bfloat16(facts: Facts) -> Iterator[PreflightFinding]:
    assert facts.machine
    machine = facts.machine
    if _computed_in(facts) == "bfloat16" and machine.device_type == "cuda" and not machine.bfloat16:
        text = tr("model.dtype is bfloat16, and {card} has none.")
        yield finding("no-bfloat16", text.format(card=machine.name))


def _computed_in(facts: Facts) -> str | None:
    """The precision that is computed in, as far as it is known."""
    if facts.choice is not None:
        return facts.choice.dtype
    return None if facts.config.model.dtype == "auto" else facts.config.model.dtype


# ---- the model's limits --------------------------------------------------------------------------


def vocabulary(facts: Facts) -> Iterator[PreflightFinding]:
    """Ids beyond the embedding block where they occur; a tokenizer that only could give some, warns.

    (Gemma 3's small text models come with one token more than their embedding has rows: for images.)
    """
    assert facts.architecture
    assert facts.tokenizer is not None
    rows, n_known = facts.architecture.vocab, len(facts.tokenizer)
    used = _ids_in_use(facts)
    text = tr("The tokenizer knows {known:,} tokens, the model's embedding has {rows:,} rows.")
    text = text.format(known=n_known, rows=rows)
    beyond = {place: i for place, i in used.items() if i >= rows}
    if beyond:
        shown = ", ".join(f"{i} ({place})" for place, i in list(beyond.items())[:3])
        yield finding("vocabulary", text + " " + tr("In use beyond it: {ids}").format(ids=shown))
    elif n_known > rows:
        text += " " + tr("None beyond it is in use here.")
        yield finding("vocabulary", text, severity="warns")


def _ids_in_use(facts: Facts) -> dict[str, int]:
    """The largest token id of each special token and each row."""
    used: dict[str, int] = {}
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        if isinstance(i := getattr(facts.tokenizer, name, None), int):
            used[name] = i
    if facts.encoded is not None:
        for sample, source in zip(facts.encoded.samples, facts.encoded.sources, strict=True):
            used[source] = max(used.get(source, 0), *sample.input_ids)
    return used


def context(facts: Facts) -> Iterator[PreflightFinding]:
    """Rows beyond the model's positions block; a max_length that would let them pass, warns."""
    assert facts.architecture
    limit, longest = facts.architecture.max_positions, facts.config.data.max_length
    if not limit or longest <= limit:
        return
    text = tr("data.max_length is {longest:,}; {model} was made for {limit:,} tokens.")
    text = text.format(longest=longest, model=facts.architecture.label, limit=limit)
    cure = tr("Use data.max_length={limit}.").format(limit=limit)
    rows: list[str] = []
    if facts.encoded is not None:
        pairs = zip(facts.encoded.sources, facts.encoded.lengths, strict=True)
        rows = [source for source, length in pairs if length > limit]
    if rows:
        text += " " + tr("{n:,} rows are longer: {places}").format(n=len(rows), places=places(rows))
    yield finding("context", text, severity="blocks" if rows else "warns", cure=cure)


# ---- memory, disk, folder ------------------------------------------------------------------------

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_CHECKPOINT_BYTES = 12  # of a trained number: itself and AdamW's two averages, in float32


def memory(facts: Facts) -> Iterator[PreflightFinding]:
    assert facts.choice
    assert facts.machine
    choice, machine = facts.choice, facts.machine
    if choice.fits:
        return
    largest = sorted(choice.memory.parts, key=lambda part: -part.bytes)[:3]
    text = tr(
        "Even at {tokens:,} tokens a pass about {needed} are needed ({parts}), and {name} has {free} "
        "free."
    ).format(
        tokens=choice.tokens_per_pass,
        needed=size(choice.memory.total),
        parts=", ".join(f"{part_name(part.name)} {size(part.bytes)}" for part in largest),
        name=machine.name,
        free=size(machine.free_bytes),
    )
    yield finding("memory", text)


def disk(facts: Facts) -> Iterator[PreflightFinding]:
    """Checkpoints and result against the free disk; a merged model afterwards only warns.

    A checkpoint holds what is trained and AdamW's two averages, and there is one more than is kept: the
    oldest goes when the new one is complete.
    """
    assert facts.architecture
    assert facts.machine
    assert facts.schedule
    arch, free = facts.architecture, facts.machine.disk_free
    stored = arch.n_parameters * _BYTES.get(arch.dtype or "", 2)
    if facts.config.lora is None:
        trained, result, merged = arch.n_parameters, stored, 0
    else:
        trained = sum(n for _, n in lora_parameters(arch, facts.config.lora))
        result, merged = 4 * trained, stored
    checkpoint = trained * _CHECKPOINT_BYTES
    if facts.config.evaluation.stop_when_learned:  # each may have a best adapter of its own
        checkpoint += 4 * trained
    kept = max(1, _checkpoints(facts) - (_written(facts.work_dir) if facts.resume else 0))
    needed = kept * checkpoint + result
    text = tr(
        "{needed} are needed for {n} checkpoints of {checkpoint} and the result, {free} are free in "
        "{folder}."
    )
    text = text.format(
        needed=size(needed), n=kept, checkpoint=size(checkpoint), free=size(free),
        folder=facts.work_dir,
    )  # fmt: skip
    if needed > free:
        yield finding("disk", text)
        return
    if needed + merged > free:
        text += " " + tr("A merged model would need {merged} more.").format(merged=size(merged))
        yield finding("disk", text, severity="warns")


def _written(work_dir: Path) -> int:
    """Checkpoints that are there already, and give way to new ones."""
    return len(find_checkpoints(work_dir).paths)


def _checkpoints(facts: Facts) -> int:
    """How many checkpoints there are at once, at most."""
    assert facts.schedule
    written, limit = len(facts.schedule.saves), facts.config.checkpoint.save_total_limit
    return written if limit < 0 else min(written, limit + 1)
