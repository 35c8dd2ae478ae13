"""The command line: parsing and printing only. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated

import typer

from whoamai import (
    __version__,
    cli_check,
    cli_config,
    cli_doctor,
    cli_explain,
    cli_merge,
    cli_rename,
    cli_train,
)
from whoamai.cli_convert import convert_app
from whoamai.cli_data import data_app
from whoamai.errors import WhoamaiError
from whoamai.messages import tr

if TYPE_CHECKING:
    from whoamai.config import RunConfig

# Exit code: the user can mend something. 1 says that goals were missed; 130 comes after Ctrl-C.
WRONG = 2


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
cli_rename.register(app)
cli_check.register(app)
app.add_typer(data_app, name="data", rich_help_panel=tr("Step by step"))
cli_explain.register(app)
cli_train.register(app)
cli_config.register(app, memory_of=_least_memory)
cli_merge.register(convert_app)
app.add_typer(convert_app, name="convert", rich_help_panel=tr("Step by step"))
cli_doctor.register(app)


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


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help=tr("Print the version."))] = False,
) -> None:
    if version:
        print(f"whoamai {__version__}")
        raise typer.Exit
