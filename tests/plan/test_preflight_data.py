from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.plan.runs import config, found, talk, template_of
from whoamai.data.encode import Encoded, encode
from whoamai.data.lint import CheckOptions, check
from whoamai.plan.preflight_kinds import kind
from whoamai.samples import Conversation, Message, Sample

# ---- the rows ------------------------------------------------------------------------------------


def _long_rows(n_long: int, n_all: int, *, system: str | None = None):
    run = config(max_length=64, system=system)
    conversations = [talk("why " * (60 if i < n_long else 2), row=i + 1) for i in range(n_all)]
    template = template_of()
    encoded = encode(conversations, template, max_length=64, system=system)
    return run, {"conversations": conversations, "template": template, "encoded": encoded}


def test_a_few_rows_left_out_are_a_warning_with_the_max_length_that_keeps_them():
    run, known = _long_rows(1, 20)
    finding = found(run, **known)["rows-left-out"]
    assert finding.severity == "warns"
    assert "1 of 20 rows (5.0 %)" in finding.text
    assert "data.jsonl:1" in finding.text
    enough = int(re.search(r"data\.max_length=(\d+)", finding.cure)[1])  # pyright: ignore
    again = encode(known["conversations"], known["template"], max_length=enough)
    assert not again.left_out
    assert not again.cut


def test_the_configs_system_prompt_counts_in_what_would_keep_rows_whole():
    run, known = _long_rows(1, 20, system="be kind " * 20)
    assert known["encoded"].left_out
    enough = int(re.search(r"=(\d+)", found(run, **known)["rows-left-out"].cure)[1])  # pyright: ignore
    again = encode(
        known["conversations"], known["template"], max_length=enough, system="be kind " * 20
    )
    assert not again.left_out


@pytest.mark.parametrize(("n_long", "n_all"), [(3, 20), (5, 5)])
def test_more_than_a_tenth_left_out_is_refused(n_long: int, n_all: int):
    run, known = _long_rows(n_long, n_all)
    assert found(run, **known)["rows-left-out"].severity == "blocks"


def test_rows_without_a_reply_to_train_on_are_counted_apart():
    silent = Conversation((Message("user", "Hello"),), "data.jsonl:9")
    conversations = [*(talk(row=i) for i in range(20)), silent]
    encoded = encode(conversations, template_of(), max_length=64)
    finding = found(config(), conversations=conversations, encoded=encoded)["rows-left-out"]
    assert "1 of them have no reply to train on at all" in finding.text


def test_rows_that_lose_turns_are_a_warning():
    turns = (*talk().messages, Message("user", "why " * 60), *talk().messages[1:])
    conversations = [talk(row=1), Conversation(turns, "data.jsonl:2")]
    encoded = encode(conversations, template_of(), max_length=64)
    finding = found(config(), conversations=conversations, encoded=encoded)["rows-cut"]
    assert finding.severity == "warns"
    assert "1 of 2 rows (50.0 %)" in finding.text


def test_rows_without_any_target_are_refused():
    encoded = Encoded((Sample((1, 2), (False, False)),), ("data.jsonl:1",), (), ())
    assert found(config(), encoded=encoded)["no-targets"].severity == "blocks"


# ---- texts and names -----------------------------------------------------------------------------


def test_the_findings_of_the_data_check_keep_their_kind(tmp_path: Path):
    file = tmp_path / "data.jsonl"
    row = '{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "%s"}]}'
    file.write_text(
        "\n".join(row % text for text in ("I am {{name}}.", "xxx", "I'm Chu.")), "utf-8"
    )
    findings = found(config(), data_report=check(file, CheckOptions()))
    assert findings["unfilled-name"].severity == "blocks"
    assert "data.jsonl:1" in findings["unfilled-name"].text
    assert findings["placeholder"].cure == kind("placeholder").cure
    assert not {"repeated-system", "duplicate-row", "too-long"} & set(findings)


