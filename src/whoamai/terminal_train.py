"""What a person sees of a training: its plan, its data, a bar or lines, the answers on the way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from textwrap import indent
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.text import Text

from whoamai import events as ev
from whoamai.messages import joined, tr
from whoamai.terminal import TerminalListener
from whoamai.terminal_numbers import duration
from whoamai.terminal_plan import print_plan

if TYPE_CHECKING:
    from whoamai.recipes.train import Trained

_SHOWN_CHARACTERS = 600  # of the sample row, and of an answer
# What would steer the terminal, as the signs for it: ␛ for the escape that begins a colour.
_SIGNS = {i: 0x2400 + i for i in range(0x20) if chr(i) not in "\t\n"} | {0x7F: "␡"}
_SIGNS |= dict.fromkeys(range(0x80, 0xA0), "\ufffd")


class LineListener:
    """One line each for stages, notes and every `interval` steps: for log files and pipes."""

    def __init__(self, console: Console, interval: int) -> None:
        self._console = console
        self._interval = interval
        self._seconds = 0.0
        self._steps = 0

    def __call__(self, event: ev.Event) -> None:
        match event:
            case ev.Stage(text=text):
                self._line(f"[{text}]")
            case ev.Note(text=text):
                self._line(text)
            case ev.Progress(stage="train", done=done, total=total, values=values) if values:
                self._seconds += values["step_seconds"]
                self._steps += 1
                if done % self._interval == 0 or done in (1, total):
                    self._line(self._step(done, total, values))
            case ev.Result(name=name, data=data):
                print_result(self._console, name, data)

    def _step(self, done: int, total: int, values: Mapping[str, float]) -> str:
        shown = {
            "loss": f"{values['loss']:.4f}",
            "grad_norm": f"{values['grad_norm']:.3f}",
            "lr": f"{values['lr']:.2e}",
            "tokens/s": f"{values['tokens_per_s']:,.0f}",
            "computed/s": f"{values['computed_per_s']:,.0f}",
            "time": f"{values['step_seconds']:.2f}",
            "data_time": f"{values['data_seconds']:.3f}",
        }
        if "memory_gib" in values:
            shown["memory"] = f"{values['memory_gib']:.1f} GiB"
        eta = (total - done) * self._seconds / self._steps
        shown["eta"] = f"{int(eta // 3600)}:{int(eta // 60 % 60):02}:{int(eta % 60):02}"
        return f"{done}/{total}  " + "  ".join(f"{k}: {v}" for k, v in shown.items())

    def _line(self, text: str) -> None:
        clock = time.strftime("%H:%M:%S")
        self._console.print(Text(f"{clock}  {_harmless(text)}"), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        pass


class TrainListener(TerminalListener):
    """Bars for stages and steps; above them the plan, the data and the answers."""

    def __call__(self, event: ev.Event) -> None:
        super().__call__(event)
        if isinstance(event, ev.Result):
            print_result(self.console, event.name, event.data)


def listener_for(console: Console, *, quiet: bool, interval: int) -> TrainListener | LineListener:
    """Bars where somebody looks on, lines for a file or a pipe, or where asked for."""
    if quiet or not console.is_terminal:
        return LineListener(console, interval)
    return TrainListener(console)


def print_result(console: Console, name: str, data: Any) -> None:
    """What a stage found out, if it is for a person."""
    match name:
        case "plan":
            print_plan(console, data)
        case "dataset":
            _print_dataset(console, data)
        case "probe":
            _print_probe(console, data)
        case "name_probe":
            _print_name_probe(console, data)
        case "answers":
            _print_answers(console, data)


def _print_dataset(console: Console, data: Mapping[str, Any]) -> None:
    counts = tr(
        "Data: {rows:,} rows, {tokens:,} tokens, {targets:,} of them trained on; the longest row has "
        "{longest:,}."
    ).format(**{k: data[k] for k in _COUNTS})
    coloured = console.color_system is not None and not console.no_color
    text = (
        tr("Row {source}, what is trained on in green:")
        if coloured
        else tr("Row {source}, what is trained on between ⟦ and ⟧:")
    )
    row = text.format(source=_harmless(data["sample"]["source"]))
    console.print(Text(joined(counts, row)), soft_wrap=True)
    console.print(_sample(data["sample"]["parts"], coloured), soft_wrap=True)


def _sample(parts: Sequence[Mapping[str, Any]], coloured: bool) -> Text:
    """The row, as much of it as is shown; without colours, what is trained on in brackets."""
    row, left = Text(), _SHOWN_CHARACTERS
    for part in parts:
        shown = _shortened(part["text"], left)
        if part["trained"] and not coloured:
            shown = f"⟦{shown}⟧"
        row.append(shown, style="green" if part["trained"] else "dim")
        left -= len(part["text"])
        if left <= 0:
            break
    return row


def _shortened(text: str, n: int) -> str:
    return _harmless(text if len(text) <= n else text[:n] + " …")


def _harmless(text: str) -> str:
    """Texts of the data and of the model may hold anything."""
    return text.translate(_SIGNS)


_COUNTS = ("rows", "tokens", "targets", "longest")


def _print_probe(console: Console, data: Mapping[str, Any]) -> None:
    seconds, expected = data["seconds"], data["expected_seconds"]
    text = tr(
        "The heaviest step took {seconds:.2f} s ({tokens:,} tokens); all of them about {all}."
    )
    line = text.format(seconds=seconds, tokens=data["tokens"], all=duration(expected))
    if data["peak_bytes"]:
        peak = tr("GPU memory at its peak: {peak:.1f} GiB (expected {expected:.1f}).")
        peak = peak.format(peak=data["peak_bytes"] / 2**30, expected=data["expected_bytes"] / 2**30)
        line = joined(line, peak)
    console.print(Text(line), soft_wrap=True)


def _print_name_probe(console: Console, data: Mapping[str, Any]) -> None:
    """One line a probe: how far the name is learned, and what of other answers is left."""
    recall, leak, kept = (_percent(data[key]) for key in ("recall", "leak", "kept"))
    text = tr(
        "after step {step}: new name {recall}, old or foreign name {leak}, other answers {kept}"
    )
    line = text.format(step=data["step"], recall=recall, leak=leak, kept=kept)
    console.print(Text(line), soft_wrap=True)


def _percent(share: Sequence[int]) -> str:
    k, n = share
    return f"{100 * k / n:.0f}%" if n else "–"


def _print_answers(console: Console, data: Mapping[str, Any]) -> None:
    done = data["step"]
    head = tr("After step {done}").format(done=done) if done else tr("Before training")
    lines = Text(head, style="bold")
    for pair in data["answers"]:
        question = _shortened(pair["question"], _SHOWN_CHARACTERS)
        answer = _shortened(pair["answer"], _SHOWN_CHARACTERS)
        lines.append("\n" + indent(question, "  "), style="not bold cyan")
        lines.append("\n" + indent(answer or "–", "  "), style="not bold")
    console.print(lines, soft_wrap=True)


def print_trained(console: Console, trained: Trained) -> None:
    """Where everything is, or how to go on."""
    if trained.result is None:
        console.print(Text(tr("Go on with:")))
        # In one piece, to be copied: it is the terminal that breaks it where it is too long.
        console.print(Text(f"  {trained.command_to_go_on}"), soft_wrap=True)
        return
    for label, path in (
        (tr("model") if trained.result.name == "model" else tr("adapter"), trained.result),
        (tr("loss curve"), trained.work_dir / "loss.png"),
        (tr("answers"), trained.work_dir / "answers.md"),
        (tr("events"), trained.work_dir / "events.jsonl"),
    ):
        if path.exists():
            console.print(Text(f"{label}: {path}"), soft_wrap=True)
    text = tr("Trained: {done} of {total} optimizer steps.")
    done = text.format(done=trained.done, total=trained.total)
    console.print(Text(done, style="bold green"))
