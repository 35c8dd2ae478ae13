"""Options that several commands have, with one wording each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from whoamai.messages import tr

PROOF = tr("What is proved")

Questions = Annotated[
    Optional[Path],
    typer.Option(
        help=tr("Your own questions about who it is: one a line, or JSON rows."),
        rich_help_panel=PROOF,
    ),
]
Retain = Annotated[
    Optional[list[Path]],
    typer.Option(
        help=tr("What it must still know: questions with answers, or conversations (repeatable)."),
        rich_help_panel=PROOF,
    ),
]
GoalRecall = Annotated[
    float,
    typer.Option(
        min=0, max=100, help=tr("Percent of answers with the new name."), rich_help_panel=PROOF
    ),
]
GoalLeak = Annotated[
    float,
    typer.Option(
        min=0,
        max=100,
        help=tr("Percent of answers with an old or foreign name, at most."),
        rich_help_panel=PROOF,
    ),
]
