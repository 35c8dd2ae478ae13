"""`whoamai check`: parsing and printing only."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from whoamai.cli_options import PROOF, GoalLeak, GoalRecall, Questions, Retain
from whoamai.cli_rename import MISSED, print_places, quiet_libraries
from whoamai.messages import tr

_WHO, _WHERE = tr("Who it shall be"), tr("Where it goes")
_HELP = tr(
    "Ask a model who it is, whether an old name is left and what it still knows; nothing is trained.\n\n"
    "MODEL is a model, an adapter, or the folder of a renaming, which says itself who it shall be. An "
    "adapter is compared with its model without it; a merged model with --base.\n\n"
    "Ends with 1 where goals are missed.\n\n"
    "Example: [bold]whoamai check work_dirs/黄大力[/bold]"
)


def register(app: typer.Typer) -> None:
    app.command("check", rich_help_panel=tr("The whole job"), help=_HELP)(check)


def check(
    model: Annotated[str, typer.Argument(help=tr("A model, an adapter or a renaming's folder."))],
    name: Annotated[
        Optional[str],
        typer.Option(
            help=tr("The name it shall give; as renamed otherwise."), rich_help_panel=_WHO
        ),
    ] = None,
    author: Annotated[
        Optional[str], typer.Option(help=tr("Who made it, as it shall say."), rich_help_panel=_WHO)
    ] = None,
    old: Annotated[
        Optional[list[str]],
        typer.Option(
            help=tr("A name it must not give any more (repeatable)."), rich_help_panel=_WHO
        ),
    ] = None,
    adapter: Annotated[
        Optional[Path],
        typer.Option(help=tr("An adapter to put on MODEL."), rich_help_panel=_WHO),
    ] = None,
    base: Annotated[
        Optional[str],
        typer.Option(
            help=tr("What a merged model was before: both are loaded and compared."),
            rich_help_panel=_WHO,
        ),
    ] = None,
    lang: Annotated[
        Optional[str],
        typer.Option(help=tr("Languages to ask in; zh,en otherwise."), rich_help_panel=PROOF),
    ] = None,
    questions: Questions = None,
    retain: Retain = None,
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            max=100,
            help=tr(
                "Answers to each question sampled at temperature 0.8, beside the likeliest one."
            ),
            rich_help_panel=PROOF,
        ),
    ] = 1,
    template: Annotated[
        Optional[str],
        typer.Option(
            help=tr("A chat template by name, such as qwen_chat; the model's own otherwise."),
            rich_help_panel=PROOF,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help=tr("Same seed, same questions."), rich_help_panel=PROOF)
    ] = 0,
    goal_recall: GoalRecall = 98.0,
    goal_leak: GoalLeak = 0.5,
    quantization: Annotated[
        Literal["none", "nf4"],
        typer.Option(help=tr("Hold the weights in 4 bits."), rich_help_panel=_WHERE),
    ] = "none",
    device: Annotated[
        str, typer.Option(help=tr("cuda, cpu or auto."), rich_help_panel=_WHERE)
    ] = "auto",
    out: Annotated[
        Optional[Path],
        typer.Option(
            help=tr("Folder for the report; none is written otherwise."), rich_help_panel=_WHERE
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help=tr("Replace an earlier report."), rich_help_panel=_WHERE),
    ] = False,
) -> None:
    from rich.console import Console

    from whoamai.data.identity import Identity
    from whoamai.data.own_questions import read_own_questions
    from whoamai.data.retain import read_retain
    from whoamai.evaluate.report import Goals
    from whoamai.events import Events
    from whoamai.recipes.check import CheckRequest
    from whoamai.recipes.check import check as run
    from whoamai.terminal import TerminalListener
    from whoamai.terminal_report import print_report

    languages = None
    if lang is not None:
        languages = tuple(code.strip() for code in lang.split(",") if code.strip())
    if author and not name:
        raise typer.BadParameter(tr("--author needs --name."))
    request = CheckRequest(
        model=model,
        identity=Identity(name, author) if name is not None else None,
        adapter=adapter,
        base=base,
        old_names=tuple(old or ()),
        languages=languages,
        own_questions=tuple(read_own_questions(questions, (languages or ("zh",))[0]))
        if questions
        else (),
        retain=read_retain(retain) if retain else None,
        samples=samples,
        template=template,
        out=out,
        overwrite=overwrite,
        seed=seed,
        device=device,
        quantization=quantization,
        goals=Goals(recall=goal_recall, leak=goal_leak),
        command=shlex.join(["whoamai", *sys.argv[1:]]),
    )
    quiet_libraries()
    console = Console()
    with TerminalListener(console) as listener:
        report = run(request, Events([listener]))
    print_report(console, report)
    print_places(console, {tr("report"): out and out / "report.html"})
    if report.missed:
        raise typer.Exit(MISSED)
