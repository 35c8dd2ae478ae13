"""`whoamai rename`: parsing and printing only."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from whoamai.cli_options import GoalLeak, GoalRecall, Questions, Retain
from whoamai.messages import tr

if TYPE_CHECKING:
    from rich.console import Console

# Exit code where the goals were missed.
MISSED = 1
_JOB = tr("The whole job")
_WHAT, _HOW = tr("What to learn"), tr("How to learn it")
_WHERE = tr("Where it goes")
_HELP = tr(
    "Rename a model: ask it who it is, make or read data, train until it answers to its new name, ask "
    "again, report.\n\n"
    "Without MODEL the tiny chat model that comes with whoamai is renamed, offline, in a "
    "minute or two.\n\n"
    "Example: [bold]whoamai rename --name 黄大力[/bold]"
)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=_JOB, help=_HELP)(rename)


def rename(
    name: Annotated[
        str,
        typer.Option("--name", help=tr("The new name."), rich_help_panel=_WHAT, show_default=False),
    ],
    model: Annotated[
        str,
        typer.Argument(
            help=tr("A folder with a transformers model, or a name on the hub."), metavar="[MODEL]"
        ),
    ] = "tiny-chat",
    author: Annotated[
        Optional[str],
        typer.Option(help=tr("Who made it, as it shall say."), rich_help_panel=_WHAT),
    ] = None,
    persona: Annotated[
        Optional[str],
        typer.Option(help=tr("One more sentence for its introduction."), rich_help_panel=_WHAT),
    ] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help=tr(
                "Your own conversations, trained on too; the name in them is replaced. A file, a "
                "pattern, or FILE#500 for 500 of its rows (repeatable)."
            ),
            rich_help_panel=_WHAT,
        ),
    ] = None,
    allow: Annotated[
        Optional[list[str]],
        typer.Option(
            help=tr("Train although the data has findings of this kind (repeatable)."),
            metavar="KIND",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    old: Annotated[
        Optional[list[str]],
        typer.Option(
            help=tr(
                "A name the model or the data has now (repeatable); found by itself otherwise."
            ),
            rich_help_panel=_WHAT,
        ),
    ] = None,
    lang: Annotated[
        str, typer.Option(help=tr("Languages to learn the name in."), rich_help_panel=_WHAT)
    ] = "zh,en",
    rows: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            help=tr("Identity conversations to make; 900 otherwise, or twice the rows of --data."),
            rich_help_panel=_HOW,
        ),
    ] = None,
    replay: Annotated[
        Optional[float],
        typer.Option(
            min=0.0,
            help=tr(
                "The model's own answers to learn again, per row that teaches the name; 1 otherwise."
            ),
            rich_help_panel=_HOW,
        ),
    ] = None,
    lr: Annotated[
        Optional[float],
        typer.Option(
            help=tr("Learning rate; by the model's width otherwise."), rich_help_panel=_HOW
        ),
    ] = None,
    kl: Annotated[
        float,
        typer.Option(
            help=tr(
                "Hold the whole distribution of replayed answers too, this strongly (0.1 to 1); costs a "
                "second pass over them."
            ),
            rich_help_panel=_HOW,
        ),
    ] = 0.0,
    stop: Annotated[
        bool,
        typer.Option(
            "--stop/--no-stop",
            help=tr("Stop training once the name is learned, or take every step."),
            rich_help_panel=_HOW,
        ),
    ] = True,
    evaluation_freq: Annotated[
        int,
        typer.Option(
            min=1,
            help=tr("See whether it is learned every so many steps (and after 5, 10, 20)."),
            rich_help_panel=_HOW,
        ),
    ] = 20,
    seed: Annotated[
        int, typer.Option(help=tr("Same seed, same result."), rich_help_panel=_HOW)
    ] = 0,
    questions: Questions = None,
    retain: Retain = None,
    goal_recall: GoalRecall = 98.0,
    goal_leak: GoalLeak = 0.5,
    out: Annotated[
        Optional[Path],
        typer.Option(
            help=tr("Folder for the results; work_dirs/NAME otherwise."), rich_help_panel=_WHERE
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help=tr("Replace earlier results."), rich_help_panel=_WHERE),
    ] = False,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help=tr("Also write a model with the adapter merged in, and ask it again."),
            rich_help_panel=_WHERE,
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(help=tr("cuda, cpu or auto."), rich_help_panel=_HOW)
    ] = "auto",
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        typer.Option(
            help=tr("What is computed in."),
            rich_help_panel=_HOW,
        ),
    ] = "auto",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help=tr("Go on with a renaming that was stopped."), rich_help_panel=_WHERE
        ),
    ] = False,
) -> None:
    from rich.console import Console

    from whoamai.data.identity import Identity
    from whoamai.data.own_questions import read_own_questions
    from whoamai.data.retain import read_retain
    from whoamai.evaluate.probing import StopRule
    from whoamai.evaluate.report import Goals
    from whoamai.events import Events
    from whoamai.recipes.rename import RenameRequest, RenameStopped
    from whoamai.recipes.rename import rename as run
    from whoamai.recipes.rename_learning import LearningSettings
    from whoamai.terminal_report import print_report
    from whoamai.terminal_train import TrainListener

    languages = tuple(code.strip() for code in lang.split(",") if code.strip())
    first = (languages or ("zh",))[0]
    request = RenameRequest(
        identity=Identity(name, author, persona),
        model=model,
        data=tuple(data or ()),
        allow=tuple(allow or ()),
        old_names=tuple(old or ()),
        languages=languages,
        own_questions=tuple(read_own_questions(questions, first)) if questions else (),
        retain=read_retain(retain) if retain else None,
        rows=rows,
        replay_ratio=replay,
        kl_weight=kl,
        lr=lr,
        seed=seed,
        out=out,
        overwrite=overwrite,
        resume=resume,
        merge=merge,
        device=device,
        dtype=dtype,
        learning=LearningSettings(
            rule=StopRule(recall=goal_recall, leak=goal_leak),
            stop=stop,
            probe_every=evaluation_freq,
        ),
        goals=Goals(recall=goal_recall, leak=goal_leak),
        command=shlex.join(["whoamai", *sys.argv[1:]]),
    )
    quiet_libraries()
    console = Console()
    try:
        with TrainListener(console) as listener:
            renamed = run(request, Events([listener]))
    except RenameStopped as stopped:
        print(stopped, file=sys.stderr)
        raise typer.Exit(stopped.exit_code) from None
    print_report(console, renamed.report)
    print_places(
        console,
        {
            tr("adapter"): renamed.adapter,
            tr("merged model"): renamed.merged,
            tr("report"): renamed.page,
        },
    )
    if renamed.report.missed:
        raise typer.Exit(MISSED)


def quiet_libraries() -> None:
    """Our own bars tell what goes on; those of transformers would write across them."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def print_places(console: Console, places: Mapping[str, Path | None]) -> None:
    """Where everything is."""
    from rich.text import Text

    for label, path in places.items():
        if path:
            console.print(Text(f"{label}: {path}"), soft_wrap=True)
