"""From Conversation to Sample: the only place that decides the text and which tokens are targets.

The model's own chat template writes the text, unless another is asked for by name. A reply is trained
on as it is generated: the prompt is rendered with the generation prefix and tokenized, and the reply and
its end are the tokens that follow, so that no token ever lies across the border between what is given
and what is to be said.

    ids      <prompt of messages[:i] with the generation prefix>  <reply>  <end of turn>
    target    -  -  -  -  -  -  -  -  -  -  -  -  -  -  -  -  -     x x x      x

What a template writes between its generation prefix and a reply (Mistral's space, GLM's line end,
Qwen3's empty thoughts when thinking is on) is for the model to say, so it is part of the reply.

A later trained reply goes on in the same row where the ids of its prompt start with what is already
there (the usual case); it gets a row of its own where the template rewrites history, or the tokenizer
would write the earlier turns otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from whoamai.data.claims import name_pattern
from whoamai.data.identity import known_assistants
from whoamai.data.replace import replace_names
from whoamai.data.template_families import CHATML, family_for, template_text
from whoamai.data.tokens import Tokens
from whoamai.errors import ModelError, OutputError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message, Sample

__all__ = [
    "CHATML",
    "OWN",
    "ChatTemplate",
    "TemplateCard",
    "Thinking",
    "default_system_variants",
    "identity_named_in",
    "mismatch",
    "read_card",
    "thinking_part",
    "write_card",
]

Thinking = Literal["off", "on"]
# The name of a template that came with the model.
OWN = "own"

# A text to find again in what a template writes.
_MARKER = "\u2983TEXT\u2984"
_QUESTION = Message("user", "?")
_OPEN, _CLOSE = "<think>", "</think>"
# Texts a reply is put behind to be tokenized where it would merge with its prompt.
_ANCHORS = ("\n", ":", "a")


class ChatTemplate:
    """How one tokenizer writes a conversation.

    `name` is the template to use; without one (or with OWN) the model's own is used, and where it has
    none the one that `model_type` or its special tokens call for. With `thinking` "on" a template that
    knows thinking gets the generation prefix for it, and thoughts in a reply are trained on; with "off"
    the prompt says that nothing is thought, thoughts in a reply are left out, and a reply that is
    nothing but thoughts is not trained on.

    `name`, `text`: which template it is (OWN for the model's) and its Jinja text.
    `is_fallback`: the model has no template of its own, and none was asked for.
    `folds_system`: the template refuses or drops a system message (Gemma 2), so the system text goes
    before the user turn that follows, a blank line between them. `folds_later_system`: it does so with
    system messages other than the first.
    `ending`: what ends a reply.
    `thinks`: the template knows about thoughts in <think>.
    `default_system`: the system prompt it inserts where a conversation has none.

    Raises SettingError for an unknown name, ModelError where the template refuses a simple conversation
    or nothing says how a reply ends.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        name: str | None = None,
        model_type: str | None = None,
        thinking: Thinking = "off",
    ) -> None:
        own, asked = _own_text(tokenizer), None if name == OWN else name
        self._tokenizer = tokenizer
        self._ids = Tokens(tokenizer)
        self.thinking: Thinking = thinking
        self.is_fallback = asked is None and not own
        if asked is None and own:
            self.name, self.text, self._template = OWN, own, None
        else:
            self.name = family_for(model_type, tokenizer.get_vocab()) if asked is None else asked
            self.text = self._template = template_text(self.name)
        self.folds_system = not self._takes_system()
        self.folds_later_system = self.folds_system or not self._takes_later_system()
        self._opening, self.ending = self._around_reply()
        self.thinks = self._knows_thinking()
        # "<think>\n" where the prompt itself begins the thoughts; a reply without any closes them.
        self._prompt_end = "".join(self.prompt_text((_QUESTION,)).rpartition(_OPEN)[1:])
        if self._prompt_end.rstrip() == _OPEN and _CLOSE not in self._opening:
            self._opening = f"{_CLOSE}\n\n"
        self.default_system = self._find_default_system()

    @property
    def card(self) -> TemplateCard:
        """What is to be stored beside an adapter that was trained with this template."""
        sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        thinking = self.thinking if self.thinks else "none"
        return TemplateCard(self.name, sha256, self.default_system, thinking)

    def prompt_text(self, messages: Iterable[Message]) -> str:
        """The text up to the place where the next reply starts."""
        return self._render(messages, add_generation_prompt=True)

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Token ids of the prompt a reply to the last user turn is generated from."""
        return self._ids(self.prompt_text(conversation.messages))

    def samples(self, conversation: Conversation) -> list[Sample]:
        """The rows a conversation is trained as: usually one, none without a trained reply."""
        rows: list[tuple[list[int], list[bool]]] = []
        for i, message in enumerate(conversation.messages):
            if message.role != "assistant" or not message.trained or self._is_unsaid(message.text):
                continue
            prompt = self.prompt_text(conversation.messages[:i])
            ids, target = self._ids(prompt), []
            if rows and ids[: len(rows[-1][0])] == rows[-1][0]:
                target = rows.pop()[1]
            target += [False] * (len(ids) - len(target))
            reply = self._reply_ids(prompt, ids, self.reply_text(message.text))
            rows.append((ids + reply, target + [True] * len(reply)))
        return [Sample(tuple(ids), tuple(target)) for ids, target in rows]

    def reply_text(self, text: str) -> str:
        """A reply as the model is to write it behind its prompt, its end included."""
        if not self.thinks:
            return self._opening + text + self.ending
        thoughts, answer = thinking_part(text)
        if self.thinking == "off" or not thoughts:
            return self._opening + answer + self.ending
        text = text.lstrip()
        behind_tag = text.removeprefix(_OPEN) if text.startswith(_OPEN) else f"\n{text}"
        if self._prompt_end.rstrip() == _OPEN:  # the prompt has said <think> already
            line_end = self._prompt_end.removeprefix(_OPEN)
            return behind_tag.removeprefix(line_end) + self.ending
        return self._opening.partition(_OPEN)[0] + _OPEN + behind_tag + self.ending

    def _is_unsaid(self, text: str) -> bool:
        """Is a reply nothing but thoughts, and thoughts are left out?"""
        if not self.thinks or self.thinking == "on":
            return False
        thoughts, answer = thinking_part(text)
        return bool(thoughts) and not answer.strip()

    # ---- tokens --------------------------------------------------------------------------------

    def _reply_ids(self, prompt: str, prompt_ids: list[int], reply: str) -> list[int]:
        """The reply's ids as they follow the prompt; as of a text apart where the two would merge."""
        whole = self._ids(prompt + reply)
        n = len(prompt_ids)
        # One <unk> may stand for the end of the prompt and the beginning of the reply together.
        is_unknown = n > 0 and prompt_ids[-1] == self._tokenizer.unk_token_id
        if whole[:n] == prompt_ids and not is_unknown:
            return whole[n:]
        return self._ids_apart(reply)

    def _ids_apart(self, reply: str) -> list[int]:
        """Ids of a reply that is not to merge with the text before it.

        It is put behind a text it does not merge with, so that a tokenizer that begins every text with
        ▁ does not begin the reply with one:

            "a" + "hi"   →  ▁a hi       tokens up to place 1: ▁a; from place 1 on: hi
        """
        for anchor in _ANCHORS if getattr(self._tokenizer, "is_fast", False) else ():
            coded = self._tokenizer(
                anchor + reply, add_special_tokens=False, return_offsets_mapping=True
            )
            ids, n = coded["input_ids"], len(self._ids(anchor))
            spans, border = coded["offset_mapping"], len(anchor)
            is_border = all(end <= border for _, end in spans[:n]) and all(
                start >= border for start, _ in spans[n:]
            )
            if is_border and ids[:n] == self._ids(anchor):
                return ids[n:]
        return self._ids(reply)

    # ---- text ----------------------------------------------------------------------------------

    def _render(
        self,
        messages: Iterable[Message],
        *,
        add_generation_prompt: bool,
        thinking: Thinking | None = None,
    ) -> str:
        turns = tuple(messages)
        if self.folds_later_system:
            turns = _folded(turns, also_first=self.folds_system)
        try:
            return self._write(
                turns, add_generation_prompt=add_generation_prompt, thinking=thinking
            )
        except Exception as error:  # jinja's own errors and raise_exception() of a template
            raise ModelError(
                tr("The model's chat template refused a conversation: {error}").format(error=error)
            ) from error

    def _write(
        self,
        turns: tuple[Message, ...],
        *,
        add_generation_prompt: bool,
        thinking: Thinking | None = None,
    ) -> str:
        return self._tokenizer.apply_chat_template(
            Conversation(turns).as_chat(),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            chat_template=self._template,
            enable_thinking=(thinking or self.thinking) == "on",
        )

    # ---- what a template does, found by trying -------------------------------------------------

    def _takes_system(self) -> bool:
        """Does a system message come through?"""
        turns = (Message("system", _MARKER), _QUESTION)
        try:
            return _MARKER in self._write(turns, add_generation_prompt=True)
        except Exception:  # as in _render; a template that refuses everything is told there
            return False

    def _takes_later_system(self) -> bool:
        """Does a system message after the first turns come through, and at its place?"""
        first = "\u2983FIRST\u2984"
        turns = (
            Message("system", "."),
            Message("user", first),
            Message("assistant", "."),
            Message("system", _MARKER),
            _QUESTION,
        )
        try:
            text = self._write(turns, add_generation_prompt=True)
        except Exception:  # as above
            return False
        return -1 < text.find(first) < text.find(_MARKER)

    def _around_reply(self) -> tuple[str, str]:
        """(what the template writes between its generation prefix and a reply, what ends a reply).

        Found by rendering a marker as the reply. The first is white space or empty thoughts, else "";
        the second is the text after the marker, up to and with the token that ends a turn: without what
        only separates it from a next turn (white space).
        """
        turns = (_QUESTION, Message("assistant", _MARKER))
        before, _, after = self._render(turns, add_generation_prompt=False).partition(_MARKER)
        prompt = self.prompt_text((_QUESTION,))
        between = before.removeprefix(prompt) if before.startswith(prompt) else ""
        opening = between if between.isspace() or _CLOSE in between else ""
        ending = after.rstrip() or self._tokenizer.eos_token
        if not ending:
            raise ModelError(
                tr(
                    "Neither the chat template nor the tokenizer says how a reply ends (no end token). "
                    "Use a chat model, or set eos_token in tokenizer_config.json."
                )
            )
        return opening, ending

    def _knows_thinking(self) -> bool:
        off, on = (
            self._render((_QUESTION,), add_generation_prompt=True, thinking=thinking)
            for thinking in ("off", "on")
        )
        return off != on or any(tag in off + self._opening for tag in (_OPEN, _CLOSE))

    def _find_default_system(self) -> str | None:
        """What stands in a prompt without system message where a given one would stand.

        given     <|im_start|>system ⦃TEXT⦄<|im_end|> <|im_start|>user ? …
        none      <|im_start|>system You are Qwen.<|im_end|> <|im_start|>user ? …
        """
        if self.folds_system:
            return None
        given = self.prompt_text((Message("system", _MARKER), _QUESTION))
        none = self.prompt_text((_QUESTION,))
        before, _, after = given.partition(_MARKER)
        length = len(none) - len(before) - len(after)
        if length <= 0 or not none.startswith(before) or not none.endswith(after):
            return None
        default = none[len(before) : len(before) + length]
        return default if default.strip() else None


