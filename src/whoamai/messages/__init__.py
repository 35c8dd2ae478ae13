"""Everything a person reads, in English (the source) and Chinese, through gettext.

`tr("text")` looks the text up in the current language. The language is WHOAMAI_LANG if set, else the
locale's (LC_ALL, LC_MESSAGES, LANG); `use_language` sets it for the current context. The catalogues
are locale/<language>/LC_MESSAGES/whoamai.po; `make messages` compiles them after an edit. A text that is
declared once and shown later, in whatever language holds by then, is marked with `later("text")` where
it is declared and goes through `tr` where it is shown.
"""

from __future__ import annotations

import gettext
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources
from pathlib import Path

_chosen: ContextVar[str | None] = ContextVar("whoamai_language", default=None)


def language() -> str:
    """The language messages are shown in now: "zh_CN" or "en"."""
    wanted = _chosen.get() or os.environ.get("WHOAMAI_LANG") or _locale_language()
    return "zh_CN" if wanted.lower().startswith("zh") else "en"


def tr(text: str) -> str:
    """`text` in the current language; the English text itself where no translation exists."""
    return _catalogue(language()).gettext(text)


def later(text: str) -> str:
    """`text` as it is, collected into the catalogue; `tr` translates it where it is shown."""
    return text


def joined(*sentences: str) -> str:
    """Sentences one after the other: a space between them, but none after a full stop as wide as one."""
    text = ""
    for sentence in filter(None, sentences):
        text += ("" if not text or text[-1] in "。！？" else " ") + sentence
    return text


@contextmanager
def use_language(code: str) -> Iterator[None]:
    """Show messages in `code` ("zh" or "en") inside the with-block."""
    token = _chosen.set(code)
    try:
        yield
    finally:
        _chosen.reset(token)


def _locale_language() -> str:
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(variable):
            return value
    return "en"


@cache
def _catalogue(code: str) -> gettext.NullTranslations:
    folder = Path(str(resources.files("whoamai.messages").joinpath("locale")))
    return gettext.translation("whoamai", folder, languages=[code], fallback=True)
