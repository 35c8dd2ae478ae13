"""What `whoamai explain` prints, and the one screen of it that a training begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from whoamai.messages import joined, tr
from whoamai.plan.explanation import (
    DevicePlan,
    Explanation,
    RowFacts,
    StepFacts,
    Trained,
)
from whoamai.plan.memory import MemoryPart
from whoamai.plan.preflight import PreflightFinding
from whoamai.plan.preflight_kinds import allowed_names, kind
from whoamai.plan.words import (
    SettingWords,
    layer_formula,
    layer_in_words,
    part_name,
    stop_in_words,
)
from whoamai.terminal_numbers import as_written, curve, duration, gib, number, numbers, size
from whoamai.terminal_prose import Prose

_STYLES = {"blocks": "bold red", "warns": "yellow", "notes": "dim"}
_CURVE, _SMALL_CURVE = 8, 3  # lines
_CURVE_WIDTH = 60  # columns at most
_LONG = 12 * 3600  # seconds on a CPU for which one would rather take a card
_NAMES = 31  # columns for the names of settings: the longest has 29 letters
_SHOWN_NUMBERS = 8
_SHOWN_FINDINGS = 3


def print_explanation(console: Console, explanation: Explanation) -> None:
    """Everything: the settings in words, then what they come to, what is to be minded last."""
    console.print(_head(explanation))
    _section(console, tr("What the config says"), _settings(explanation.settings))
    _section(console, tr("The model, and what is trained"), _model(explanation))
    _section(console, tr("Rows and optimizer steps"), _rows_and_steps(explanation, console.width))
    _section(console, tr("Memory and time"), _memory_and_time(explanation))
    _section(console, tr("Before it starts"), _findings(explanation))


def print_plan(console: Console, explanation: Explanation) -> None:
    """One screen of the same, at most 24 lines at a width of 100."""
    console.print(_head(explanation))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, shown in _plan_lines(explanation, console.width):
        table.add_row(label, shown)
    console.print(table)
    found = [f for f in explanation.findings if f.severity != "notes"]
    for finding in found[:_SHOWN_FINDINGS]:
        console.print(_finding_in_one_line(finding, console.width))
    if len(found) > _SHOWN_FINDINGS:
        text = tr("… and {n} more: whoamai explain shows them and the cures.")
        console.print(Text(text.format(n=len(found) - _SHOWN_FINDINGS), style="yellow"))


def _section(console: Console, title: str, parts: Iterable[RenderableType]) -> None:
    """A heading and its parts below it; an empty part is an empty line."""
    console.print()
    console.print(Text(f"━━ {title}", style="bold"))
    for part in parts:
        console.print(Padding(part, (0, 0, 0, 2), expand=False) if part else "")


def _head(explanation: Explanation) -> Text:
    model = explanation.model.label if explanation.model else "?"
    text = Text(explanation.name, style="bold", overflow="fold")
    text.append(f"\n{model} · {_method(explanation.trained)}", style="not bold")
    return text.append(f" → {explanation.work_dir}", style="not bold dim")


def _method(trained: Trained | None) -> str:
    if trained is None:
        return "?"
    names = {"qlora": "QLoRA", "lora": "LoRA", "full": tr("every weight")}
    return names[trained.method]


# ---- settings ------------------------------------------------------------------------------------


def _settings(settings: Sequence[SettingWords]) -> Iterator[RenderableType]:
    yield Prose(
        tr(
            "● differs from the default. ↑ what a higher value does, ↓ a lower one. Any of them can be "
            "set on the command line, for example train.lr=1e-4."
        ),
        style="dim",
    )
    for section in dict.fromkeys(s.section for s in settings):
        yield ""
        yield Text(section or tr("the run"), style="bold cyan")
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1, style="yellow")
        table.add_column(width=_NAMES, overflow="fold")
        table.add_column(overflow="fold")
        for setting in settings:
            if setting.section == section:
                mark = "" if setting.is_default else "●"
                table.add_row(mark, _setting_value(setting), _setting_words(setting))
        yield table


def _setting_value(setting: SettingWords) -> Text:
    text = Text(setting.name, style="cyan").append("\n")
    return text.append(as_written(setting.value), style="default" if setting.is_default else "bold")


def _setting_words(setting: SettingWords) -> Group:
    arrows = (("↑", setting.more), ("↓", setting.less))
    return Group(
        Prose(setting.about),
        *(Prose(f"{arrow} {words}", "dim", hanging=2) for arrow, words in arrows if words),
    )


# ---- the model -----------------------------------------------------------------------------------


def _model(explanation: Explanation) -> Iterator[RenderableType]:
    model, trained = explanation.model, explanation.trained
    if model is None or trained is None:
        yield Prose(tr("Not known: see the findings below."), "yellow")
        return
    text = tr(
        "{label} ({type}): {n:,} parameters, {layers} layers, {hidden:,} wide, {vocab:,} tokens in its "
        "vocabulary. Known from: {basis}."
    )
    yield Prose(
        text.format(
            label=model.label,
            type=model.model_type,
            n=model.parameters,
            layers=model.layers,
            hidden=model.hidden,
            vocab=model.vocab,
            basis=model.basis,
        )
    )
    yield ""
    yield Prose(_trained_in_words(trained), style="bold")
    yield _trained_table(trained)
    for sentence in trained.words:
        yield Prose(f"· {sentence}", hanging=2)


def _trained_in_words(trained: Trained) -> str:
    if trained.rank is None:
        return tr("Every weight is trained: {n:,} numbers.").format(n=trained.total)
    text = tr(
        "The model stays as it is; {n:,} numbers are trained beside it, which is {share:.2%} of it. For "
        "each kind of linear layer: r × (in + out) × how many there are. (2 × r × width is right only "
        "where in = out.)"
    )
    return text.format(n=trained.total, share=trained.share)


def _trained_table(trained: Trained) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", overflow="fold")
    table.add_column(justify="right", overflow="fold")
    table.add_column(justify="right", overflow="fold")
    table.add_column()
    for part in trained.parts:
        words = Prose(layer_in_words(part.name), "dim")
        table.add_row(part.name, layer_formula(part, trained.rank), f"= {part.parameters:,}", words)
    if trained.rank is None:
        rest = trained.total - sum(part.parameters for part in trained.parts)
        table.add_row(tr("embeddings, head, norms, biases"), "", f"= {rest:,}")
    table.add_row(tr("together"), "", f"= {trained.total:,}", style="bold")
    return table


# ---- rows and steps ------------------------------------------------------------------------------


def _rows_and_steps(explanation: Explanation, width: int) -> Iterator[RenderableType]:
    rows, steps, packing = explanation.rows, explanation.steps, explanation.packing
    if rows is None or steps is None or packing is None:
        text = tr("Not known, because the data could not be read: see the findings below.")
        yield Prose(text, "yellow")
        return
    yield Prose(_rows_in_words(rows))
    yield Prose(_lengths_in_words(rows))
    yield ""
    yield Prose(_step_size_in_words(steps))
    yield Prose(_steps_in_words(steps), style="bold")
    yield Prose(_learning_rate_in_words(steps))
    yield _curve(steps, width - 14, _CURVE)  # the scale stands beside it
    yield Prose(_saves_in_words(steps))
    yield Prose(_questions_in_words(steps))
    if stops := explanation.stops:
        yield Prose(joined(tr("It ends early:"), *stop_in_words(stops, numbers(stops.probes))))
    yield ""
    yield Prose(_sharing_in_words(explanation))


def _rows_in_words(rows: RowFacts) -> str:
    return tr(
        "{n:,} conversations make {rows:,} rows; {cut:,} were cut to max_length, {left_out:,} left out."
    ).format(n=rows.conversations, rows=rows.rows, cut=rows.cut, left_out=rows.left_out)


def _lengths_in_words(rows: RowFacts) -> str:
    return tr(
        "Lengths in tokens: shortest {shortest:,}, median {median:,}, longest {longest:,}; {tokens:,} "
        "in all, {targets:,} of them trained on ({share:.0%}). They are {basis}."
    ).format(
        shortest=rows.shortest,
        median=rows.median,
        longest=rows.longest,
        tokens=rows.tokens,
        targets=rows.targets,
        share=rows.targets / rows.tokens,
        basis=rows.basis,
    )


def _step_size_in_words(steps: StepFacts) -> str:
    if steps.size_tokens is not None:
        return tr(
            "One optimizer step takes whole rows, in shuffled order, up to max_length × batch_size × "
            "accumulative_counts = {tokens:,} tokens: {fewest} to {most} rows here, mostly {median}."
        ).format(
            tokens=steps.size_tokens,
            fewest=steps.fewest_rows,
            most=steps.most_rows,
            median=steps.median_rows,
        )
    return tr(
        "One optimizer step takes batch_size × accumulative_counts = {rows:,} rows, in shuffled order."
    ).format(rows=steps.size_rows)


def _steps_in_words(steps: StepFacts) -> str:
    epochs = " + ".join(f"{n:,}" for n in steps.per_epoch[:_SHOWN_NUMBERS])
    if len(steps.per_epoch) > _SHOWN_NUMBERS:
        epochs += " + …"
    if len(steps.per_epoch) == 1:
        return tr("{total:,} optimizer steps in one epoch.").format(total=steps.total)
    return tr("{epochs} steps in {n} epochs = {total:,} optimizer steps.").format(
        epochs=epochs, n=len(steps.per_epoch), total=steps.total
    )


def _learning_rate_in_words(steps: StepFacts) -> str:
    return tr(
        "The learning rate rises over {warmup} steps to {peak}, then falls as half a cosine; the last "
        "step has {last}."
    ).format(
        warmup=steps.warmup, peak=number(steps.peak), last=number(float(f"{steps.lr[-1]:.1e}"))
    )


def _saves_in_words(steps: StepFacts) -> str:
    text = tr("Saved after step {saves}; at the end these are kept: {kept}.")
    return text.format(saves=numbers(steps.saves), kept=numbers(steps.kept))


def _questions_in_words(steps: StepFacts) -> str:
    if not steps.evaluations:
        return tr("No questions are asked on the way (evaluation.evaluation_inputs is empty).")
    text = tr("Its {n} questions are asked after step {steps} (0: before the first).")
    return text.format(n=steps.questions, steps=numbers(steps.evaluations))


def _sharing_in_words(explanation: Explanation) -> str:
    packing = explanation.packing
    assert packing is not None
    if not packing.shared:
        return tr("Beginnings that rows share are computed again for each (share_prefixes: false).")
    words = tr(
        "Rows of one step that begin alike (system prompt, question) share that beginning: of "
        "{tokens:,} tokens in all epochs {computed:,} are computed, {saved:.0%} are saved. Rows never "
        "see one another."
    ).format(tokens=packing.tokens, computed=packing.computed, saved=packing.saved_share)
    here = explanation.here
    if here is None or here.computed_tokens in (None, packing.computed):
        return words
    in_parts = tr(
        "Here a step is computed in parts of {n:,} tokens, and that makes it {computed:,}."
    )
    return joined(words, in_parts.format(n=here.tokens_per_pass, computed=here.computed_tokens))


def _curve(steps: StepFacts, width: int, height: int) -> Text:
    columns = min(_CURVE_WIDTH, width)
    return Text("\n".join(curve(steps.lr, columns, height)), no_wrap=True)


# ---- memory and time -----------------------------------------------------------------------------


def _memory_and_time(explanation: Explanation) -> Iterator[RenderableType]:
    here, cards = explanation.here, explanation.cards
    if here is None and not cards:
        yield Prose(tr("Not known: see the findings below."), "yellow")
        return
    if explanation.rows is None:
        text = tr("The data is not known; counted as for rows of max_length.")
        yield Prose(text, "yellow")
    if here is not None:
        yield Prose(_device_in_words(here), style="" if here.fits else "yellow")
        if _is_slow(here):
            text = tr("There is no GPU here. The table below says how long common cards take.")
            yield Prose(text, "yellow")
    shown = _worth_showing(here, cards)
    if shown is not None:
        yield ""
        text = tr("By part, on {device}:").format(device=shown.name)
        yield Text(text, style="bold")
        yield _parts_table(shown)
        yield Prose(shown.why)
        if shown.time_basis:
            yield Prose(tr("Time: {basis}").format(basis=shown.time_basis), "dim")
    if cards:
        yield ""
        yield _cards_table(cards)
        if too_small := [card for card in cards if not card.fits]:
            yield Prose(too_small[-1].why, "dim")


def _device_in_words(device: DevicePlan) -> str:
    text = (
        tr("Here, {name}: needs {needed} of {free} GiB free; it fits.")
        if device.fits
        else tr("Here, {name}: needs {needed} of {free} GiB free; it does NOT fit.")
    )
    text = text.format(
        name=device.name, needed=gib(device.needed_bytes), free=gib(device.free_bytes)
    )
    if device.seconds is None:
        return text
    return joined(text, tr("Expected time: {time}.").format(time=duration(device.seconds)))


def _is_slow(device: DevicePlan) -> bool:
    return device.device_type == "cpu" and (device.seconds or 0) > _LONG


def _worth_showing(here: DevicePlan | None, cards: Sequence[DevicePlan]) -> DevicePlan | None:
    """The device whose memory is told by part: this one, or the smallest card that does it."""
    good = (d for d in (here, *cards) if d is not None and d.fits and not _is_slow(d))
    return next(good, here)


def _parts_table(device: DevicePlan) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan")
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for part in _held(device):
        table.add_row(part_name(part.name), size(part.bytes), Prose(part.why, "dim"))
    table.add_row(tr("together"), size(device.needed_bytes), "", style="bold")
    return table


def _held(device: DevicePlan) -> list[MemoryPart]:
    """The parts that hold anything."""
    return [part for part in device.parts if part.bytes]


def _cards_table(cards: Sequence[DevicePlan]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(tr("card"), overflow="fold")
    table.add_column(tr("memory"), justify="right", no_wrap=True)
    table.add_column(tr("needed"), justify="right", no_wrap=True)
    table.add_column(tr("tokens at once"), justify="right", overflow="fold")
    table.add_column(tr("checkpointing"), overflow="fold")
    table.add_column(tr("time"), justify="right")
    for card in cards:
        fits = (
            (f"{card.tokens_per_pass:,}", tr("on") if card.gradient_checkpointing else tr("off"))
            if card.fits
            else (tr("does not fit"), "")
        )
        time = duration(card.seconds) if card.seconds is not None else "–"
        table.add_row(
            card.name,
            f"{gib(card.memory_bytes)} GiB",
            f"{gib(card.needed_bytes)} GiB",
            *fits,
            time,
            style="" if card.fits else "dim",
        )
    return table


# ---- findings ------------------------------------------------------------------------------------


def _findings(explanation: Explanation) -> Iterator[RenderableType]:
    if not explanation.findings:
        yield Text(tr("Nothing to complain about."), style="bold green")
    yield _findings_table(explanation.findings)
    blocking = [f.kind for f in explanation.findings if f.severity == "blocks"]
    if blocking:
        text = tr("Training would be refused because of: {kinds}.")
        yield Prose(text.format(kinds=", ".join(dict.fromkeys(blocking))), "bold red")
    if passable := [name for name in dict.fromkeys(blocking) if name in allowed_names()]:
        text = tr("{option} trains all the same.")
        yield Prose(text.format(option=f"allow='[{', '.join(passable)}]'"), "dim")
    if explanation.not_checked:
        text = tr("Not looked for, as too little is known yet: {kinds}.")
        kinds = tr("; ").join(kind(name).title for name in explanation.not_checked)
        yield Prose(text.format(kinds=kinds), "dim")


def _findings_table(findings: Sequence[PreflightFinding]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings:
        text = Prose(f"{finding.text}  [{finding.kind}]")
        cure = Prose(f"→ {finding.cure}", "cyan", hanging=2)
        table.add_row(_severity(finding), Group(text, cure))
    return table


def _severity(finding: PreflightFinding) -> Text:
    names = {"blocks": tr("blocks"), "warns": tr("warning"), "notes": tr("note")}
    return Text(names[finding.severity], style=_STYLES[finding.severity])


def _finding_in_one_line(finding: PreflightFinding, width: int) -> Text:
    text = _severity(finding).append(f"  {finding.text}", style="not bold default")
    text.truncate(width, overflow="ellipsis")
    return text


# ---- the one screen ------------------------------------------------------------------------------


def _plan_lines(explanation: Explanation, width: int) -> Iterator[tuple[str, RenderableType]]:
    if trained := explanation.trained:
        yield tr("what is trained"), Prose(_trained_shortly(trained))
    if rows := explanation.rows:
        yield tr("data"), Prose(_rows_shortly(rows))
    if steps := explanation.steps:
        yield tr("steps"), Prose(_steps_in_words(steps))
        yield "", Prose(_learning_rate_in_words(steps))
        yield "", _curve(steps, width - 30, _SMALL_CURVE)
        if explanation.path:  # only a run by a config saves and asks on the way
            yield tr("checkpoints"), Prose(_saves_in_words(steps))
            yield tr("questions"), Prose(_questions_in_words(steps))
    if stops := explanation.stops:
        yield tr("ends"), Prose(stop_in_words(stops, numbers(stops.probes))[0])
    if explanation.packing:
        yield tr("sharing"), Prose(_sharing_shortly(explanation))
    if here := explanation.here:
        yield tr("memory"), Prose(_device_in_words(here), style="" if here.fits else "bold red")
        yield "", Prose(_parts_shortly(here), style="dim")
        yield tr("therefore"), Prose(here.why)


def _trained_shortly(trained: Trained) -> str:
    if trained.rank is None:
        return tr("every weight: {n:,} numbers").format(n=trained.total)
    text = tr("{n:,} numbers beside the model, {share:.2%} of it; rank {r}, times {scale:g}")
    return text.format(n=trained.total, share=trained.share, r=trained.rank, scale=trained.scale)


def _rows_shortly(rows: RowFacts) -> str:
    text = tr("{rows:,} rows of {shortest:,} to {longest:,} tokens{how}; {targets:.0%} trained on")
    return text.format(
        rows=rows.rows,
        shortest=rows.shortest,
        longest=rows.longest,
        how="" if rows.exact else tr(" (estimated)"),
        targets=rows.targets / rows.tokens,
    )


def _sharing_shortly(explanation: Explanation) -> str:
    packing = explanation.packing
    assert packing is not None
    here = explanation.here
    computed = here.computed_tokens if here and here.computed_tokens else packing.computed
    text = tr("{computed:,} of {tokens:,} tokens are computed; the rest is shared ({saved:.0%})")
    saved = 1 - computed / packing.tokens
    return text.format(computed=computed, tokens=packing.tokens, saved=saved)


def _parts_shortly(device: DevicePlan) -> str:
    shown = (f"{part_name(part.name)} {size(part.bytes)}" for part in _held(device))
    return " + ".join(shown)
