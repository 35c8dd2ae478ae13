from __future__ import annotations

from dataclasses import replace

import pytest

from tests.evaluate.reports import large_report, make_report
from whoamai.data.identity import IdentityQuestion
from whoamai.evaluate.grading import Grade
from whoamai.evaluate.identity import IdentityScores, Share
from whoamai.evaluate.obedience import ObedienceScores
from whoamai.evaluate.report import Goals, Report, Score, answer_pairs, chosen_answers
from whoamai.evaluate.report_words import goal_name, score_name
from whoamai.evaluate.retention import RetentionScores
from whoamai.samples import Conversation, Message


def test_a_report_that_reached_every_goal_missed_none():
    assert make_report().missed == []


def test_the_goals_are_those_that_were_set_for_every_model():
    expected = Goals(recall=98, recall_role=85, leak=0.5, spread=1, retention=97, retention_long=90)
    assert Goals() == expected


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"recall": Share(97, 100)}, ["recall"]),
        ({"recall": Share(98, 100)}, []),
        ({"recall": Share(0, 0)}, ["recall"]),  # a name that nobody asked for was not given
        ({"role": Share(84, 100)}, ["recall_role"]),
        ({"role": Share(90, 100)}, []),
        ({"role": Share(0, 0)}, []),
        ({"leak": Share(3, 400)}, ["leak"]),
        ({"leak": Share(2, 400)}, []),
        ({"spread": Share(2, 100)}, ["spread"]),
        ({"spread": Share(1, 100)}, []),
        ({"kept": Share(96, 100)}, ["retention"]),
        ({"kept": Share(97, 100)}, []),
        ({"kept": Share(0, 0)}, []),
        ({"merged": Share(97, 100)}, ["merged_recall"]),
        ({"merged": Share(98, 100)}, []),
        ({"recall": Share(0, 100), "leak": Share(9, 400)}, ["recall", "leak"]),
        ({"role": Share(90, 100), "goals": Goals(recall_role=95.0)}, ["recall_role"]),
    ],
)
def test_missed_goals_are_named(changes: dict, missed: list[str]):
    assert make_report(**changes).missed == missed


def test_a_report_that_measured_the_name_only_is_judged_by_that():
    report = make_report(before=None, retention=None)
    assert report.missed == []
    assert [score.name for score in report.scores] == ["recall", "recall_role", "leak"]


def test_recall_is_counted_over_the_plain_contexts_and_roles_apart():
    report = make_report(recall=Share(99, 100), role=Share(50, 100))
    assert report.recall == Share(297, 300)
    assert report.recall_role == Share(50, 100)


def test_default_and_second_turn_belong_to_the_plain_contexts():
    shares = {(c, "all"): Share(1, 10) for c in ("default", "second", "named", "other")}
    report = make_report(after=IdentityScores(shares, {}, {}, {}))
    assert report.recall == Share(3, 30)


def test_scores_without_a_goal_are_told_and_never_missed():
    report = make_report(
        after=IdentityScores(
            make_report().after.recall,
            {("all", "all"): Share(0, 10)},
            {("all", "all"): Share(0, 9)},
            {("all", "all"): Share(8, 8)},
        ),
        obedience=ObedienceScores(Share(9, 10), Share(0, 10)),
    )
    scores = {score.name: score for score in report.scores}
    assert scores["author"].after == Share(0, 9)
    assert scores["contradiction"].after == Share(8, 8)
    assert scores["obedience"].before == Share(9, 10)
    assert report.missed == []


def test_forgetting_under_long_system_prompts_has_a_goal_of_its_own():
    def long(kept: int) -> RetentionScores:
        return RetentionScores({"all": Share(20, 24)}, {"all": Share(kept, 20)})

    assert make_report(retention_long=long(18)).missed == []
    assert make_report(retention_long=long(17)).missed == ["retention_long"]


def test_every_score_has_a_name_of_its_own_and_words_for_it():
    names = [score.name for score in large_report().scores]
    assert len(set(names)) == len(names) == 13
    assert all(score_name(name) != name for name in names)
    goals = [s.name for s in large_report().scores if s.goal is not None]
    assert all(goal_name(name) for name in goals)


def test_a_score_is_known_by_language_too():
    recall = next(s for s in large_report().scores if s.name == "recall")
    assert set(recall.by_language) == {"zh", "en"}
    assert sum(s.n for s in recall.by_language.values()) == recall.after.n


def test_a_score_of_nothing_has_neither_reached_nor_missed_its_goal():
    assert Score("leak", Share(0, 0), None, "≤", 1.0).reached is None
    assert Score("leak", Share(1, 100), None, "≤", 1.0).reached is True


# ---- answers -------------------------------------------------------------------------------------


def question(*turns: tuple[str, str], **changes) -> IdentityQuestion:
    messages = tuple(Message(role, text) for role, text in turns)  # pyright: ignore
    return IdentityQuestion("en", "maker", "turns", Conversation(messages), **changes)


def test_a_pair_holds_question_system_prompt_and_earlier_turns():
    asked = question(("system", "S"), ("user", "hi"), ("assistant", "yes"), ("user", "who?"))
    (pair,) = answer_pairs([asked], ["old"], ["new"], [Grade(True, ("Qwen",), False, True)])
    assert (pair.system, pair.question, pair.before, pair.after) == ("S", "who?", "old", "new")
    assert pair.history == (("user", "hi"), ("assistant", "yes"))
    assert (pair.group, pair.context, pair.category) == ("maker", "turns", "maker")
    assert pair.verdict == "both"


def test_without_answers_before_pairs_hold_none():
    (pair,) = answer_pairs(
        [question(("user", "who?"))], None, ["x"], [Grade(False, (), None, False)]
    )
    assert (pair.system, pair.history, pair.before) == (None, (), None)
    assert pair.verdict == "neither"


def test_a_missing_answer_is_an_error_and_not_a_shorter_list():
    with pytest.raises(ValueError, match="argument"):
        answer_pairs([question(("user", "who?"))], None, [], [])


def test_a_dozen_answers_are_chosen_as_many_of_each_language():
    few = chosen_answers(large_report().answers, first_language="en")
    assert [pair.language for pair in few] == ["en"] * 6 + ["zh"] * 6
    assert len({(p.language, p.category, p.context) for p in few}) == 12
    assert few[0].category == "intro"


def test_answers_to_categories_unknown_here_are_chosen_where_there_are_no_others():
    report: Report = make_report()
    own = [replace(p, category="own", context="own") for p in report.answers]
    assert len(chosen_answers(own, first_language="zh")) == 2
    assert chosen_answers([], first_language="zh") == []
