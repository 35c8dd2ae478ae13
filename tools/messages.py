"""Collect the texts in tr("…") and later("…") into the Chinese catalogue and compile it.

python tools/messages.py           update locale/zh_CN/LC_MESSAGES/whoamai.po, compile the .mo
python tools/messages.py --check   change nothing; exit 1 if either is out of date or a
                                   translation is missing or drops a {placeholder}
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "whoamai"
FOLDER = SOURCE / "messages" / "locale" / "zh_CN" / "LC_MESSAGES"
PO, MO = FOLDER / "whoamai.po", FOLDER / "whoamai.mo"
_PLACEHOLDER = re.compile(r"\{\w+(?::[^{}]*)?\}")


class _Dateless(Catalog):
    """Says only how its texts are coded; babel's own head holds the minute it was made in."""

    @property
    def mime_headers(self) -> list[tuple[str, str]]:
        return [("Content-Type", "text/plain; charset=utf-8")]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, report problems")
    check = parser.parse_args().check

    catalogue = _updated()
    po, mo = _as_po(catalogue), _as_mo(catalogue)
    if check:
        problems = _problems(catalogue)
        if PO.read_bytes() != po or MO.read_bytes() != mo:
            problems.append("the catalogue is out of date: run `make messages`")
        print("\n".join(problems) or f"{len(catalogue)} messages, all translated")
        return bool(problems)
    FOLDER.mkdir(parents=True, exist_ok=True)
    PO.write_bytes(po)
    MO.write_bytes(mo)
    print("\n".join(_problems(catalogue)) or f"{len(catalogue)} messages, all translated")
    return 0


def _updated() -> Catalog:
    """The catalogue on disk with the texts of the source: new ones empty, vanished ones gone."""
    template = Catalog(project="whoamai")
    found = extract_from_dir(str(SOURCE), keywords={"tr": None, "later": None}, comment_tags=())
    for file, _, message, *_ in sorted(found, key=lambda f: (f[0], f[1])):
        template.add(message, locations=[(file, 1)])
    if PO.exists():
        with PO.open("rb") as file:
            catalogue = read_po(file, locale="zh_CN")
    else:
        catalogue = Catalog(locale="zh_CN", project="whoamai")
    catalogue.update(template, no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    return catalogue


def _as_po(catalogue: Catalog) -> bytes:
    """Without dates and line numbers, which would change with every edit of the source."""
    buffer = io.BytesIO()
    write_po(buffer, catalogue, width=100, omit_header=True, include_lineno=False, sort_output=True)
    header = b'msgid ""\nmsgstr ""\n"Language: zh_CN\\n"\n'
    header += b'"Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    return header + buffer.getvalue()


def _as_mo(catalogue: Catalog) -> bytes:
    plain = _Dateless(locale="zh_CN", fuzzy=False)
    for message in catalogue:
        if message.id and message.string:
            plain.add(message.id, message.string)
    buffer = io.BytesIO()
    write_mo(buffer, plain)
    return buffer.getvalue()


def _problems(catalogue: Catalog) -> list[str]:
    problems = []
    for message in catalogue:
        if not message.id:
            continue
        if not message.string:
            problems.append(f"not translated: {message.id!r}")
        elif _placeholders(message.id) != _placeholders(message.string):
            problems.append(f"placeholders differ: {message.id!r} / {message.string!r}")
    return problems


def _placeholders(text: object) -> list[str]:
    return sorted(_PLACEHOLDER.findall(str(text)))


if __name__ == "__main__":
    sys.exit(main())
