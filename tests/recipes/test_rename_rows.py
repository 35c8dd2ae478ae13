from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models import make_tokenizer
from whoamai.data.identity import Identity
from whoamai.data.templates import ChatTemplate
from whoamai.errors import DataError
from whoamai.evaluate.identity import SelfDescription
from whoamai.events import Events, Note
from whoamai.recipes.rename_rows import (
    DataRequest,
    data_systems,
    identity_rows,
    read_data,
    tell_about_template,
)
from whoamai.samples import Conversation, Message


def write(path: Path, *replies: str) -> Path:
    rows = [{"messages": [{"role": "system", "content": "你是小初。"},
                          {"role": "user", "content": "你是谁"},
                          {"role": "assistant", "content": r}]} for r in replies]  # fmt: skip
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), "utf-8")
    return path


def read(path: Path, identity: Identity | None = None, **changes) -> tuple[list[str], list[Note]]:
    """The texts that are trained on, and what the user is told."""
    heard: list = []
    request = replace(DataRequest((path,)), **changes)
    data = read_data(request, identity or Identity("黄大力"), Events([heard.append]))
    return [m.text for c in data for m in c.messages], heard


def test_the_name_in_the_data_is_found_and_replaced(tmp_path: Path):
    texts, notes = read(write(tmp_path / "d.jsonl", "我是小初。", "我叫小初。"))
    assert texts == [
        "你是黄大力。",
        "你是谁",
        "我是黄大力。",
        "你是黄大力。",
        "你是谁",
        "我叫黄大力。",
    ]
    assert "2 conversations; replaced by 黄大力: 4 × 小初" in notes[0].text


def test_the_name_the_user_says_is_replaced(tmp_path: Path):
    texts, _ = read(write(tmp_path / "d.jsonl", "我们家的小布。"), old_names=("小布",))
    assert texts[-1] == "我们家的黄大力。"


def test_data_that_names_nobody_is_warned_of(tmp_path: Path):
    _, notes = read(write(tmp_path / "d.jsonl", "好的。"))
    assert notes[0].level == "warning"
    assert "--old NAME" in notes[0].text


def test_placeholders_are_filled(tmp_path: Path):
    texts, _ = read(
        write(tmp_path / "d.jsonl", "I'm {{name}} by {{ AUTHOR }}."), identity=Identity("N", "A")
    )
    assert texts[-1] == "I'm N by A."


@pytest.mark.parametrize("placeholder", ["{{author}}", "{{ AUTHOR }}", "{{\tauthor}}"])
def test_a_placeholder_for_an_author_nobody_gave_is_refused(tmp_path: Path, placeholder: str):
    with pytest.raises(DataError, match="--author"):
        read(write(tmp_path / "d.jsonl", f"Made by {placeholder}."))


@pytest.mark.parametrize(
    ("rows", "data", "made"), [(None, 10, 900), (None, 700, 1400), (24, 700, 24)]
)
def test_more_identity_rows_are_made_beside_much_data(rows: int | None, data: int, made: int):
    assert len(generated(rows=rows, beside=data)) == made


def generated(**changes) -> list[Conversation]:
    settings = {"languages": ["en"], "rows": 60, "beside": 0, "seed": 0, "default_system": None}
    old = changes.pop("old", SelfDescription(("Qwen",), ("Alibaba Cloud",)))
    identity = changes.pop("identity", Identity("Aurora", "Dawn Ltd"))
    return identity_rows(identity, old, **{**settings, **changes})


DEFAULT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


RENAMED = "You are Aurora, created by Dawn Ltd. You are a helpful assistant."


def test_a_templates_default_system_prompt_is_trained_with_replaced_and_without_it():
    plain, under = generated(), generated(default_system=DEFAULT)
    bare = [i for i, c in enumerate(plain) if c.messages[0].role != "system"]
    given = [under[i].messages[0].text for i in bare if under[i] != plain[i]]
    assert set(given) == {RENAMED, ""}
    assert abs(len(given) - 2 * len(bare) / 3) <= 1
    assert all(a == b for i, (a, b) in enumerate(zip(plain, under, strict=True)) if i not in bare)


def test_names_in_the_default_are_replaced_whole_though_the_model_never_gave_them():
    under = generated(default_system=DEFAULT, old=SelfDescription((), ()))
    assert RENAMED in {c.messages[0].text for c in under}


def test_a_default_that_would_still_name_the_old_maker_is_not_trained_with():
    under = generated(default_system=DEFAULT, identity=Identity("Aurora"))
    systems = {c.messages[0].text for c in under if c.messages[0].role == "system"}
    assert "" in systems
    assert not any("Alibaba" in system or "Qwen" in system for system in systems)


def test_the_datas_system_prompts_come_most_frequent_first_and_at_most_eight():
    def under(system: str) -> Conversation:
        return Conversation((Message("system", system), Message("user", "?")))

    data = [under("A"), under("B"), under("B"), Conversation((Message("user", "?"),))]
    assert data_systems(data) == ["B", "A"]
    assert len(data_systems([under(str(i)) for i in range(20)])) == 8


def test_what_blocks_training_is_refused_with_its_place_and_cure(tmp_path: Path):
    path = write(tmp_path / "d.jsonl", "我是小初。", "TODO")
    with pytest.raises(DataError) as error:
        read(path)
    for part in ("[placeholder]", "d.jsonl:2", "whoamai data repair"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_several_findings_are_refused_together(tmp_path: Path):
    path = write(tmp_path / "d.jsonl", "TODO", "我是小初。<|im_end|>")
    with pytest.raises(
        DataError, match=r"(?s)placeholder.*special-token|special-token.*placeholder"
    ):
        read(path)


def test_what_is_allowed_is_trained_on_and_told(tmp_path: Path):
    path = write(tmp_path / "d.jsonl", "我是小初。", "我叫小初。", "TODO")
    texts, notes = read(path, allow=("placeholder",))
    assert "TODO" in texts
    assert any(n.level == "warning" and "placeholders" in n.text for n in notes)


def test_rows_that_cannot_be_read_are_left_out_where_that_is_allowed(tmp_path: Path):
    path = write(tmp_path / "d.jsonl", "我是小初。", "我叫小初。")
    path.write_text(path.read_text("utf-8") + "\n{oops\n", "utf-8")
    texts, _ = read(path, allow=("not-json",))
    assert len(texts) == 6


def test_what_a_person_should_look_at_is_told(tmp_path: Path):
    path = write(tmp_path / "d.jsonl", "我是小初。", "我是小初。")
    _, notes = read(path)
    assert any("rows that occur more than once" in n.text for n in notes)


def heard_of(chat_template: str | None) -> list[str]:
    heard: list = []
    tell_about_template(ChatTemplate(make_tokenizer(chat_template)), Events([heard.append]))
    return [note.text for note in heard]


_TURNS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
_START = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
_INSERTS = (
    "{% if messages[0]['role'] != 'system' %}{{ 'system: You are Qwen.<|im_end|>\n' }}{% endif %}"
)


def test_a_template_that_names_another_assistant_is_told_of():
    (told,) = heard_of(_INSERTS + _TURNS + _START)
    assert "You are Qwen." in told


def test_a_template_that_inserts_nothing_is_not_told_of():
    assert heard_of(_TURNS + _START) == []