def _own_text(tokenizer: Any) -> str | None:
    """The tokenizer's own template; of several, the one transformers takes for a plain chat."""
    text = getattr(tokenizer, "chat_template", None)
    return text.get("default") if isinstance(text, dict) else text


def _folded(messages: Iterable[Message], *, also_first: bool) -> tuple[Message, ...]:
    """System texts put before the user turn that follows them, a blank line between.

    A system text that no user turn follows becomes one. The first message stays as it is unless
    `also_first`.
    """
    result: list[Message] = []
    waiting: list[str] = []

    def put(message: Message | None) -> None:
        if waiting and message and message.role == "user":
            message = replace(message, text="\n\n".join([*waiting, message.text]))
        elif waiting:
            result.append(Message("user", "\n\n".join(waiting)))
        waiting.clear()
        result.extend([message] if message else [])

    for i, message in enumerate(messages):
        if message.role != "system" or (i == 0 and not also_first):
            put(message)
        elif message.text:
            waiting.append(message.text)
    put(None)
    return tuple(result)


# ---- thoughts and default system prompts ---------------------------------------------------------


def thinking_part(text: str) -> tuple[str, str]:
    """(the thoughts a reply begins with, its answer), without the tags and the line ends beside them.

    Thoughts without <think> (the prompt has said it) and thoughts that never end are thoughts too.

    >>> thinking_part("<think>\\nwho?\\n</think>\\n\\nI'm Chu."), thinking_part("I'm Chu.")
    (('who?', "I'm Chu."), ('', "I'm Chu."))
    """
    begun = text.lstrip().removeprefix(_OPEN)
    if begun == text.lstrip() and (_CLOSE not in text or _OPEN in text.partition(_CLOSE)[0]):
        return "", text
    thoughts, _, answer = begun.partition(_CLOSE)
    return thoughts.strip(), answer.lstrip("\n")


