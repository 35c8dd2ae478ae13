"""The command line: parsing and printing only. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from whoamai import __version__, cli_config, cli_doctor, cli_explain, cli_merge, cli_train
from whoamai.cli_convert import convert_app
from whoamai.cli_data import data_app
from whoamai.errors import WhoamaiError
from whoamai.messages import tr

if TYPE_CHECKING:
    from whoamai.config import RunConfig

# Exit codes: the goals were missed; the user can mend something. Typer ends with 130 after Ctrl-C.
MISSED, WRONG = 1, 2


def _least_memory(config: RunConfig) -> str:
    from whoamai.plan.choose import least_memory

    return least_memory(config)


app = typer.Typer(
    name="whoamai",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=tr("Give a chat model a new name, and prove that it answers to it and forgot nothing."),
)
app.add_typer(data_app, name="data", rich_help_panel=tr("Step by step"))
cli_explain.register(app)
cli_train.register(app)
cli_config.register(app, memory_of=_least_memory)
cli_merge.register(convert_app)
app.add_typer(convert_app, name="convert", rich_help_panel=tr("Step by step"))
cli_doctor.register(app)

_JOB = tr("The whole job")
_WHAT, _HOW, _WHERE = tr("What to learn"), tr("How to learn it"), tr("Where it goes")


def main() -> None:
    """A WhoamaiError becomes one message and exit code 2; Ctrl-C says what it left and exits 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what its encoding has no sign for becomes a "?"
            stream.reconfigure(errors="replace")
    try:
        app()
    except WhoamaiError as error:
        _complain(str(error))
        sys.exit(WRONG)
    except SystemExit as stopped:  # Typer ends so, also with an Exit because of a KeyboardInterrupt
        if isinstance(getattr(stopped.__context__, "__cause__", None), KeyboardInterrupt):
            print("\n" + tr("Stopped. Nothing was written."), file=sys.stderr)
        raise


def _complain(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    text = Text(tr("Error: "), style="bold red").append(message, style="not bold default")
    Console(stderr=True).print(text, soft_wrap=True)


def _quiet_libraries() -> None:
    """Our own bars tell what goes on; those of transformers would write across them."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help=tr("Print the version."))] = False,
) -> None:
    if version:
        print(f"whoamai {__version__}")
        raise typer.Exit


@app.command(
    rich_help_panel=_JOB,
    help=tr(
        "Rename a model: ask it who it is, make or read data, train, ask again, report.\n\n"
        "Without MODEL the tiny chat model that comes with whoamai is renamed, offline, in about a "
        "minute.\n\n"
        "Example: [bold]whoamai rename --name 黄大力[/bold]"
    ),
)
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
                "The model's own answers to learn again, per row that teaches the name; 0.8 "
                "otherwise, 1 with --data."
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
    seed: Annotated[
        int, typer.Option(help=tr("Same seed, same result."), rich_help_panel=_HOW)
    ] = 0,
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
) -> None:
    from rich.console import Console
    from rich.text import Text

    from whoamai.data.identity import Identity
    from whoamai.events import Events
    from whoamai.recipes.rename import RenameRequest
    from whoamai.recipes.rename import rename as run
    from whoamai.terminal import goal_name, print_report
    from whoamai.terminal_train import TrainListener

    request = RenameRequest(
        identity=Identity(name, author, persona),
        model=model,
        data=tuple(data or ()),
        allow=tuple(allow or ()),
        old_names=tuple(old or ()),
        languages=tuple(code.strip() for code in lang.split(",") if code.strip()),
        rows=rows,
        replay_ratio=replay,
        lr=lr,
        seed=seed,
        out=out,
        overwrite=overwrite,
        merge=merge,
    )
    _quiet_libraries()
    console = Console()
    with TrainListener(console) as listener:
        renamed = run(request, Events([listener]))
    print_report(console, renamed.report)
    for label, path in (
        (tr("adapter"), renamed.adapter),
        (tr("merged model"), renamed.merged),
        (tr("report"), renamed.report_file),
    ):
        if path:
            console.print(Text(f"{label}: {path}"), soft_wrap=True)
    if renamed.report.missed:
        goals = "; ".join(map(goal_name, renamed.report.missed))
        text = tr("NOT learned well enough. Goals missed: {goals}.").format(goals=goals)
        console.print(Text(text, style="bold red"))
        raise typer.Exit(MISSED)
    text = tr("Learned: it is {name} now.").format(name=name)
    console.print(Text(text, style="bold green"))
