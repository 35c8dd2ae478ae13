"""`whoamai train`: parsing and printing only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer
from typer.core import TyperCommand

from whoamai.messages import tr

_RESUME, _LAST = "--resume", "last"
INTERRUPTED = 130


class _ResumeCommand(TyperCommand):
    """Lets --resume stand alone or with a folder behind it; Typer's options do one or the other."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_with_value(args)))


def _with_value(args: list[str]) -> Iterator[str]:
    """`--resume FOLDER` as it is, and `--resume` without a folder as `--resume=last`."""
    for arg, following in pairwise([*args, ""]):
        alone = arg == _RESUME and not _is_folder(following)
        yield f"{_RESUME}={_LAST}" if alone else arg


def _is_folder(following: str) -> bool:
    """Can this be the folder of a --resume before it, and no option, setting or config?"""
    from whoamai.config.files import ENDINGS, shipped_files

    if not following or following.startswith("-"):
        return False
    if Path(following).is_dir():
        return True
    is_setting = "=" in following
    return not (is_setting or following.endswith(ENDINGS) or following in shipped_files())


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    panel = tr("Step by step")
    app.command("train", cls=_ResumeCommand, rich_help_panel=panel, help=_HELP)(train)


_HELP = tr(
    "Train an adapter, or a whole model, by a config.\n\n"
    "CONFIG is a YAML file or the name of a shipped one (whoamai list-cfg). Settings can be changed "
    "behind it: section.key=value.\n\n"
    "Example: [bold]whoamai train tiny_chat_lora_identity data.data_path=my_data.jsonl[/bold]"
)


def train(
    config: Annotated[str, typer.Argument(help=tr("A config file, or the name of a shipped one."))],
    settings: Annotated[
        Optional[list[str]],
        typer.Argument(
            help=tr("Settings to change: section.key=value."), metavar="[SECTION.KEY=VALUE]..."
        ),
    ] = None,
    work_dir: Annotated[
        Optional[Path],
        typer.Option(
            help=tr("Where the run is written; work_dirs/<name of the config> otherwise.")
        ),
    ] = None,
    resume: Annotated[
        Optional[str],
        typer.Option(
            help=tr(
                "Go on after the last checkpoint: --resume; or after another: --resume "
                "work_dirs/x/checkpoints/step_000500."
            ),
            metavar="[CHECKPOINT]",
        ),
    ] = None,
    allow: Annotated[
        Optional[list[str]],
        typer.Option(metavar="KIND", help=tr("Start although preflight found this (repeatable).")),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help=tr("Lines instead of moving bars, for log files."))
    ] = False,
) -> None:
    from rich.console import Console

    from whoamai.events import Events
    from whoamai.recipes.any_config import load_config
    from whoamai.recipes.train import CONFIG_FILE, TrainRequest
    from whoamai.recipes.train import train as run
    from whoamai.terminal_train import listener_for, print_trained

    loaded, notes = load_config(config, settings or ())
    for note in notes:
        print(note, file=sys.stderr)
    if allow:
        changed = loaded.config.model_copy(update={"allow": [*loaded.config.allow, *allow]})
        loaded = replace(loaded, config=changed)
    if work_dir:
        loaded = replace(loaded, work_dir=work_dir)
    if loaded.path.name == CONFIG_FILE:  # of a run that is gone on with: it has the folder's name
        loaded = replace(loaded, name=loaded.work_dir.name)
    request = TrainRequest(loaded, _resume(resume))
    console = Console()
    trained = None
    with (
        suppress(KeyboardInterrupt),
        listener_for(console, quiet=quiet, interval=loaded.config.log.interval) as listener,
    ):
        trained = run(request, Events([listener]))
    if trained is None:
        text = tr(
            "Stopped at once. With --resume it goes on after its last checkpoint, if it has one."
        )
        print("\n" + text, file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    print_trained(console, trained)
    if trained.exit_code:
        raise typer.Exit(trained.exit_code)


def _resume(given: str | None) -> Literal["last"] | Path | None:
    return None if given is None else "last" if given == _LAST else Path(given)