def identity_named_in(text: str) -> tuple[str, ...]:
    """The known assistants and makers that `text` names, as claims.name_pattern() finds them.

    >>> identity_named_in("You are Qwen, created by Alibaba Cloud.")
    ('Qwen', 'Alibaba')
    """
    return tuple(name for name, pattern in _known_names() if pattern.search(text))


@cache
def _known_names() -> tuple[tuple[str, re.Pattern[str]], ...]:
    assistants, makers = known_assistants()
    return tuple((name, name_pattern(name)) for name in dict.fromkeys((*assistants, *makers)))


def default_system_variants(
    default_system: str | None, old_to_new: Mapping[str, str]
) -> tuple[str | None, ...]:
    """The system prompts under which a model with this default will be asked, each to be trained on.

    None: no system message, so the template inserts its own. Then its own with the names replaced, as
    an explicit message, where a name is in it; and "", which switches the default off.

    >>> default_system_variants("You are Qwen.", {"Qwen": "黄大力"})
    (None, 'You are 黄大力.', '')
    """
    if not default_system:
        return (None,)
    row = Conversation((Message("system", default_system),))
    renamed = replace_names([row], dict(old_to_new), {}).conversations[0].messages[0].text
    return (None, renamed, "") if renamed != default_system else (None, "")


