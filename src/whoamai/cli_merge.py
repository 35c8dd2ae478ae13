"""`whoamai convert merge` and `whoamai convert ollama`: parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional, TypeVar

import typer

from whoamai.messages import tr

if TYPE_CHECKING:
    pass

_NO_ADAPTER = "-"
_Request, _Done = TypeVar("_Request"), TypeVar("_Done")


def register(convert_app: typer.Typer) -> None:
    """Add the commands to `whoamai convert`."""
    convert_app.command("merge", help=_MERGE_HELP)(merge)
    convert_app.command("ollama", help=_OLLAMA_HELP)(ollama)


_MERGE_HELP = tr(
    "Merge an adapter into its model, and compare the result with both.\n\n"
    "The weights are read and written one tensor at a time, so a model need not fit the memory. "
    "What loads the base's folder loads OUT.\n\n"
    "Example: [bold]whoamai convert merge internlm2_5-7b-chat adapter merged[/bold]"
)
_OLLAMA_HELP = tr(
    "Write a Modelfile for a merged model: its chat template, stop tokens and system prompt as Ollama "
    "has them. For InternLM2 the Llama form of the weights is written beside it.\n\n"
    "Example: [bold]whoamai convert ollama merged merged_ollama[/bold]"
)


def merge(
    llm: Annotated[
        str,
        typer.Argument(
            metavar="LLM", help=tr("The model the adapter was trained on: a folder or hub name.")
        ),
    ],
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER",
            help=tr('The adapter\'s folder; "-" for none, to write InternLM2 as Llama as it is.'),
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help=tr("The folder to write."))],
    max_shard_size: Annotated[
        str, typer.Option(help=tr("The most a file of weights may hold."))
    ] = "2GB",
    device: Annotated[
        str, typer.Option(help=tr("Where sums and the comparison are made: cuda, cpu, auto."))
    ] = "auto",
    dtype: Annotated[
        Optional[str],
        typer.Option(
            help=tr(
                "float32, float16 (as XTuner writes) or bfloat16; what the model is in otherwise."
            )
        ),
    ] = None,
    is_clip: Annotated[
        bool, typer.Option("--is-clip", help=tr("The model is a CLIP: write its vision tower."))
    ] = False,
    as_llama: Annotated[
        bool,
        typer.Option(
            "--as-llama",
            help=tr("Write InternLM2 as stock Llama, which everything loads; no value changes."),
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help=tr("Replace an earlier merge in OUT."))
    ] = False,
    no_check: Annotated[
        bool,
        typer.Option(
            "--no-check",
            help=tr("Do not compare afterwards: for models that this machine cannot load."),
        ),
    ] = False,
) -> None:
    from whoamai.recipes.merge import MergeRequest
    from whoamai.recipes.merge import merge as run

    request = MergeRequest(
        llm=llm,
        adapter=None if adapter == _NO_ADAPTER else Path(adapter),
        out=out,
        max_shard_size=max_shard_size,
        device=device,
        dtype=dtype,
        is_clip=is_clip,
        as_llama=as_llama,
        overwrite=overwrite,
        check=not no_check,
    )
    merged = _run(run, request)
    text = tr("merged model: {path} ({dtype}, files: {n})")
    _print(text.format(path=merged.folder, dtype=merged.dtype, n=merged.files))


def ollama(
    merged: Annotated[str, typer.Argument(metavar="MERGED", help=tr("A merged model's folder."))],
    out: Annotated[Path, typer.Argument(metavar="OUT", help=tr("The folder to write."))],
    system: Annotated[
        Optional[str],
        typer.Option(help=tr("The system prompt; the chat template's own otherwise.")),
    ] = None,
    name: Annotated[
        Optional[str], typer.Option(help=tr("What it is to be called in Ollama."))
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help=tr("Replace an earlier Modelfile in OUT."))
    ] = False,
) -> None:
    from whoamai.recipes.ollama import OllamaRequest
    from whoamai.recipes.ollama import ollama as run

    done = _run(run, OllamaRequest(merged, out, system, name, overwrite))
    _print(tr("Modelfile: {path}").format(path=done.modelfile))
    _print(tr("Now run: {command}").format(command=done.command))


def _run(job, request):  # one of the two recipes above and its request
    from rich.console import Console

    from whoamai.events import Events
    from whoamai.terminal import TerminalListener

    with TerminalListener(Console()) as listener:
        return job(request, Events([listener]))


def _print(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(text), soft_wrap=True)
