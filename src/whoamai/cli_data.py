"""`whoamai data …`: check, repair, replace, preview, make. Parsing and printing only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from whoamai.messages import tr

# The goals were missed, or something that blocks training was found.
FOUND = 1

data_app = typer.Typer(
    no_args_is_help=True,
    help=tr("Look at data, mend it, rename inside it, see exactly what is trained on."),
)

_FILES = tr(
    "Data files: .jsonl, .json, .csv, .tsv, .parquet, also .gz; patterns (*.jsonl); FILE#500 takes "
    "500 of its rows."
)
_MODEL = tr("The model whose tokenizer and chat template count: a folder, or a name on the hub.")

Files = Annotated[list[str], typer.Argument(help=_FILES, metavar="FILE")]
Name = Annotated[Optional[str], typer.Option(help=tr("What {{name}} stands for."))]
Author = Annotated[Optional[str], typer.Option(help=tr("What {{author}} stands for."))]
Overwrite = Annotated[bool, typer.Option("--overwrite", help=tr("Replace OUT if it exists."))]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help=tr("Show what would change; write nothing."))
]
Template = Annotated[
    Optional[str],
    typer.Option(
        "--prompt-template",
        help=tr(
            "A template by its name (internlm2_chat, qwen_chat, …) instead of the model's own."
        ),
    ),
]


@data_app.command(
    "check",
    help=tr(
        "Find what is wrong with data files, row by row, and say what to do.\n\n"
        "Exit code 0: nothing blocks training; 1: something does.\n\n"
        "Example: [bold]whoamai data check my_data.jsonl --old 尖米[/bold]"
    ),
)
def check_files(
    files: Files,
    model: Annotated[Optional[str], typer.Option(help=_MODEL)] = None,
    max_length: Annotated[
        Optional[int],
        typer.Option(min=1, help=tr("Rows beyond so many tokens are told (needs --model).")),
    ] = None,
    name: Name = None,
    author: Author = None,
    old: Annotated[
        Optional[list[str]], typer.Option(help=tr("A name that must not be left (repeatable)."))
    ] = None,
    lang: Annotated[
        Optional[str], typer.Option(help=tr("Languages the replies should be in, e.g. zh,en."))
    ] = None,
    prompt_template: Template = None,
    as_json: Annotated[
        bool, typer.Option("--json", help=tr("Print the findings as JSON, for programs."))
    ] = False,
) -> None:
    from rich.console import Console

    from whoamai.data.identity import check_languages
    from whoamai.data.lint import CheckOptions, check
    from whoamai.errors import SettingError
    from whoamai.terminal_data import bytes_bar, print_check

    languages = tuple(code.strip() for code in (lang or "").split(",") if code.strip())
    if lang is not None:
        check_languages(languages)
    if max_length and not model:
        raise SettingError(tr("--max-length counts tokens: say whose with --model."))
    if any(not one.strip() for one in old or ()):
        raise SettingError(tr("--old is empty. Give the name to look for, or leave it out."))
    options = CheckOptions(
        name=name,
        author=author,
        old_names=tuple(old or ()),
        languages=languages,
        max_length=max_length,
        measure=_measure(model, prompt_template) if model else None,
    )
    with bytes_bar(tr("Checking"), hidden=as_json) as on_bytes:
        report = check(files, options, on_bytes=on_bytes)
    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False, indent=1))
    else:
        print_check(Console(), report)
    if report.blocking():
        raise typer.Exit(FOUND)


@data_app.command(
    "repair",
    help=tr(
        "Write a mended copy of data files: texts taken out of objects, lost questions given back "
        "(marked), names filled in, marks and control characters taken out. What cannot be mended is "
        "left out and counted.\n\n"
        "Example: [bold]whoamai data repair assistant_Tuner.jsonl mended.jsonl --dry-run[/bold]"
    ),
)
def repair_files(
    files: Files,
    out: Annotated[Path, typer.Argument(help=tr("The file to write (JSON lines)."))],
    name: Name = None,
    author: Author = None,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help=tr("Keep only the first of equal rows."))
    ] = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    from rich.console import Console

    from whoamai.data.repair import RepairOptions, repair
    from whoamai.terminal_data import bytes_bar, print_repair

    options = RepairOptions(name=name, author=author, drop_duplicates=drop_duplicates)
    with bytes_bar(tr("Mending")) as on_bytes:
        report = repair(
            files, out, options, dry_run=dry_run, overwrite=overwrite, on_bytes=on_bytes
        )
    print_repair(Console(), report, None if dry_run else out)


@data_app.command(
    "replace",
    help=tr(
        "Put a new name in the place of an old one, in every text of a data file, and prove that none "
        "is left.\n\n"
        "Example: [bold]whoamai data replace in.jsonl out.jsonl --old 尖米 --new 黄大力[/bold]"
    ),
)
def replace_in_file(
    file: Annotated[Path, typer.Argument(help=tr("JSON lines or one JSON array, also .gz."))],
    out: Annotated[Path, typer.Argument(help=tr("The file to write."))],
    old: Annotated[
        list[str], typer.Option(help=tr("A name to replace (repeatable, with as many --new)."))
    ],
    new: Annotated[
        list[str], typer.Option(help=tr("What to put there: one for all --old, or one for each."))
    ],
    field: Annotated[
        Optional[list[str]],
        typer.Option(
            help=tr("Only under this key, e.g. output or conversation.output (repeatable).")
        ),
    ] = None,
    whole_word: Annotated[
        bool,
        typer.Option("--whole-word", help=tr("Latin names as whole words only: not Chu in Chuck.")),
    ] = False,
    case: Annotated[
        Literal["exact", "ignore", "keep"],
        typer.Option(
            help=tr("exact spelling; ignore capitals; or ignore and keep them in the new name.")
        ),
    ] = "exact",
    allow_left: Annotated[
        bool, typer.Option("--allow-left", help=tr("Do not fail if an old name is left."))
    ] = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    from rich.console import Console

    from whoamai.data.replace_rows import replace_rows
    from whoamai.errors import SettingError
    from whoamai.terminal_data import print_replaced

    if len(new) not in (1, len(old)):
        text = tr("There are {old} --old and {new} --new. Give one --new for all, or one for each.")
        raise SettingError(text.format(old=len(old), new=len(new)))
    pairs = list(zip(old, new * len(old) if len(new) == 1 else new, strict=True))
    result = replace_rows(
        file,
        out,
        pairs,
        fields=field or (),
        whole_word=whole_word,
        case=case,
        allow_left=allow_left,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    print_replaced(Console(), result)


@data_app.command(
    "preview",
    help=tr(
        "Show the exact text the model sees, token by token, which tokens are trained on, and how rows "
        "share their beginnings.\n\n"
        "Example: [bold]whoamai data preview my_data.jsonl --model tiny-chat --row 3[/bold]"
    ),
)
def preview_files(
    files: Files,
    model: Annotated[str, typer.Option(help=_MODEL)] = "tiny-chat",
    row: Annotated[
        Optional[list[int]],
        typer.Option(
            min=1, help=tr("The row to show, by its number (repeatable); the first otherwise.")
        ),
    ] = None,
    prompt_template: Template = None,
    encoding: Annotated[
        Literal["whoamai", "xtuner"],
        typer.Option(help=tr("xtuner: exactly as XTuner 0.1 writes rows.")),
    ] = "whoamai",
    thinking: Annotated[
        Literal["off", "on"],
        typer.Option(
            help=tr("For templates with <think>: train replies without or with thoughts.")
        ),
    ] = "off",
    html: Annotated[
        Optional[Path], typer.Option(help=tr("Write a page instead of printing."))
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    from rich.console import Console

    from whoamai.data.preview import make_preview
    from whoamai.data.preview_html import write_html
    from whoamai.data.readers import read_conversations
    from whoamai.data.sources import find_sources
    from whoamai.terminal_preview import print_preview

    tokenizer, template = _template(model, prompt_template, encoding, thinking)
    preview = make_preview(read_conversations(files), template, tokenizer, numbers=row or ())
    if html is None:
        print_preview(Console(), preview)
        return
    inputs = [source.path for source in find_sources(files)]
    write_html(preview, html, inputs, overwrite=overwrite)
    print(tr("Written to {path}").format(path=html))


@data_app.command("make", help=tr("Write generated identity conversations to a JSONL file."))
def make_data(
    out: Annotated[Path, typer.Argument(help=tr("The file to write (must not exist)."))],
    name: Annotated[str, typer.Option(help=tr("The new name."), show_default=False)],
    author: Annotated[Optional[str], typer.Option(help=tr("Who made it, as it shall say."))] = None,
    persona: Annotated[
        Optional[str], typer.Option(help=tr("One more sentence for its introduction."))
    ] = None,
    lang: Annotated[str, typer.Option(help=tr("Languages."))] = "zh,en",
    rows: Annotated[int, typer.Option(min=1, help=tr("How many."))] = 900,
    seed: Annotated[int, typer.Option(help=tr("Same seed, same rows."))] = 0,
) -> None:
    from whoamai.data.identity import Identity, training_conversations
    from whoamai.data.writers import write_messages

    conversations = training_conversations(
        Identity(name, author, persona),
        languages=[code.strip() for code in lang.split(",") if code.strip()],
        rows=rows,
        seed=seed,
    )
    write_messages(conversations, out)
    print(tr("{n} conversations written to {path}").format(n=len(conversations), path=out))


def _template(model: str, name: str | None, encoding: str, thinking: Any) -> tuple[Any, Any]:
    """(the model's tokenizer, what writes conversations as its tokens)."""
    from whoamai.data.templates import ChatTemplate
    from whoamai.data.xtuner_encoding import XTunerEncoding
    from whoamai.model.load import load_tokenizer

    tokenizer, model_type = load_tokenizer(model)
    if encoding == "xtuner":
        return tokenizer, XTunerEncoding(tokenizer, name or "internlm2_chat")
    return tokenizer, ChatTemplate(tokenizer, name=name, model_type=model_type, thinking=thinking)


def _measure(model: str, name: str | None) -> Callable[[Any], int]:
    _, template = _template(model, name, "whoamai", "off")
    return lambda conversation: max(
        (len(sample.input_ids) for sample in template.samples(conversation)), default=0
    )
