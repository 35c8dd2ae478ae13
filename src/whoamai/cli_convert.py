"""`whoamai convert …`: pth_to_hf and xtuner_config. Parsing and printing only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from whoamai.errors import SettingError
from whoamai.messages import tr

if TYPE_CHECKING:
    from rich.console import Console

    from whoamai.recipes.pth_to_hf import Converted

convert_app = typer.Typer(
    no_args_is_help=True,
    help=tr(
        "From one form to another: checkpoints to adapters, adapters into models, XTuner's configs."
    ),
)

_ARGUMENTS = "[CONFIG] PTH OUT"
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help=tr("Replace OUT, if whoamai wrote what is there."))
]


class _TwoOrThree(TyperCommand):
    """The first of three arguments may be left out, as XTuner's order has it."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", _ARGUMENTS]


@convert_app.command(
    "pth_to_hf",
    cls=_TwoOrThree,
    help=tr(
        "Make a peft adapter, or a model folder, of a checkpoint: XTuner's iter_N.pth, a folder that "
        "DeepSpeed wrote, or a checkpoint of whoamai.\n\n"
        "CONFIG is the config it was trained with: a file, XTuner's or ours, or the name of a shipped "
        "one. It may be left out where the checkpoint tells enough. Nothing in the files is run.\n\n"
        "Example: [bold]whoamai convert pth_to_hf config.py work_dirs/x/iter_500.pth hf[/bold]"
    ),
)
def pth_to_hf(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar=_ARGUMENTS,
            help=tr("The config, if need be; the checkpoint; the folder to be written."),
        ),
    ],
    fp32: Annotated[
        bool,
        typer.Option(
            "--fp32",
            help=tr("Keep the values in float32. Otherwise they are float16, as XTuner's."),
        ),
    ] = False,
    max_shard_size: Annotated[
        str, typer.Option(help=tr("The largest file of a whole model: 2GB, 500MB."))
    ] = "2GB",
    safe_serialization: Annotated[
        bool,
        typer.Option("--safe-serialization/--bin", help=tr("safetensors, or torch's .bin files.")),
    ] = True,
    overwrite: Overwrite = False,
) -> None:
    from rich.console import Console

    from whoamai.events import Events
    from whoamai.recipes.pth_to_hf import ConvertRequest
    from whoamai.recipes.pth_to_hf import pth_to_hf as run
    from whoamai.terminal import TerminalListener

    if len(given) not in (2, 3):
        text = tr(
            "pth_to_hf takes a checkpoint and a folder to be written, and the config before them where "
            "it is needed: whoamai convert pth_to_hf [CONFIG] PTH OUT. {n} were given."
        )
        raise SettingError(text.format(n=len(given)))
    config, (checkpoint, out) = (given[0] if len(given) == 3 else None), given[-2:]
    request = ConvertRequest(
        Path(checkpoint).expanduser(),
        Path(out).expanduser(),
        config,
        fp32=fp32,
        max_shard_size=max_shard_size,
        safe_serialization=safe_serialization,
        overwrite=overwrite,
    )
    console = Console()
    with TerminalListener(console) as listener:
        converted = run(request, Events([listener]))
    _print_converted(console, converted)


def _print_converted(console: Console, converted: Converted) -> None:
    from rich.text import Text

    what = {"adapter": tr("adapter"), "model": tr("model")}[converted.kind]
    text = tr("The {what} is in {folder}: {n} tensors in {dtype}.")
    lines = [
        text.format(what=what, folder=converted.folder, n=converted.tensors, dtype=converted.dtype)
    ]
    if converted.kind == "adapter":
        lines.append(_how_to_merge(converted))
    else:
        lines.append(tr("It is a whole model: there is nothing to merge."))
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _how_to_merge(converted: Converted) -> str:
    """The next command; what the checkpoint has for its base may be a folder of another machine."""
    base, folder = converted.base, converted.folder
    text = tr("To put it into its model: whoamai convert merge {base} {folder} OUT")
    is_hub_name = base and re.fullmatch(r"[\w.-]+/[\w.-]+", base) and base[0] not in "./~"
    if base and (is_hub_name or Path(base).expanduser().is_dir()):
        return text.format(base=base, folder=folder)
    text = text.format(base="LLM", folder=folder)
    if not base:
        return text
    where = tr("LLM is where the model {base} is now; it is not there.")
    return f"{text}\n{where.format(base=base)}"


@convert_app.command(
    "xtuner_config",
    help=tr(
        "Make a config of ours of one of XTuner's Python files, and list what has no counterpart. The "
        "file is read as text and never run.\n\n"
        "Example: [bold]whoamai convert xtuner_config my_qlora_e3.py my_qlora_e3.yaml[/bold]"
    ),
)
def xtuner_config(
    file: Annotated[Path, typer.Argument(help=tr("XTuner's file."), metavar="FILE.py")],
    out: Annotated[Path, typer.Argument(help=tr("The file to be written."), metavar="OUT.yaml")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help=tr("Replace OUT if it exists."))
    ] = False,
) -> None:
    from whoamai.config.writing import write_config
    from whoamai.convert.xtuner_config import config_from_xtuner
    from whoamai.data.writers import checked_out

    file, out = file.expanduser(), out.expanduser()
    if out.suffix not in (".yaml", ".yml"):
        text = tr("{path} is to be a YAML file: give it a name that ends in .yaml.")
        raise SettingError(text.format(path=out))
    if file.suffix in (".yaml", ".yml"):
        text = tr("{path} is no Python file. A config of ours needs no conversion.")
        raise SettingError(text.format(path=file))
    path = checked_out(out, [file], overwrite=overwrite)
    config, notes = config_from_xtuner(file)
    write_config(config, path)
    typer.echo(tr("Written: {path}").format(path=out))
    if notes:
        typer.echo(tr("What is otherwise here, or has no counterpart:"))
        for note in notes:
            typer.echo(f"  - {note}")
