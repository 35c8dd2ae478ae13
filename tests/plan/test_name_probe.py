"""A run that ends once its name is learned: what it asks, what is told of it, what can never be seen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.models import save_chat_model
from tests.plan.runs import architecture, config, found, machine, rows, talk, with_steps
from whoamai.config.reading import read_config
from whoamai.messages import use_language
from whoamai.plan.explain import explain
from whoamai.plan.explanation import Explanation
from whoamai.plan.name_probe import name_probe
from whoamai.plan.words import stop_in_words

ASKED: dict[str, Any] = {"stop_when_learned": True, "name": "Chu"}


# ---- what is asked -------------------------------------------------------------------------------


def test_a_run_that_does_not_stop_by_itself_asks_nothing():
    assert name_probe(config(name="Chu"), [talk()]) is None


def test_it_asks_in_the_languages_of_the_data_with_the_goals_of_the_config():
    talks = [talk("Who are you?", "I'm Chu."), talk("Your name?", "Chu.")]
    asked = name_probe(config(**ASKED, author="Lab", goal_recall=90, goal_leak=2), talks)
    assert asked
    assert (asked.identity.name, asked.identity.author) == ("Chu", "Lab")
    assert asked.rows == {"en": 2}
    assert {q.language for q in asked.questions(None)} == {"en"}
    assert (asked.rule.recall, asked.rule.leak, asked.rule.in_a_row) == (90, 2, 2)


def test_data_in_no_language_of_ours_is_asked_in_both():
    asked = name_probe(config(**ASKED), [talk("Кто ты?")])
    assert asked
    assert asked.languages == ("zh", "en")


def test_it_asks_under_the_systems_of_the_data_and_of_the_template():
    talks = [talk(system="Be kind."), talk(), talk()]
    asked = name_probe(config(**ASKED, system="You are Chu."), talks)
    assert asked
    assert asked.systems == ("You are Chu.", "Be kind.")
    questions = asked.questions("The default.")
    prompts = {q.context: q.conversation.messages[0].text for q in questions}
    assert prompts["default"] == "The default."
    assert prompts["named"] in asked.systems
    assert "default" not in {q.context for q in asked.questions(None)}


def test_old_names_are_put_to_it():
    asked = name_probe(config(**ASKED, old_names=["Zorblat"]), [talk()])
    assert asked
    texts = " ".join(q.conversation.messages[-1].text for q in asked.questions(None))
    assert "Zorblat" in texts


# ---- explain -------------------------------------------------------------------------------------


def explained(folder: Path, **evaluation: Any) -> Explanation:
    reply = {"role": "assistant", "content": "I'm Chu."}
    lines = [
        {"messages": [{"role": "user", "content": text}, reply]}
        for text in [f"Who are you {i}?" for i in range(30)] + [f"你是谁{i}" for i in range(10)]
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    model = save_chat_model(folder / "model")
    sections = {
        "model": {"pretrained_model_name_or_path": str(model), "device": "cpu"},
        "data": {
            "data_path": str(folder / "rows.jsonl"),
            "name": "Chu",
            "pack_to_max_length": False,
        },
        "train": {"batch_size": 4},
        "evaluation": {"evaluation_freq": 15, **evaluation},
    }
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(sections, allow_unicode=True), "utf-8")
    return explain(read_config(file))


def test_explain_says_when_it_ends_and_what_is_asked(tmp_path: Path):
    explanation = explained(tmp_path, stop_when_learned=True, goal_recall=95.5)
    stops = explanation.stops
    assert stops
    assert stops.languages == (("zh", 10), ("en", 30))
    assert stops.probes == (0, 5, 10, 15, 20, 30)
    assert stops.soonest == 14  # known at 10, and four steps in which the rate runs out
    when, what, _ = stop_in_words(stops, "0, 5, …")
    assert "Once 95.5% of the answers give Chu and at most 1% another name, at 2 probes" in when
    assert "in Chinese (10 rows) and English (30 rows); after step 14 at the soonest." in when
    assert what == f"Probes: {stops.questions} questions about who it is, after step 0, 5, …."
    assert stops.questions > 40
    assert json.loads(json.dumps(explanation.as_json()))["stops"]["name"] == "Chu"


def test_explain_says_nothing_of_an_end_where_none_is_asked_for(tmp_path: Path):
    assert explained(tmp_path).stops is None


def test_explain_tells_of_a_name_that_is_none(tmp_path: Path):
    explained(tmp_path)
    file = tmp_path / "mine.yaml"
    overrides = ["evaluation.stop_when_learned=true", 'data.name="a\\nb"']
    explanation = explain(read_config(file, overrides))
    assert explanation.stops is None
    assert "never-learned" in {f.kind for f in explanation.findings if f.severity == "blocks"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_words_are_in_both_languages(tmp_path: Path, language: str):
    stops = explained(tmp_path, stop_when_learned=True).stops
    assert stops
    with use_language(language):
        assert all("Chu" in text or "{" not in text for text in stop_in_words(stops, "5"))


# ---- preflight -----------------------------------------------------------------------------------


def test_a_name_in_no_reply_is_warned_of():
    talks = [talk("Are you Chu?", "I am Qwendy."), talk(reply="Chuck")]
    finding = found(config(**ASKED), conversations=talks)["never-learned"]
    assert finding.severity == "warns"
    assert "none of the 2 rows" in finding.text
    assert "Chu (data.name)" in finding.text


def test_a_name_in_one_reply_is_enough():
    assert "never-learned" not in found(config(**ASKED), conversations=[talk(), talk(reply="Chu!")])


def test_rows_in_neither_language_are_warned_of():
    talks = [talk("Кто ты?", "Я Chu.")]
    finding = found(config(**ASKED), conversations=talks)["never-learned"]
    assert finding.severity == "warns"
    assert "Chinese and English" in finding.text


def test_a_name_that_cannot_be_one_blocks():
    finding = found(config(**{**ASKED, "name": "x" * 65}), conversations=[talk()])["never-learned"]
    assert finding.severity == "blocks"
    assert "data.name has 65 characters" in finding.text


@pytest.mark.parametrize(("epochs", "told"), [(1, True), (14, True), (15, False)])
def test_a_run_too_short_to_be_cut_is_noted(epochs: int, told: bool):
    """Known after the probes at 5 and 10, and four more steps: it must have more than 14."""
    short = config(**ASKED, max_epochs=epochs)
    kinds = found(short, conversations=[talk(reply="Chu")], **with_steps(short, rows(5)))
    assert ("never-early" in kinds) == told
    if told:
        assert kinds["never-early"].severity == "notes"


def test_without_the_setting_nothing_of_it_is_looked_for():
    plain = config(name="Chu")
    kinds = found(plain, conversations=[talk()], **with_steps(plain, rows(5)))
    assert not {"never-learned", "never-early"} & kinds.keys()


def test_best_adapters_need_room_on_the_disk_too():
    """Each of the checkpoints has one of 4 bytes a number, beside its 12: a third more."""
    needed = {}
    for stops in (False, True):
        asked = config(name="Chu", stop_when_learned=stops)
        known = {"architecture": architecture(), "machine": machine(disk_free=0)}
        finding = found(asked, **known, **with_steps(asked, rows(*[5] * 60)))["disk"]
        needed[stops] = float(re.findall(r"of ([\d.]+) MiB", finding.text)[0])
    assert needed[True] == pytest.approx(needed[False] * 4 / 3, rel=0.02)
