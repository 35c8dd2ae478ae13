"""A config explained before any weight is loaded: what is trained, in which steps, memory and time.

The rows, their steps and learning rates come from plan/prepare.py, which the training uses too. Where
the model's tokenizer is on this machine they are exact, else estimated, and said to be. What cannot be
found out becomes a finding; the rest is explained all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any, TypeVar

from whoamai.config import LoraSettings, RunConfig
from whoamai.engine.until_learned import probe_steps, soonest_end
from whoamai.errors import SettingError, WhoamaiError
from whoamai.messages import tr
from whoamai.plan.architecture import Architecture, architecture_of, lora_parameters
from whoamai.plan.choose import Choice, choose
from whoamai.plan.estimated_rows import EstimatedEncoding
from whoamai.plan.explanation import (
    DevicePlan,
    Explanation,
    ModelFacts,
    PackingFacts,
    RowFacts,
    StepFacts,
    StopFacts,
    Trained,
    TrainedPart,
)
from whoamai.plan.local_tokenizer import LocalTokenizer, local_tokenizer
from whoamai.plan.machine import CARDS, Card, Machine, this_machine
from whoamai.plan.name_probe import name_probe
from whoamai.plan.preflight import PreflightFinding, findings_of, not_checked
from whoamai.plan.preflight_facts import Facts
from whoamai.plan.prepare import (
    Demands,
    Prepared,
    demands,
    encoding_for,
    prepare_with,
    step_size,
)
from whoamai.plan.speed import expected_time
from whoamai.plan.words import scale_in_words, scale_of, settings_in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from whoamai.config.reading import LoadedConfig
    from whoamai.data.lint import CheckReport

_T = TypeVar("_T")
_ORDER = {"blocks": 0, "warns": 1, "notes": 2}
# Where the rows are not known: every row as long as may be, and a usual share of targets.
_UNKNOWN_TARGET_SHARE = 0.25


@dataclass(slots=True)
class _Findings:
    """What could not be found out, each once."""

    found: list[PreflightFinding] = field(default_factory=list)

    def attempt(self, kind: str, cure: str, do: Callable[[], _T]) -> _T | None:
        """What `do` returns; None and a finding where it raises what a user can mend."""
        try:
            return do()
        except WhoamaiError as error:
            if str(error) not in {f.text for f in self.found}:
                self.found.append(PreflightFinding(kind, "blocks", str(error), cure))
            return None


def explain(loaded: LoadedConfig) -> Explanation:
    """Explain a config; reads its data, never weights, and nothing from the network."""
    config, findings = loaded.config, _Findings()
    source, work_dir = config.model.pretrained_model_name_or_path, Path(loaded.work_dir)
    mend_model = tr("Name a folder or another model in model.pretrained_model_name_or_path.")
    arch = findings.attempt("model", mend_model, lambda: architecture_of(source))
    machine = findings.attempt(
        "device",
        tr("Set model.device to auto or cpu."),
        lambda: this_machine(config.model.device, work_dir),
    )
    tokenizer = local_tokenizer(source)
    mend_data = tr("Set data.data_path, or mend the data; the rest is explained without it.")
    prepared = findings.attempt("data", mend_data, lambda: _prepared(config, tokenizer))
    wanted = demands(prepared, config) if prepared else None
    choice = choice_for(arch, config, machine, wanted) if arch and machine else None
    facts = _facts(loaded, arch, machine, choice, prepared, tokenizer)
    return explanation_of(
        config,
        name=loaded.name,
        path=str(loaded.path) if loaded.path else None,
        work_dir=str(work_dir),
        arch=arch,
        machine=machine,
        prepared=prepared,
        exact=tokenizer is not None,
        choice=choice,
        findings=(*findings.found, *findings_of(facts)),
        not_checked=not_checked(facts),
    )


def explanation_of(
    config: RunConfig,
    *,
    name: str,
    path: str | None,
    work_dir: str,
    arch: Architecture | None,
    machine: Machine | None,
    prepared: Prepared | None,
    exact: bool,
    choice: Choice | None,
    findings: Iterable[PreflightFinding] = (),
    not_checked: tuple[str, ...] = (),
) -> Explanation:
    """What is known, put together. `exact`: were the rows counted with the model's own tokenizer?"""
    wanted = demands(prepared, config) if prepared else None
    here, cards = None, []
    if arch and machine and choice:
        here = _device_plan(arch, config, machine, choice, wanted, prepared)
    if arch:
        choices = ((card, choice_for(arch, config, card, wanted)) for card in CARDS)
        cards = [_device_plan(arch, config, *one, wanted, prepared) for one in choices]
    return Explanation(
        name=name,
        path=path,
        work_dir=work_dir,
        settings=settings_in_words(config),
        model=_model_facts(arch, config) if arch else None,
        trained=_trained(arch, config) if arch else None,
        rows=_row_facts(prepared, exact) if prepared else None,
        steps=_step_facts(prepared, config) if prepared else None,
        packing=_packing(wanted, config) if wanted else None,
        here=here,
        cards=tuple(cards),
        findings=tuple(sorted(findings, key=lambda found: _ORDER[found.severity])),
        not_checked=not_checked,
        stops=_stop_facts(prepared, config) if prepared else None,
    )


