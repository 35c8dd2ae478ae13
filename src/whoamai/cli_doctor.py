"""`whoamai doctor`: parsing and printing only."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from whoamai.messages import tr

# The main job cannot run on this machine.
CANNOT_RUN = 1


def register(app: typer.Typer) -> None:
    """Add `doctor` to the commands of `app`."""
    app.command(
        "doctor",
        rich_help_panel=tr("Step by step"),
        help=tr(
            "Look at this machine: what is installed, what will be used and why not the rest, and "
            "whether a model can be trained here at all. What it prints can be pasted into a question: "
            "no names, no home folders.\n\n"
            "Exit code 0: the main job can run; 1: it cannot."
        ),
    )(doctor)


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help=tr("Print what was found as JSON, for programs."))
    ] = False,
    no_network: Annotated[
        bool, typer.Option("--no-network", help=tr("Do not ask whether the hub answers."))
    ] = False,
) -> None:
    from rich.console import Console

    from whoamai.plan.doctor import examine
    from whoamai.terminal_doctor import looking, print_diagnosis

    with looking() as tell:
        diagnosis = examine(network=not no_network, tell=tell)
    if as_json:
        print(json.dumps(diagnosis.as_json(), ensure_ascii=False, indent=1))
    else:
        print_diagnosis(Console(), diagnosis)
    if not diagnosis.ok:
        raise typer.Exit(CANNOT_RUN)
