"""The user's own questions about who the model is: `--questions FILE`.

    questions.txt      one question a line; empty lines, and lines that begin with #, are left out
    questions.jsonl    an object a line; also .json (lines or one list), .yaml (a list), .csv, .tsv:

        {"question": "你是谁", "system": "你是{role}", "history": [["你好", "你好！"]],
         "language": "zh", "group": "maker"}

Only `question` is needed. `history` are earlier turns, as [user, assistant] pairs or as messages with
role and content. `group` is what reports count it under, "own" where nothing is said; in the group
"maker" the author has to be named too. A row may also be a question alone, as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from whoamai.data.identity import LANGUAGES, ContextKind, IdentityQuestion, check_languages
from whoamai.data.readers import flaw_text
from whoamai.data.sources import read_rows
from whoamai.errors import DataError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message

OWN_GROUP = "own"
_KEYS = ("question", "system", "history", "language", "group")
_YAML = (".yaml", ".yml")
_OTHERS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet")
_SHOWN = 10  # problems; a file of another form has one a row
_LONGEST_GROUP = 40  # characters; it is a heading in the reports
_UNFIT = re.compile(r"[\ud800-\udfff]")  # half characters: no tokenizer takes them
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")


class _Wrong(Exception):
    """What is wrong with a row, in words."""


def read_own_questions(path: Path, default_language: str) -> list[IdentityQuestion]:
    """The questions of a file, in order; `default_language` where a row says none.

    A question counts under the context "named" where it has a system prompt (as those of the user's
    data do), "second" where it has earlier turns only, else "none"; its category is its group. Raises
    DataError with all that is wrong, each with its file and row; SettingError for a language we do not
    have.
    """
    check_languages([default_language])
    found, problems = [], []
    for number, value in _rows(path):
        try:
            found.append(_question(value, default_language))
        except _Wrong as wrong:
            problems.append(f"{path.name}:{number}: {wrong}")
    if problems:
        raise DataError(_told(path, problems))
    if not found:
        text = tr("{path} holds no questions. Write one on each line.")
        raise DataError(text.format(path=path))
    return found


def _told(path: Path, problems: list[str]) -> str:
    lines = [tr("{path}: {n} questions cannot be used.").format(path=path, n=len(problems))]
    lines += [f"  {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append("  " + tr("and {n} more").format(n=len(problems) - _SHOWN))
    return "\n".join(lines)


# ---- files to rows -------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(the row's number, its value); the number of a line where the file has lines."""
    name = path.name.lower()
    ending = Path(name).suffix
    if path.is_dir():
        raise DataError(tr("{path} is a folder. Give a file.").format(path=path))
    if ending in _YAML:
        yield from _yaml_rows(path)
    elif Path(name.removesuffix(".gz")).suffix in _OTHERS:
        for row in read_rows(path):
            yield row.number, _Wrong(flaw_text(row)) if row.flaw else row.value
    elif ending == ".txt":
        for number, line in enumerate(_text(path).splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield number, line.strip()
    else:
        text = tr("{path} is of no known kind. Known are {known}.")
        raise DataError(text.format(path=path, known=", ".join((".txt", *_YAML, *_OTHERS))))


def _yaml_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The items of the list that the file is, each with the line it begins on."""
    text = _text(path)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        items = root.value if isinstance(root, yaml.SequenceNode) else None
        rows = [(n.start_mark.line + 1, loader.construct_document(n)) for n in items or ()]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        text = tr("{path}:{line} cannot be read as YAML: {reason}. Put the text in quotes.")
        raise DataError(text.format(path=path, line=line, reason=error.problem)) from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        text = tr("{path} cannot be read as YAML: {reason}")
        raise DataError(text.format(path=path, reason=str(error).split("\n")[0])) from None
    if root is not None and items is None:
        text = tr('{path} is no list. Begin each question with "- ".')
        raise DataError(text.format(path=path))
    yield from rows


def _text(path: Path) -> str:
    """Raises DataError where the file cannot be read or is no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(tr("There is no file {path}.").format(path=path)) from None
    except OSError as error:
        text = tr("{path} cannot be read: {error}")
        raise DataError(text.format(path=path, error=error.strerror or error)) from None
    except UnicodeDecodeError:
        raise DataError(
            tr("{path} is not UTF-8 text. Save it as UTF-8.").format(path=path)
        ) from None


# ---- rows to questions ---------------------------------------------------------------------------


def _question(row: Any, default_language: str) -> IdentityQuestion:
    """Raises _Wrong where the row is no question."""
    if isinstance(row, _Wrong):
        raise row
    if isinstance(row, str):
        row = {"question": row}
    if not isinstance(row, Mapping):
        raise _Wrong(tr('it is neither a text nor an object with a "question"'))
    unknown = [str(key)[:_LONGEST_GROUP] for key in row if key not in _KEYS]
    if unknown:
        text = tr("unknown: {unknown}. Known are {known}")
        raise _Wrong(text.format(unknown=", ".join(unknown), known=", ".join(_KEYS)))
    system, history = _said(row, "system"), _history(row.get("history"))
    question = _said(row, "question")
    if not question:
        raise _Wrong(tr('"question" is missing or empty'))
    language = _said(row, "language").lower() or default_language
    if language not in LANGUAGES:
        text = tr('the language "{given}" is not known. Known are {known}')
        raise _Wrong(text.format(given=language, known=", ".join(LANGUAGES)))
    before = (*([Message("system", system)] if system else ()), *history)
    conversation = Conversation((*before, Message("user", question)))
    context: ContextKind = "named" if system else "second" if history else "none"
    return IdentityQuestion(language, _group(row), context, conversation)


def _said(row: Mapping[Any, Any], key: str, place: str = "") -> str:
    """The text of a field without the space around it; "" where there is none."""
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        text = tr('"{key}" is {kind} where text belongs. Put it in quotes')
        raise _Wrong(text.format(key=place + key, kind=type(value).__name__))
    if _UNFIT.search(value):
        text = tr('"{key}" holds half of a character (a lone surrogate)')
        raise _Wrong(text.format(key=place + key))
    return value.strip()


def _group(row: Mapping[Any, Any]) -> str:
    group = _said(row, "group") or OWN_GROUP
    if len(group) > _LONGEST_GROUP or _CONTROL.search(group):
        text = tr('"group" is the heading in the report: at most {n} characters, on one line')
        raise _Wrong(text.format(n=_LONGEST_GROUP))
    return group


def _history(value: Any) -> list[Message]:
    """Earlier turns: [user, assistant] pairs, or messages with role and content in that order."""
    if not value:
        return []
    form = tr(
        '"history" is no list of [user, assistant] pairs or of messages with role and content'
    )
    if not isinstance(value, list):
        raise _Wrong(form)
    if all(isinstance(turn, Mapping) for turn in value):
        turns = [(turn.get("role"), turn.get("content")) for turn in value]
    elif all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        turns = [t for user, reply in value for t in (("user", user), ("assistant", reply))]
    else:
        raise _Wrong(form)
    if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise _Wrong(tr('"history" does not go user, assistant, user, assistant'))
    messages = []
    for at, (role, text) in enumerate(turns):
        said = _said({"content": text}, "content", f"history[{at}].")
        if not said:
            raise _Wrong(tr('"history" has a turn without text'))
        messages.append(Message(role, said))
    return messages