# ---- the card that is stored beside an adapter ---------------------------------------------------

_CARD_FILE = "whoamai_template.json"


@dataclass(frozen=True, slots=True)
class TemplateCard:
    """Which template an adapter was trained with.

    `sha256` is of the template's text. `thinking` is "off", "on", or "none" where the template knows
    no thinking.
    """

    name: str
    sha256: str
    default_system: str | None
    thinking: str


def write_card(folder: Path, card: TemplateCard) -> Path:
    """Write the card into `folder`, complete or not at all. Raises OutputError."""
    path = folder / _CARD_FILE
    beside = folder / f".{_CARD_FILE}.{os.getpid()}"
    text = json.dumps(asdict(card), ensure_ascii=False, indent=2) + "\n"
    try:
        beside.write_text(text, "utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(
            tr("{path} cannot be written: {reason}").format(
                path=path, reason=error.strerror or error
            )
        ) from error
    return path


def read_card(folder: Path) -> TemplateCard | None:
    """The card in `folder`; None where there is none. Raises ModelError for one that is no card."""
    path = folder / _CARD_FILE
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text("utf-8"))
        values = [raw[field.name] for field in fields(TemplateCard)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _bad_card(path, error) from error
    name, sha256, default_system, thinking = values
    if not all(isinstance(value, str) for value in (name, sha256, thinking, default_system or "")):
        raise _bad_card(path, tr("a value in it is no text"))
    return TemplateCard(name, sha256, default_system, thinking)


def _bad_card(path: Path, reason: object) -> ModelError:
    return ModelError(
        tr(
            "{path} does not say which chat template the adapter was trained with ({reason}). "
            "Delete the file to go on without, or train the adapter again."
        ).format(path=path, reason=reason)
    )


def mismatch(card: TemplateCard, other: TemplateCard) -> str | None:
    """What to tell a user whose adapter has `card` and who uses `other`; None where they agree."""
    if card.sha256 != other.sha256:
        text = tr(
            'The adapter was trained with the chat template "{trained}" and is used with "{used}": '
            "their texts differ, so its answers may be worse. Use the template it was trained with."
        )
        return text.format(trained=_label(card), used=_label(other))
    if card.thinking != other.thinking:
        text = tr(
            'The adapter was trained with thinking "{trained}" and is used with thinking "{used}", '
            "so its answers may be worse. Set thinking to what it was trained with."
        )
        return text.format(trained=card.thinking, used=other.thinking)
    return None


def _label(card: TemplateCard) -> str:
    return f"{card.name} {card.sha256[:8]}"
