"""`whoamai explain`: parsing and printing only."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from whoamai.messages import tr


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "explain",
        rich_help_panel=tr("Step by step"),
        help=tr(
            "Say in words what a config does, before any weight is loaded: each setting, what is "
            "trained, steps and learning rate, memory and time, what is to be minded.\n\n"
            "Nothing is downloaded. Example: [bold]whoamai explain tiny_chat_lora_identity[/bold]"
        ),
    )(explain_config)


def explain_config(
    config: Annotated[
        str, typer.Argument(help=tr("A YAML file, or the name of a shipped config."))
    ],
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(
            help=tr("Settings in place of the file's, for example train.lr=1e-4."),
            metavar="[SECTION.KEY=VALUE …]",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help=tr("Print everything as JSON, for programs."))
    ] = False,
) -> None:
    from rich.console import Console

    from whoamai.plan.explain import explain
    from whoamai.recipes.any_config import load_config
    from whoamai.terminal_plan import print_explanation

    loaded, notes = load_config(config, overrides or ())
    for note in notes:
        print(note, file=sys.stderr)
    explanation = explain(loaded)
    if as_json:
        print(json.dumps(explanation.as_json(), ensure_ascii=False, indent=1, default=_plain))
    else:
        print_explanation(Console(), explanation)


def _plain(value: object) -> object:
    """What JSON has no word for: a path is its text."""
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} in an explanation")
