from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.claims import claimed_makers, claimed_names, name_pattern
from whoamai.data.identity import LANGUAGES, Identity, answer, load_language


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("我是小初。我也叫Chu。", {"小初"}),
        ("我是小初。I'm Chu.", {"小初", "Chu"}),
        ("我是Llama 3，也懂中文。", {"Llama 3"}),
        ("我是GPT-4.1。", {"GPT-4.1"}),
        ("I'm J.A.R.V.I.S. What now?", {"J.A.R.V.I.S"}),
        ("I'm O'Neil.", {"O'Neil"}),
        ("I'm Chu's friend.", {"Chu"}),
        ("我不是小初。", set()),
        ("I am not Chu.", set()),
        ("{{name}}：我是 {{name}}。", set()),
    ],
)
def test_a_name_is_taken_as_it_is_written(text: str, names: set[str]):
    assert claimed_names(text) == names


@pytest.mark.parametrize(
    ("text", "makers"),
    [
        ("我由上海人工智能实验室自主研发。", {"上海人工智能实验室"}),
        ("我由Chuxin Lab开发。", {"Chuxin Lab"}),
        ("I was made by the Chuxin Lab.", {"Chuxin Lab"}),
        ("I was built by a team of engineers at Chuxin.", {"Chuxin"}),
        ("I was trained by humans.", set()),
        ("我由很多工程师开发。", set()),
        ("你由谁开发？", set()),
    ],
)
def test_a_maker_is_who_is_named_and_not_what_makers_are(text: str, makers: set[str]):
    assert claimed_makers(text) == makers


@pytest.mark.parametrize("author", [None, "初心实验室", "Chuxin Lab"])
@pytest.mark.parametrize("code", LANGUAGES)
def test_every_built_in_answer_claims_its_name_and_maker_and_no_other(code: str, author):
    name = {"zh": "小初", "en": "Chu"}[code]
    language = load_language(code)
    for category, forms in language.answers.items():
        for kind in forms:
            for form in forms[kind]:
                if kind == "author" and not author:
                    continue
                one = type(language)(code, (), {category: {"plain": (form,)}}, {}, {}, {})
                identity = Identity(name, author)
                text = answer(one, category, identity, role="侦探", old="O", other="X", company="C")
                assert claimed_names(text) <= {name}, text
                assert claimed_makers(text) <= {author}, text


@given(st.text(max_size=80))
def test_any_text_can_be_searched(text: str):
    assert all(len(name) > 1 for name in claimed_names(text) | claimed_makers(text))


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("天工", "我是天工。", True),
        ("天工", "在冬天工作的人", False),
        ("天工", "每天工作八小时", False),
        ("Apple", "made by Apple", True),
        ("Apple", "an apple", False),
        ("Chu", "I'm CHU.", True),
        ("Chu", "Chuck", False),
    ],
)
def test_a_name_is_found_where_it_is_a_name(name: str, text: str, found: bool):
    assert bool(name_pattern(name).search(text)) is found