def choice_for(
    arch: Architecture, config: RunConfig, device: Machine | Card, wanted: Demands | None
) -> Choice:
    """What `device` would take; as for rows of max_length where the rows are not known (None)."""
    size, longest = step_size(config), config.data.max_length
    return choose(
        arch,
        config,
        device,
        longest_row=wanted.longest_row if wanted else longest,
        step_tokens=wanted.step_tokens if wanted else size.tokens or longest * (size.rows or 1),
        target_share=wanted.target_share if wanted else _UNKNOWN_TARGET_SHARE,
    )


def _prepared(config: RunConfig, tokenizer: LocalTokenizer | None) -> Prepared:
    if tokenizer is None:
        return prepare_with(config, EstimatedEncoding())
    return prepare_with(config, encoding_for(config, tokenizer.tokenizer, tokenizer.model_type))


# ---- the model and what is trained ---------------------------------------------------------------


def _model_facts(arch: Architecture, config: RunConfig) -> ModelFacts:
    return ModelFacts(
        source=config.model.pretrained_model_name_or_path,
        label=arch.label,
        model_type=arch.model_type,
        parameters=arch.n_parameters,
        layers=arch.layers,
        hidden=arch.hidden,
        vocab=arch.vocab,
        max_positions=arch.max_positions,
        basis=arch.basis,
    )


def _trained(arch: Architecture, config: RunConfig) -> Trained:
    lora = config.lora
    parts = tuple(_parts(arch, lora))
    total = sum(part.parameters for part in parts) if lora else arch.n_parameters
    return Trained(
        method=config.method,
        rank=lora.r if lora else None,
        scale=scale_of(lora) if lora else None,
        parts=parts,
        total=total,
        share=total / arch.n_parameters,
        words=scale_in_words(lora) if lora else (),
    )


def _parts(arch: Architecture, lora: LoraSettings | None) -> Iterator[TrainedPart]:
    if lora is not None:
        for linear, trained in lora_parameters(arch, lora):
            yield TrainedPart(linear.name, linear.n_in, linear.n_out, linear.count, trained)
        return
    for linear in arch.linears:
        yield TrainedPart(linear.name, linear.n_in, linear.n_out, linear.count, linear.parameters)


# ---- rows and steps ------------------------------------------------------------------------------


def _row_facts(prepared: Prepared, exact: bool) -> RowFacts:
    encoded = prepared.encoded
    lengths = encoded.lengths
    basis = (
        tr("counted with the model's tokenizer")
        if exact
        else tr("estimated from the characters: the model's tokenizer is not on this machine")
    )
    return RowFacts(
        exact=exact,
        basis=basis,
        conversations=len(prepared.conversations),
        rows=len(lengths),
        cut=len(encoded.cut),
        left_out=len(encoded.left_out),
        tokens=sum(lengths),
        targets=encoded.n_targets,
        shortest=min(lengths),
        median=median_low(lengths),
        longest=max(lengths),
    )


