"""From Conversation to Sample: the only place that decides the text and which tokens are targets.

The model's own chat template writes the text. A reply is trained on as it is generated: the prompt is
rendered with the generation prefix and tokenized, and the reply and its end are the tokens that follow,
so that no token ever lies across the border between what is given and what is to be said.

    ids      <prompt of messages[:i] with the generation prefix>  <reply>  <end of turn>
    target    -  -  -  -  -  -  -  -  -  -  -  -  -  -  -  -  -     x x x      x

A later trained reply goes on in the same row where the ids of its prompt start with what is already
there (the usual case); it gets a row of its own where the template rewrites history, or the tokenizer
would write the earlier turns otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message, Sample

# What a model without a chat template of its own gets.
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# A text to find again in what a template writes.
_MARKER = "\u2983TEXT\u2984"


class ChatTemplate:
    """How one tokenizer writes a conversation.

    `is_fallback`: the model has no template of its own, and ChatML is used.
    `folds_system`: its template refuses or drops a system message (Gemma 2), so the system text goes
    before the first user turn, a blank line between them.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.is_fallback = not getattr(tokenizer, "chat_template", None)
        self._template = CHATML if self.is_fallback else None
        self.folds_system = not self._takes_system()
        self.ending = self._find_ending()

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
            if message.role != "assistant" or not message.trained:
                continue
            prompt = self.prompt_text(conversation.messages[:i])
            ids, target = self._ids(prompt), []
            if rows and ids[: len(rows[-1][0])] == rows[-1][0]:
                target = rows.pop()[1]
            target += [False] * (len(ids) - len(target))
            reply = self._reply_ids(prompt, ids, message.text + self.ending)
            rows.append((ids + reply, target + [True] * len(reply)))
        return [Sample(tuple(ids), tuple(target)) for ids, target in rows]

    def _reply_ids(self, prompt: str, prompt_ids: list[int], reply: str) -> list[int]:
        """The reply's ids as they follow the prompt; as of a text alone where the two would merge."""
        whole = self._ids(prompt + reply)
        n = len(prompt_ids)
        return whole[n:] if whole[:n] == prompt_ids else self._ids(reply)

    def _render(self, messages: Iterable[Message], *, add_generation_prompt: bool) -> str:
        turns = _folded(tuple(messages)) if self.folds_system else tuple(messages)
        try:
            return self._write(turns, add_generation_prompt=add_generation_prompt)
        except Exception as error:  # jinja's own errors and raise_exception() of a template
            raise ModelError(
                tr("The model's chat template refused a conversation: {error}").format(error=error)
            ) from error

    def _write(self, turns: tuple[Message, ...], *, add_generation_prompt: bool) -> str:
        return self._tokenizer.apply_chat_template(
            Conversation(turns).as_chat(),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            chat_template=self._template,
            enable_thinking=False,
        )

    def _takes_system(self) -> bool:
        """Does a system message come through? Found by trying."""
        turns = (Message("system", _MARKER), Message("user", "?"))
        try:
            return _MARKER in self._write(turns, add_generation_prompt=True)
        except Exception:  # as in _render; a template that refuses everything is told there
            return False

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _find_ending(self) -> str:
        """What the template writes after a reply, up to and with the token that ends a turn.

        Found by rendering a marker as the reply: the text after it, without what only separates it
        from a next turn (white space).
        """
        turns = (Message("user", "?"), Message("assistant", _MARKER))
        text = self._render(turns, add_generation_prompt=False)
        after = text.partition(_MARKER)[2].rstrip()
        if not after:
            after = self._tokenizer.eos_token or ""
        if not after:
            raise ModelError(
                tr(
                    "Neither the chat template nor the tokenizer says how a reply ends (no end token). "
                    "Use a chat model, or set eos_token in tokenizer_config.json."
                )
            )
        return after


def _folded(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The system text put before the first user turn."""
    if not messages or messages[0].role != "system":
        return messages
    system, first, *later = messages
    text = f"{system.text}\n\n{first.text}" if system.text else first.text
    return (replace(first, text=text), *later)
