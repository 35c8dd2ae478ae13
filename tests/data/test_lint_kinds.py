from __future__ import annotations

import re
from pathlib import Path

import pytest

from whoamai.data import lint_kinds
from whoamai.data.lint_kinds import kind, kind_names
from whoamai.messages import use_language

SOURCE = Path(lint_kinds.__file__).parent


@pytest.mark.parametrize("name", kind_names())
def test_every_kind_says_what_it_is_and_what_to_do_in_both_languages(name: str):
    english = kind(name)
    assert english.name == name
    assert english.severity in ("blocks", "warns", "notes")
    assert english.cure.endswith((".", "…"))
    with use_language("zh"):
        chinese = kind(name)
    assert re.search("[\u4e00-\u9fff]", chinese.title + chinese.cure)
    assert chinese.severity == english.severity


def test_no_two_kinds_are_called_the_same():
    titles = [kind(name).title for name in kind_names()]
    assert len(set(titles)) == len(titles)


def test_names_can_be_typed():
    assert all(re.fullmatch("[a-z]+(-[a-z0-9]+)*", name) for name in kind_names())


def test_an_unknown_kind_is_a_mistake_of_ours():
    with pytest.raises(KeyError):
        kind("no-such-kind")


@pytest.mark.parametrize(
    "name",
    ["not-json", "broken-utf8", "ends-early", "wrong-columns", "unknown-form", "nested-object",
     "not-text", "no-turns", "unknown-role", "role-order", "no-reply", "empty-reply", "two-systems",
     "half-character", "placeholder", "unfilled-name", "special-token", "old-name-left"],
)  # fmt: skip
def test_what_wastes_a_training_blocks_it(name: str):
    assert kind(name).severity == "blocks"


def test_every_kind_the_modules_tell_is_known_and_every_known_one_is_told():
    """Kinds stand as texts in the modules that find them; flaws are spelled with "_"."""
    files = ("raw_rows", "json_rows", "table_rows", "formats", "lint", "repair")
    code = "".join((SOURCE / f"{file}.py").read_text("utf-8") for file in files)
    spelled = {name: (f'"{name}"', f'"{name.replace("-", "_")}"') for name in kind_names()}
    assert [n for n, words in spelled.items() if not any(word in code for word in words)] == []
