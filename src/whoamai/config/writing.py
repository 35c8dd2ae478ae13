"""A resolved config as YAML, every setting in it, so that a run can be repeated from its folder."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import Reader

from whoamai.config.schema import RunConfig
from whoamai.config.yaml_lines import bare_value
from whoamai.errors import OutputError
from whoamai.messages import tr

# Line ends of Unicode, which YAML would read as others, and marks that no one can see.
_ESCAPED = "\x85\u2028\u2029\ufeff"


def write_config(config: RunConfig, path: Path) -> None:
    """Write `config` so that read_config gives it back, in the place of an older one. UTF-8.

    The file is complete or absent. Raises OutputError where it cannot be written.
    """
    head = tr("Every setting of this run, those left to their defaults too.")
    body = yaml.dump(
        config.model_dump(),
        Dumper=_Dumper,
        allow_unicode=True,
        sort_keys=False,
        default_flow_style=False,
        width=float("inf"),
    )
    partial = path.with_name(f".whoamai-{secrets.token_hex(8)}.partial")
    try:
        partial.write_text(f"# {head}\n{body}", "utf-8", newline="\n")
        os.replace(partial, path)
    except OSError as error:
        text = tr("{path} cannot be written: {reason}")
        raise OutputError(text.format(path=path, reason=error.strerror or error)) from error
    finally:
        with suppress(OSError):  # gone by now, or never there
            partial.unlink()


class _Dumper(yaml.SafeDumper):
    """Quotes what yaml_lines would not read as the text it is, by YAML 1.2's rules."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    if any(c in text for c in _ESCAPED) or Reader.NON_PRINTABLE.search(text):
        style = '"'
    elif "\n" in text:
        style = "|"
    elif not isinstance(bare_value(text), str):
        style = "'"
    else:
        style = None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _numbers(dumper: _Dumper, numbers: tuple[float, ...]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", numbers, flow_style=True)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, _numbers)