def _step_facts(prepared: Prepared, config: RunConfig) -> StepFacts:
    schedule, size = prepared.schedule, prepared.step_size
    rows = [len(step) for step in schedule.steps]
    starts = (0, *schedule.epoch_ends)
    saves, limit = tuple(schedule.saves), config.checkpoint.save_total_limit
    return StepFacts(
        size_rows=size.rows,
        size_tokens=size.tokens,
        fewest_rows=min(rows),
        median_rows=median_low(rows),
        most_rows=max(rows),
        per_epoch=tuple(
            end - start for start, end in zip(starts, schedule.epoch_ends, strict=False)
        ),
        total=schedule.total,
        warmup=schedule.warmup,
        peak=schedule.peak,
        lr=tuple(schedule.lr(i) for i in range(schedule.total)),
        saves=saves,
        kept=saves if limit < 0 else saves[-limit:],
        evaluations=tuple(schedule.evaluations),
        questions=len(config.evaluation.evaluation_inputs),
    )


def _stop_facts(prepared: Prepared, config: RunConfig) -> StopFacts | None:
    try:
        asked = name_probe(config, prepared.conversations)
    except SettingError:  # a name that is none: preflight tells it
        return None
    if asked is None:
        return None
    total = prepared.schedule.total
    return StopFacts(
        name=asked.identity.name,
        languages=tuple(asked.rows.items()),
        questions=len(asked.questions(None)),
        recall=asked.rule.recall,
        leak=asked.rule.leak,
        in_a_row=asked.rule.in_a_row,
        probes=probe_steps(total, asked.every),
        soonest=soonest_end(total, asked.every, asked.rule),
    )


def _packing(wanted: Demands, config: RunConfig) -> PackingFacts:
    return PackingFacts(
        shared=config.train.share_prefixes,
        tokens=wanted.tokens,
        computed=wanted.computed,
        saved_share=wanted.saved_share,
        largest_step=wanted.step_tokens,
    )


# ---- memory and time -----------------------------------------------------------------------------


def _device_plan(
    arch: Architecture,
    config: RunConfig,
    device: Machine | Card,
    choice: Choice,
    wanted: Demands | None,
    prepared: Prepared | None,
) -> DevicePlan:
    time = computed = None
    if wanted:
        computed = wanted.computed_at(choice.tokens_per_pass)
    if wanted and prepared and computed and choice.fits:
        time = expected_time(
            arch,
            config,
            device,
            computed_tokens=computed,
            targets=wanted.targets,
            steps=prepared.schedule.total,
            gradient_checkpointing=choice.gradient_checkpointing,
        )
    return DevicePlan(
        name=device.name,
        device_type=device.device_type,
        memory_bytes=device.memory_bytes,
        free_bytes=device.free_bytes,
        needed_bytes=choice.memory.total,
        fits=choice.fits,
        tokens_per_pass=choice.tokens_per_pass,
        gradient_checkpointing=choice.gradient_checkpointing,
        dtype=choice.dtype,
        why=choice.why,
        computed_tokens=computed,
        parts=choice.memory.parts,
        seconds=time.seconds if time else None,
        tokens_per_second=time.tokens_per_second if time else None,
        time_basis=time.basis if time else None,
    )


# ---- preflight -----------------------------------------------------------------------------------


def _facts(
    loaded: LoadedConfig,
    arch: Architecture | None,
    machine: Machine | None,
    choice: Choice | None,
    prepared: Prepared | None,
    tokenizer: LocalTokenizer | None,
) -> Facts:
    """What preflight may look at. A template is known only with the model's own tokenizer."""
    from whoamai.data.templates import ChatTemplate

    encoding: Any = prepared.encoding if prepared else None
    return Facts(
        loaded.config,
        Path(loaded.work_dir),
        encoded=prepared.encoded if prepared else None,
        schedule=prepared.schedule if prepared else None,
        conversations=prepared.conversations if prepared else None,
        template=encoding if isinstance(encoding, ChatTemplate) else None,
        tokenizer=tokenizer.tokenizer if tokenizer else None,
        architecture=arch,
        machine=machine,
        choice=choice,
        data_report=data_report(loaded.config),
    )


def data_report(config: RunConfig) -> CheckReport | None:
    """The data check for this config; None where the files cannot be read at all."""
    from whoamai.data.lint import CheckOptions, check

    data = config.data
    options = CheckOptions(data.name, data.author, old_names=tuple(data.old_names))
    try:
        return check(data.files, options) if data.files else None
    except WhoamaiError:  # told where the rows are read
        return None