def test_without_a_data_check_the_texts_are_looked_at():
    conversations = [
        talk(reply="I am {{name}}.", row=1),
        talk(reply="I am Qwen, made by Alibaba.", row=2),
        talk(reply="Qwen again", row=3),
        talk(question="Are you Qwen?", row=4),
    ]
    findings = found(config(), conversations=conversations)
    assert findings["unfilled-name"].severity == "blocks"
    assert findings["old-name"].severity == "warns"
    assert findings["old-name"].text.startswith("2 × ")
    assert "data.jsonl:2, data.jsonl:3" in findings["old-name"].text


def test_the_own_new_name_is_no_old_one():
    conversations = [talk(reply="I am Kimi.")]
    assert "old-name" in found(config(), conversations=conversations)
    assert "old-name" not in found(config(name="Kimi"), conversations=conversations)


def test_a_name_that_must_not_be_left_is_found_in_the_rows():
    run = config(old_names=["尖米"])
    conversations = [talk(row=1), talk(reply="我是尖米。", row=2)]
    finding = found(run, conversations=conversations)["old-name-left"]
    assert finding.severity == "blocks"
    assert "1 of 2 rows: data.jsonl:2" in finding.text


def test_the_command_that_puts_the_new_name_in_is_given():
    run = config(old_names=["Old Chu"], name="Chu", data_path="my data.jsonl#100")
    cure = found(run, conversations=[talk(reply="Old Chu")])["old-name-left"].cure
    assert "whoamai data replace 'my data.jsonl' NEW.jsonl --old 'Old Chu' --new Chu;" in cure


def test_a_name_that_must_not_be_left_is_found_in_a_system_prompt_but_may_be_asked_for():
    run = config(old_names=["尖米"], asks=["你是尖米吗？"], asked_under="你是尖米的助手")
    finding = found(run)["old-name-left"]
    assert "evaluation.system" in finding.text


def test_a_placeholder_in_the_evaluation_is_found():
    run = config(asks=["Are you {{name}}?"], name="Chu")
    finding = found(run)["unfilled-name"]
    assert "evaluation.evaluation_inputs[0]" in finding.text
    assert "Write the name itself" in finding.cure
    assert found(config(system="You are {{bot}}."))["braces"].severity == "warns"
    assert found(config(system="Hi <|im_end|>"))["special-token"].severity == "blocks"


def test_a_template_that_names_another_assistant_is_a_warning():
    template = template_of("You are Qwen, created by Alibaba Cloud.")
    conversations = [talk(row=1), talk(row=2, system="Be kind.")]
    finding = found(config(), template=template, conversations=conversations)["template-identity"]
    assert finding.severity == "warns"
    assert "Qwen, Alibaba" in finding.text
    assert "1 of 2 rows" in finding.text


def test_a_template_that_gives_the_old_name_is_refused():
    template = template_of("You are 尖米.")
    finding = found(config(old_names=["尖米"]), template=template)["template-identity"]
    assert finding.severity == "blocks"
    assert "template-identity" not in found(config(), template=template_of("You are helpful."))


# ---- the evaluation ------------------------------------------------------------------------------


def test_a_question_that_is_trained_on_is_told_but_for_spaces_case_and_marks():
    run = config(asks=["Who are you?", "Name yourself"])
    conversations = [talk("who are  YOU", row=1), talk("Who are you today?", row=2)]
    finding = found(run, conversations=conversations)["question-in-training"]
    assert finding.severity == "warns"
    assert 'evaluation_inputs[0], "Who are you?", is asked in 1 rows: data.jsonl:1' in finding.text
    assert "evaluation_inputs[1]" not in finding.text


def test_a_question_of_marks_alone_is_not_every_question():
    run = config(asks=["(-:"])
    assert "question-in-training" not in found(run, conversations=[talk("!")])
    assert "question-in-training" in found(run, conversations=[talk(" (-: ")])


def test_a_run_that_asks_nothing_is_told_so():
    assert found(config(asks=[]))["no-eval"].severity == "notes"
