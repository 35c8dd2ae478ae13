"""The one exception tree: what a user can be told, and can do something about.

Every message says what is wrong, where (a path, a row, a setting) and what to do. Anything that is
not a WhoamaiError is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from whoamai.messages import tr

if TYPE_CHECKING:
    from whoamai.config.problems import ConfigProblem

# A file that is no config at all has a problem a line; a screen holds about so many.
_SHOWN = 40


class WhoamaiError(Exception):
    """Base of everything a user can mend. The command line prints it in red and exits with 2."""


class SettingError(WhoamaiError, ValueError):
    """A value given on the command line or in a config cannot be used."""


class ConfigError(SettingError):
    """A config cannot be used. All its problems, in the order of its lines."""

    def __init__(self, config: str, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(_list_of_problems(config, self.problems))


class DataError(WhoamaiError, ValueError):
    """A data file is missing, unreadable, empty or not of a known form."""


class ModelError(WhoamaiError, ValueError):
    """A model folder or hub name cannot be loaded, or the model cannot be used for this."""


class OutputError(WhoamaiError, OSError):
    """A result cannot be written: no space, no permission, something in the way."""


def _list_of_problems(config: str, problems: Sequence[ConfigProblem]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    head = tr("{config} has {n} problems:").format(config=config, n=len(problems))
    lines = [head, *(f"  {problem}" for problem in problems[:_SHOWN])]
    if len(problems) > _SHOWN:
        lines.append("  " + tr("and {n} more").format(n=len(problems) - _SHOWN))
    return "\n".join(lines)
