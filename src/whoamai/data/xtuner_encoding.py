"""The exact text and targets of XTuner 0.1 (read from 0.1.23), for those who come from there.

An alternative to ChatTemplate: the same Conversation in, the same Sample out, so that a run can be
compared with an XTuner run token by token. Each piece of a turn is tokenized apart:

    <start>  system + instruction  |  reply + suffix  |  [end token]  |  sep
       -       -  -  -  -  -  -         x  x  x  x           x           -

The start token stands before the first turn, and again before a turn whose predecessor ended with the
tokenizer's end token. The separator follows every turn, the last too, and is not a target. Where
ChatTemplate puts later replies with rewritten history in rows of their own, XTuner has one row.

Left out: cutting at max_length (nothing is cut here), packing, images, texts without a user turn for
pretraining (an empty user turn is written, as in 0.1.23), and the templates that
`template_families.XTUNER_LEFT_OUT` names. A reply before the first user turn of a `messages` row, which
XTuner drops, is a turn with an empty question here. A conversation without a trained reply gives no row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from whoamai.data.template_families import xtuner_pieces
from whoamai.errors import DataError, ModelError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message, Sample

# With their numbers, as XTuner has them: a "sop" of another vocabulary may be a part of a word.
_CHATGLM_START = {"[gMASK]": 64790, "sop": 64792}


@dataclass(frozen=True, slots=True)
class XTunerTurn:
    """One turn as XTuner has it; `output` is None where the reply is still to be given."""

    system: str
    input: str
    output: str | None
    trained: bool


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    ids: tuple[int, ...]
    is_target: bool = False


class XTunerEncoding:
    """How XTuner 0.1 writes a conversation with one tokenizer and one of its templates.

    `ending` is what a reply ends with. Raises SettingError for an unknown template name, ModelError
    where the template ends replies with the tokenizer's end token and there is none.
    """

    def __init__(self, tokenizer: Any, name: str = "internlm2_chat") -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._pieces = xtuner_pieces(name)
        self._start = _start(tokenizer)
        self._end: list[_Piece] = []
        if not self._pieces.suffix_ends:
            if tokenizer.eos_token_id is None:
                raise ModelError(
                    tr(
                        'The chat template "{name}" ends replies with the tokenizer\'s end token, and '
                        "the tokenizer has none. Set eos_token in tokenizer_config.json."
                    ).format(name=name)
                )
            self._end = [_Piece(tokenizer.eos_token, (tokenizer.eos_token_id,), is_target=True)]
        self.ending = self._pieces.suffix + "".join(piece.text for piece in self._end)

    def text(self, conversation: Conversation) -> str:
        """What is trained on, start and end tokens written out."""
        return "".join(piece.text for piece in self._row(conversation))

    def samples(self, conversation: Conversation) -> list[Sample]:
        """One row; none without a trained reply."""
        row = list(self._row(conversation))
        if not any(piece.is_target for piece in row):
            return []
        ids = tuple(i for piece in row for i in piece.ids)
        return [Sample(ids, tuple(piece.is_target for piece in row for _ in piece.ids))]

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Token ids of the prompt a reply to the last user turn is generated from."""
        turns = xtuner_turns(conversation.messages)
        assert conversation.messages[-1].role == "user", "a reply is asked for"
        pieces = self._written(turns, conversation.source)
        return [i for piece in pieces for i in piece.ids]

    def _row(self, conversation: Conversation) -> Iterator[_Piece]:
        turns = xtuner_turns(conversation.messages)
        return self._written([t for t in turns if t.output is not None], conversation.source)

    def _written(self, turns: Iterable[XTunerTurn], source: str) -> Iterator[_Piece]:
        needs_start = True
        for number, turn in enumerate(turns, 1):
            if needs_start:
                yield from self._start
            yield self._piece(self._input(turn, number, source))
            if turn.output is None:
                return
            yield self._piece(turn.output + self._pieces.suffix, is_target=turn.trained)
            for end in self._end:
                yield _Piece(end.text, end.ids, turn.trained)
            needs_start = bool(self._end)
            yield self._piece(self._pieces.sep)

    def _input(self, turn: XTunerTurn, number: int, source: str) -> str:
        # A template is filled in once; what the texts hold is not read again.
        before, after = self._pieces.instruction.replace("{round}", str(number)).split("{input}")
        question = before + turn.input + after
        if not turn.system:
            return question
        if self._pieces.system is None:
            raise DataError(
                tr(
                    '{source}: XTuner\'s template "{name}" has no place for a system message. Choose '
                    "another template, or take the system message out."
                ).format(source=source or "?", name=self.name)
            )
        before, after = self._pieces.system.split("{system}")
        return before + turn.system + after + question

    def _piece(self, text: str, *, is_target: bool = False) -> _Piece:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return _Piece(text, tuple(ids), is_target)


def xtuner_turns(messages: Iterable[Message]) -> list[XTunerTurn]:
    """Messages in XTuner's turns: user texts before a reply are joined, the last system text counts."""
    turns, system, question, is_open = [], "", "", False
    for message in messages:
        if message.role == "assistant":
            turns.append(XTunerTurn(system, question, message.text, message.trained))
            system, question, is_open = "", "", False
        elif message.role == "system":
            system = message.text
        else:
            question, is_open = question + message.text, True
    if is_open:
        turns.append(XTunerTurn(system, question, None, trained=False))
    return turns


def _start(tokenizer: Any) -> list[_Piece]:
    """The start token as XTuner chooses it: none for Qwen, [gMASK] and sop for ChatGLM 2 and 3."""
    if type(tokenizer).__name__.lower().startswith("qwen"):
        return []
    vocabulary = tokenizer.get_vocab()
    if all(vocabulary.get(token) == number for token, number in _CHATGLM_START.items()):
        return [_Piece(token, (number,)) for token, number in _CHATGLM_START.items()]
    if tokenizer.bos_token_id is None:
        return []
    return [_Piece(tokenizer.bos_token, (tokenizer.bos_token_id,))]
