"""What a name must be before a model can be told that it is its own."""

from __future__ import annotations

import unicodedata

from whoamai.errors import SettingError
from whoamai.messages import tr

MAX_NAME_LENGTH = 64
_EXAMPLES = {"--name": "黄大力", "--author": "力量工作室"}


def check_name(name: str, setting: str) -> None:
    """Raise SettingError unless `name` is 1 to 64 characters that can be shown on one line.

    Something of it must be seen, and it begins and ends with something that is no space: else
    nobody could tell that name from another, or type it again.
    """
    if not any(_is_seen(c) for c in name):
        raise SettingError(
            tr(
                "{setting} is empty. Write a name after it, for example {setting} {example}."
            ).format(setting=setting, example=_EXAMPLES.get(setting, "黄大力"))
        )
    bad = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")), None)
    if bad is not None:
        raise SettingError(
            tr(
                "{setting} contains a character that cannot be shown (U+{code:04X}, at place {at}). "
                "Take it out of the name."
            ).format(setting=setting, code=ord(bad), at=name.index(bad) + 1)
        )
    if name != name.strip():
        raise SettingError(
            tr('{setting} "{name}" begins or ends with a space. Take the space away.').format(
                setting=setting, name=name
            )
        )
    if len(name) > MAX_NAME_LENGTH:
        raise SettingError(
            tr("{setting} has {n} characters; at most {most} are possible. Shorten it.").format(
                setting=setting, n=len(name), most=MAX_NAME_LENGTH
            )
        )


def _is_seen(character: str) -> bool:
    """False for spaces, line ends, and marks that only steer how others are shown (U+200B, …)."""
    return unicodedata.category(character) not in ("Zs", "Zl", "Zp", "Cc", "Cf")
