"""Everything a person reads exists in English and Chinese."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import messages as catalogue_tool  # tools/messages.py
import pytest

from whoamai.messages import joined, language, tr, use_language

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "whoamai"
SOURCES = {str(p.relative_to(PACKAGE)): p for p in sorted(PACKAGE.rglob("*.py"))}


def _calls(where: Path | ast.AST, *names: str) -> list[ast.Call]:
    tree = ast.parse(where.read_text("utf-8")) if isinstance(where, Path) else where
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names
    ]


def _check(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["messages.py", "--check"])
    return catalogue_tool.main()


@pytest.fixture
def copied_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tool works on a copy of the .po and .mo, both brought up to date."""
    for name in ("PO", "MO"):
        copy = tmp_path / getattr(catalogue_tool, name).name
        shutil.copy(getattr(catalogue_tool, name), copy)
        monkeypatch.setattr(catalogue_tool, name, copy)
    monkeypatch.setattr(catalogue_tool, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["messages.py"])
    catalogue_tool.main()
    return tmp_path / "whoamai.po"


def test_every_text_is_translated_and_the_catalogue_is_current(monkeypatch, capsys):
    assert _check(monkeypatch) == 0, capsys.readouterr().out


def test_the_check_finds_a_text_without_translation(copied_catalogue, monkeypatch, capsys):
    text = copied_catalogue.read_text("utf-8")
    head, _, tail = text.partition('msgid "before"\n')
    copied_catalogue.write_text(
        head + 'msgid "before"\nmsgstr ""\n' + tail.partition("\n")[2], "utf-8"
    )
    assert _check(monkeypatch) == 1
    assert "not translated: 'before'" in capsys.readouterr().out


def test_the_check_finds_a_translation_that_drops_a_placeholder(
    copied_catalogue, monkeypatch, capsys
):
    text = copied_catalogue.read_text("utf-8")
    key = 'msgid "Loading {model}"\n'
    head, _, tail = text.partition(key)
    copied_catalogue.write_text(
        head + key + 'msgstr "正在载入"\n' + tail.partition("\n")[2], "utf-8"
    )
    assert _check(monkeypatch) == 1
    assert "placeholders differ: 'Loading {model}'" in capsys.readouterr().out


def test_the_check_finds_a_compiled_catalogue_that_is_out_of_date(
    copied_catalogue, monkeypatch, capsys
):
    copied_catalogue.with_suffix(".mo").write_bytes(b"old")
    assert _check(monkeypatch) == 1
    assert "out of date" in capsys.readouterr().out


def test_the_compiled_catalogue_holds_no_date(copied_catalogue):
    """A date would make the same texts compile to other bytes a minute later."""
    assert b"Creation-Date" not in copied_catalogue.with_suffix(".mo").read_bytes()


@pytest.mark.parametrize("name", SOURCES)
def test_tr_is_given_literal_texts_or_what_later_was_given(name: str):
    """An f-string or a sum is in no catalogue. A variable is a text that was declared with later()."""
    for call in _calls(SOURCES[name], "tr"):
        where = f"{name}:{call.lineno}"
        assert len(call.args) == 1, where
        argument = call.args[0]
        if isinstance(argument, ast.Constant):
            assert argument.value, f"{where}: tr('') would show the catalogue's head"
        else:
            built = (ast.JoinedStr, ast.BinOp)
            assert not any(isinstance(node, built) for node in ast.walk(argument)), where


@pytest.mark.parametrize("name", SOURCES)
def test_later_is_only_given_literal_texts(name: str):
    for call in _calls(SOURCES[name], "later"):
        assert [type(argument) for argument in call.args] == [ast.Constant], f"{name}:{call.lineno}"


@pytest.mark.parametrize("name", SOURCES)
def test_no_text_to_be_translated_hides_in_an_f_string(name: str):
    """The collector of Python 3.11 does not look into f-strings."""
    for node in ast.walk(ast.parse(SOURCES[name].read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            hidden = [
                call.lineno
                for part in node.values
                for call in _calls(part, "tr", "later")
                if isinstance(call.args[0], ast.Constant)
            ]
            assert not hidden, f"{name}:{hidden}"


def _untranslated(argument: ast.expr) -> str:
    """The letters of a literal or f-string that a person would read as they are."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        texts = [argument.value]
    elif isinstance(argument, ast.JoinedStr):
        texts = [str(v.value) for v in argument.values if isinstance(v, ast.Constant)]
    else:
        return ""
    return "".join(c for text in texts for c in text.replace("whoamai", "") if c.isalpha())


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_printed_or_raised_for_people_without_tr(name: str):
    errors = ("SettingError", "DataError", "ModelError", "OutputError", "WhoamaiError")
    for call in _calls(SOURCES[name], "print", "Note", "add_column", *errors):
        for argument in call.args[:1]:
            assert _untranslated(argument) == "", f"{name}:{call.lineno}"


def test_whoamai_lang_chooses_the_language(monkeypatch):
    monkeypatch.setenv("WHOAMAI_LANG", "zh")
    assert language() == "zh_CN"


def test_whoamai_lang_goes_before_the_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.setenv("WHOAMAI_LANG", "en")
    assert language() == "en"


@pytest.mark.parametrize("variable", ["LC_ALL", "LC_MESSAGES", "LANG"])
def test_without_whoamai_lang_the_locale_chooses(monkeypatch, variable: str):
    monkeypatch.delenv("WHOAMAI_LANG")
    monkeypatch.setenv(variable, "zh_CN.UTF-8")
    assert language() == "zh_CN"


def test_lc_all_goes_before_lang(monkeypatch):
    monkeypatch.delenv("WHOAMAI_LANG")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert language() == "en"


def test_without_any_setting_messages_are_english(monkeypatch):
    monkeypatch.delenv("WHOAMAI_LANG")
    assert language() == "en"


def test_a_language_we_do_not_have_is_shown_in_english(monkeypatch):
    monkeypatch.setenv("WHOAMAI_LANG", "fr")
    assert tr("before") == "before"


def test_use_language_goes_before_the_environment_and_ends_with_its_block():
    with use_language("zh"):
        assert language() == "zh_CN"
    assert language() == "en"


def test_use_language_ends_when_its_block_fails():
    with pytest.raises(RuntimeError), use_language("zh"):
        raise RuntimeError
    assert language() == "en"


def test_a_text_is_shown_in_chinese():
    with use_language("zh"):
        shown = tr("Before and after")
    assert any("\u4e00" <= c <= "\u9fff" for c in shown)


def test_a_text_without_translation_is_shown_as_it_is():
    with use_language("zh"):
        assert tr("no such text {x}") == "no such text {x}"


def test_sentences_are_joined_as_their_language_does():
    assert joined("It fits.", "", "Two hours.") == "It fits. Two hours."
    assert joined("放得下。", "两小时。") == "放得下。两小时。"
