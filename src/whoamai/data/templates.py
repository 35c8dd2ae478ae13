"""From Conversation to Sample: the only place that decides the text and which tokens are targets.

The model's own chat template writes the text. A reply is trained on as it is generated: the prompt is
rendered with the generation prefix and tokenized, then the reply and its end are tokenized after it,
so that no token ever lies across the border between what is given and what is to be said.

    ids      <prompt of messages[:i] with the generation prefix>  <reply>  <end of turn>
    target    -  -  -  -  -  -  -  -  -  -  -  -  -  -  -  -  -     x x x      x

A later trained reply goes on in the same row where its prompt starts with what is already there (the
usual case); a template that rewrites history gets a row of its own for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message, Sample

# What a model without a chat template of its own gets.
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class ChatTemplate:
    """How one tokenizer writes a conversation."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.is_fallback = not getattr(tokenizer, "chat_template", None)
        self._template = CHATML if self.is_fallback else None
        self.ending = self._find_ending()

    def prompt_text(self, messages: Iterable[Message]) -> str:
        """The text up to the place where the next reply starts."""
        return self._render(messages, add_generation_prompt=True)

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Token ids of the prompt a reply to the last user turn is generated from."""
        return self._ids(self.prompt_text(conversation.messages))

    def samples(self, conversation: Conversation) -> list[Sample]:
        """The rows a conversation is trained as: usually one, none without a trained reply."""
        rows: list[tuple[str, list[int], list[bool]]] = []
        for i, message in enumerate(conversation.messages):
            if message.role != "assistant" or not message.trained:
                continue
            prompt = self.prompt_text(conversation.messages[:i])
            if rows and prompt.startswith(rows[-1][0]):
                text, ids, target = rows.pop()
                more = self._ids(prompt[len(text) :])
                ids, target = ids + more, target + [False] * len(more)
            else:
                ids = self._ids(prompt)
                target = [False] * len(ids)
            reply = self._ids(message.text + self.ending)
            text = prompt + message.text + self.ending
            rows.append((text, ids + reply, target + [True] * len(reply)))
        return [Sample(tuple(ids), tuple(target)) for _, ids, target in rows]

    def _render(self, messages: Iterable[Message], *, add_generation_prompt: bool) -> str:
        chat = Conversation(tuple(messages)).as_chat()
        try:
            return self._tokenizer.apply_chat_template(
                chat,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                chat_template=self._template,
                enable_thinking=False,
            )
        except Exception as error:  # jinja's own errors and raise_exception() of a template
            raise ModelError(
                tr("The model's chat template refused a conversation: {error}").format(error=error)
            ) from error

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _find_ending(self) -> str:
        """What the template writes after a reply, up to and with the token that ends a turn.

        Found by rendering a marker as the reply: the text after it, without what only separates it
        from a next turn (white space).
        """
        marker = "\u2983REPLY\u2984"
        turns = (Message("user", "?"), Message("assistant", marker))
        text = self._render(turns, add_generation_prompt=False)
        after = text.partition(marker)[2].rstrip()
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
