from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.names_in_text import Case, Names, Outcome
from whoamai.errors import SettingError


def searched(
    text: str, *pairs: tuple[str, str], whole_word: bool = False, case: Case = "exact"
) -> Outcome:
    """What search() finds; the text as it is where that is nothing."""
    names = Names(pairs, whole_word=whole_word, case=case)
    return names.search(text) or Outcome(text, {})


# ---- several names -------------------------------------------------------------------------------


def test_longer_names_are_looked_for_first():
    pairs = [("尖米", "黄大力"), ("尖米的智能助手", "大力助理")]
    outcome = searched("尖米的智能助手和尖米", *pairs)
    assert outcome.text == "大力助理和黄大力"
    assert outcome.counts == {"尖米": 1, "尖米的智能助手": 1}


def test_what_was_put_in_is_not_searched_again():
    outcome = searched("甲和乙", ("甲", "乙"), ("乙", "甲"))
    assert outcome.text == "乙和甲"
    assert outcome.joined == {}


@pytest.mark.parametrize("new", ["新尖米", "尖米二号", "尖米尖米", "大尖米米"])
def test_a_new_name_may_contain_the_old_one(new):
    outcome = searched("尖米尖米,尖米", ("尖米", new))
    assert outcome.text == f"{new}{new},{new}"
    assert outcome.joined == {}


def test_names_are_no_patterns_and_no_templates():
    outcome = searched("a.b axb (x", ("a.b", r"\1{0}$&"), ("(x", "ok"))
    assert outcome.text == r"\1{0}$& axb ok"


def test_a_pair_that_differs_in_case_only_is_two_names_where_case_counts():
    assert searched("Chu chu", ("Chu", "A"), ("chu", "b")).text == "A b"


@given(
    st.text(st.sampled_from("尖米黄aB "), max_size=12), st.sampled_from(["尖米", "米", "aB", "a"])
)
def test_one_name_is_replaced_as_strings_do_it(text: str, old: str):
    outcome = searched(text, (old, "黄大力"))
    assert outcome.text == text.replace(old, "黄大力")
    assert sum(outcome.counts.values()) == text.count(old)


def test_a_text_with_nothing_to_replace_or_remark_has_no_outcome():
    assert Names([("尖米", "x")], whole_word=False, case="exact").search("黄大力") is None
    assert Names([("Chu", "x")], whole_word=False, case="exact").search("Dali") is None


def test_more_texts_than_are_remembered_are_replaced_all_the_same():
    names = Names([("尖米", "大力")], whole_word=False, case="exact")
    for _ in range(2):
        for i in range(5000):
            outcome = names.search(f"{i}尖米")
            assert outcome is not None
            assert outcome.text == f"{i}大力"


# ---- words and case ------------------------------------------------------------------------------


def test_without_whole_word_a_part_of_a_longer_word_is_replaced_and_counted():
    outcome = searched("Chu, Chuck, aChu, 我是Chu。", ("Chu", "Dali"))
    assert outcome.text == "Dali, Dalick, aDali, 我是Dali。"
    assert outcome.inside_words == {"Chu": 2}
    assert outcome.counts == {"Chu": 4}


def test_with_whole_word_longer_words_stay_and_are_counted():
    outcome = searched("Chu, Chuck, aChu, Chu2, 我是Chu。", ("Chu", "Dali"), whole_word=True)
    assert outcome.text == "Dali, Chuck, aChu, Chu2, 我是Dali。"
    assert outcome.inside_words == {"Chu": 3}
    assert outcome.joined == {}


def test_whole_word_means_nothing_to_a_chinese_name():
    outcome = searched("我是尖米的a尖米b", ("尖米", "黄大力"), whole_word=True)
    assert outcome.text == "我是黄大力的a黄大力b"
    assert outcome.inside_words == {}


def test_another_spelling_is_left_and_counted():
    outcome = searched("Chu CHU chu churches", ("Chu", "Dali"))
    assert outcome.text == "Dali CHU chu churches"
    assert outcome.other_case == {"Chu": 2}
    assert +outcome.inside_words == {}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("case", "expected"),
    [("ignore", "DaLi DaLi DaLi DaLi"), ("keep", "DaLi DALI dali DaLi")],
)
def test_any_spelling_is_replaced_where_case_does_not_count(case, expected):
    outcome = searched("Chu CHU chu cHu", ("Chu", "DaLi"), case=case)
    assert outcome.text == expected
    assert outcome.counts == {"Chu": 4}
    assert outcome.other_case == {}


def test_a_capital_at_the_front_is_kept():
    outcome = searched("chu Chu CHU", ("chu", "big dali"), case="keep")
    assert outcome.text == "big dali Big dali BIG DALI"


# ---- what is left --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pair"),
    [("尖米米", ("尖米", "尖")), ("aabab", ("aab", "a")), ("尖尖米", ("尖米", "米"))],
)
def test_an_old_name_made_of_a_new_one_and_the_text_beside_it_is_told(text, pair):
    outcome = searched(text, pair)
    assert outcome.text == text.replace(*pair)
    assert outcome.joined == {pair[0]: 1}


# ---- excerpts ------------------------------------------------------------------------------------


def test_the_first_change_is_shown_with_what_stands_around_it():
    names = Names([("尖米", "黄大力")], whole_word=False, case="exact")
    before, after = names.excerpts("甲" * 60 + "尖米和尖米" + "乙" * 60)
    assert before == "…" + "甲" * 24 + "尖米和尖米" + "乙" * 21 + "…"
    assert after == "…" + "甲" * 24 + "黄大力和黄大力" + "乙" * 21 + "…"
    assert names.excerpts("尖米") == ("尖米", "黄大力")


@given(st.text(st.sampled_from("尖米甲"), max_size=90))
def test_an_excerpt_is_renamed_whole(text: str):
    names = Names([("尖米", "黄大力")], whole_word=False, case="exact")
    before, after = names.excerpts("尖米" + text)
    assert before.removesuffix("…").replace("尖米", "黄大力") == after.removesuffix("…")


# ---- lines ---------------------------------------------------------------------------------------

_letters = st.text(st.sampled_from('尖米aN"\\/\n\u0000é'), min_size=1, max_size=4)


@given(_letters, _letters)
def test_a_line_that_may_hold_no_name_holds_none(old: str, text: str):
    names = Names([(old, "new")], whole_word=False, case="exact")
    if not names.may_stand_in(json.dumps({"k": text}, ensure_ascii=False)):
        assert names.search(text) is None


def test_most_lines_are_known_to_hold_no_name():
    names = Names([("尖米", "大力")], whole_word=False, case="exact")
    assert not names.may_stand_in('{"text": "黄大力"}')
    assert names.may_stand_in('{"尖米": 1}')


# ---- pairs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "settings", "message"),
    [
        ([], {}, "No name to replace"),
        ([("", "a")], {}, "must not be empty"),
        ([("a", "")], {}, "must not be empty"),
        ([("a", "a")], {}, "both"),
        ([("a", "b"), ("a", "c")], {}, "twice"),
        ([("Chu", "b"), ("chu", "c")], {"case": "ignore"}, "twice"),
        ([("a", "\udcff")], {}, "half of a character"),
        ([("a", "b")], {"case": "loud"}, "exact, ignore, keep"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(pairs, settings, message):
    with pytest.raises(SettingError, match=re.escape(message)):
        searched("a", *pairs, **settings)
