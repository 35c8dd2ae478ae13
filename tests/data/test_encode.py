from __future__ import annotations

import pytest

from tests.models import make_tokenizer
from whoamai.data.encode import encode
from whoamai.data.templates import ChatTemplate
from whoamai.samples import Conversation, Message


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(make_tokenizer())


def turns(n: int, *, words: int = 3, trained=None, source: str = "f.jsonl:1") -> Conversation:
    messages = []
    for i in range(n):
        messages.append(Message("user", f"question {i} " + "hello " * words))
        is_trained = trained is None or i in trained
        messages.append(Message("assistant", f"answer {i} " + "hello " * words, trained=is_trained))
    return Conversation(tuple(messages), source)


def length(template: ChatTemplate, conversation: Conversation) -> int:
    return max(len(sample.input_ids) for sample in template.samples(conversation))


def test_rows_that_fit_stay_as_the_template_wrote_them(template):
    conversations = [turns(1), turns(3, source="f.jsonl:2")]
    encoded = encode(conversations, template, max_length=10_000)
    assert list(encoded.samples) == [s for c in conversations for s in template.samples(c)]
    assert encoded.sources == ("f.jsonl:1", "f.jsonl:2")
    assert encoded.cut == encoded.left_out == ()
    assert encoded.lengths == [len(s.input_ids) for s in encoded.samples]


def test_a_row_longer_than_max_length_is_cut_after_its_last_whole_turn_that_fits(template):
    two, three = turns(2), turns(3)
    encoded = encode([three], template, max_length=length(template, three) - 1)
    assert list(encoded.samples) == template.samples(two)
    assert encoded.cut == ("f.jsonl:1",)
    assert encoded.left_out == ()


def test_a_row_of_exactly_max_length_is_not_cut(template):
    three = turns(3)
    encoded = encode([three], template, max_length=length(template, three))
    assert list(encoded.samples) == template.samples(three)
    assert encoded.cut == ()


def test_a_row_whose_first_turn_does_not_fit_is_left_out(template):
    encoded = encode([turns(2, words=50), turns(1)], template, max_length=60)
    assert encoded.left_out == ("f.jsonl:1",)
    assert len(encoded.samples) == 1


def test_a_row_of_which_only_turns_that_are_not_trained_fit_is_left_out(template):
    three = turns(3, trained={2})
    encoded = encode([three], template, max_length=length(template, three) - 1)
    assert encoded.samples == ()
    assert encoded.left_out == ("f.jsonl:1",)


def test_a_row_without_a_trained_reply_is_left_out(template):
    encoded = encode([turns(1, trained=set())], template, max_length=500)
    assert encoded.left_out == ("f.jsonl:1",)


def test_a_system_prompt_is_put_before_rows_that_have_none_and_no_others(template):
    own = Conversation((Message("system", "Mine."), *turns(1).messages), "own")
    encoded = encode([turns(1), own], template, max_length=500, system="Given {name}.")
    given = Conversation((Message("system", "Given {name}."), *turns(1).messages))
    assert list(encoded.samples) == [*template.samples(given), *template.samples(own)]


def test_targets_are_counted(template):
    encoded = encode([turns(2)], template, max_length=500)
    assert encoded.n_targets == sum(sum(s.is_target) for s in encoded.samples) > 0
