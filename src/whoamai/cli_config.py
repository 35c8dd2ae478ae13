"""`whoamai list-cfg` and `whoamai copy-cfg`: the configs that come along. Parsing and printing only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from whoamai.messages import tr

if TYPE_CHECKING:
    from rich.console import Console

    from whoamai.config.schema import RunConfig
    from whoamai.config.shipped import ShippedConfig

# Nothing was found.
NOTHING = 1

MemoryOf = Callable[["RunConfig"], str]


def register(app: typer.Typer, memory_of: MemoryOf | None = None) -> None:
    """Add the commands. memory_of: the memory a config needs, in words; without it, no such column."""
    panel = tr("Step by step")

    @app.command(
        "list-cfg",
        rich_help_panel=panel,
        help=tr(
            "Show the configs that come with whoamai.\n\n"
            "Where the output is no screen: one line a config, its columns with tabs between.\n\n"
            "Example: [bold]whoamai list-cfg -p qlora[/bold]"
        ),
    )
    def list_command(
        pattern: Annotated[
            Optional[str],
            typer.Option(
                "--pattern",
                "-p",
                help=tr(
                    "Only those with this in their name; * and ? stand for any text, any sign."
                ),
            ),
        ] = None,
    ) -> None:
        list_cfg(pattern, memory_of)

    @app.command(
        "copy-cfg",
        rich_help_panel=panel,
        help=tr(
            "Copy a config that comes with whoamai into a folder, as NAME_copy.yaml, to change it.\n\n"
            "Example: [bold]whoamai copy-cfg tiny_chat_lora_identity .[/bold]"
        ),
    )
    def copy_command(
        name: Annotated[str, typer.Argument(help=tr("Its name, as list-cfg shows it."))],
        folder: Annotated[
            Path,
            typer.Argument(help=tr("The folder to copy it to; made if need be."), metavar="DIR"),
        ],
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help=tr("Replace an earlier copy."))
        ] = False,
    ) -> None:
        copy_cfg(name, folder, overwrite=overwrite)


def list_cfg(pattern: str | None = None, memory_of: MemoryOf | None = None) -> None:
    """Print the shipped configs whose names fit; exit with 1 where none does."""
    from rich.console import Console

    from whoamai.config.files import nearest_names, shipped_files
    from whoamai.config.shipped import shipped_configs

    configs = shipped_configs()
    chosen = [one for one in configs if fits(one.name, pattern)]
    if not chosen:
        text = tr("No config that comes with whoamai has {pattern} in its name.")
        nearest = nearest_names(pattern or "", shipped_files())
        everything = tr("Without -p all of them are shown.")
        typer.echo(
            " ".join(filter(None, (text.format(pattern=pattern), nearest, everything))), err=True
        )
        raise typer.Exit(NOTHING)
    console = Console()
    if console.is_terminal:
        _print_table(console, chosen, memory_of)
        return
    for one in chosen:
        columns = [one.name, *_cells(one, memory_of), one.title]
        typer.echo("\t".join(" ".join(column.split()) for column in columns))


def copy_cfg(name: str, folder: Path, *, overwrite: bool = False) -> None:
    """Copy one, and say where to."""
    from whoamai.config.shipped import copy_config

    copy = copy_config(name, folder, overwrite=overwrite)
    typer.echo(tr("Copied to {path}").format(path=copy))


def fits(name: str, pattern: str | None) -> bool:
    """Whether `pattern`, which may hold * and ?, is found in the name; capitals do not count."""
    from fnmatch import fnmatchcase

    if pattern is None:
        return True
    name, wanted = name.lower(), pattern.strip().lower().removesuffix(".yaml")
    return wanted in name or fnmatchcase(name, f"*{wanted}*")


def _cells(one: ShippedConfig, memory_of: MemoryOf | None) -> list[str]:
    """model, method and, if it can be told, memory."""
    method = {"qlora": "QLoRA", "lora": "LoRA", "full": tr("full")}[one.config.method]
    cells = [one.config.model.pretrained_model_name_or_path, method]
    return [*cells, memory_of(one.config)] if memory_of else cells


def _print_table(
    console: Console, chosen: Sequence[ShippedConfig], memory_of: MemoryOf | None
) -> None:
    """The title stands under the name: beside it there is no room on a usual screen."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 1, 0), header_style="bold")
    longest = max(len(one.name) for one in chosen)  # names are to be copied: never broken
    table.add_column(tr("name"), width=max(longest, min(70, console.width // 2)))
    table.add_column(tr("model"), overflow="fold")
    table.add_column(tr("method"), no_wrap=True)
    if memory_of:
        table.add_column(tr("memory"), no_wrap=True)
    for one in chosen:
        name = Text(one.name, style="bold").append(f"\n{one.title}", style="not bold dim")
        table.add_row(name, *map(Text, _cells(one, memory_of)))
    console.print(table)
