"""Put many conversations to a model and collect its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from whoamai.data.templates import ChatTemplate
from whoamai.events import Events, Note, Progress
from whoamai.messages import tr
from whoamai.model.generate import greedy_replies, sampled_replies, stop_ids, stop_text
from whoamai.model.load import ChatModel
from whoamai.samples import Conversation

MAX_NEW_TOKENS = 96
_TELL_EVERY = 16  # answers


class Talk:
    """Asks a model many questions at once, as its chat template writes them, or the one named."""

    def __init__(
        self, chat: ChatModel, events: Events, *, template_name: str | None = None
    ) -> None:
        self._chat = chat
        self._events = events
        model_type = getattr(chat.model.config, "model_type", None)
        self.template = ChatTemplate(chat.tokenizer, name=template_name, model_type=model_type)
        self._stop = stop_ids(chat.model, chat.tokenizer, self.template.ending)
        self._stop_text = stop_text(chat.tokenizer, self.template.ending)
        if self.template.is_fallback:
            events.emit(
                Note(
                    tr(
                        'The model has no chat template; "{name}" is used. '
                        "Give the same template wherever you run it."
                    ).format(name=self.template.name),
                    "warning",
                )
            )

    @property
    def model(self) -> Any:
        """The model that is asked."""
        return self._chat.model

    def answers(
        self,
        conversations: Sequence[Conversation],
        stage: str | None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float | None = None,
        seed: int = 0,
        samples: int = 1,
    ) -> list[str]:
        """Answers in the order of the conversations; progress is told of `stage`, if any.

        Greedy ones where `temperature` is None. Else `samples` answers to each conversation, one
        behind the other (len(conversations) · samples in all), drawn at this temperature: the same
        `seed` gives the same answers, and no other random numbers are used up.

        Raises ValueError for several greedy samples, which would all be the same.
        """
        if temperature is None and samples != 1:
            raise ValueError("several samples need a temperature")
        prompts = [self.template.prompt_ids(c) for c in conversations]
        asked = (self._chat.model, self._chat.tokenizer, prompts)
        ends = {"stop": self._stop, "stop_text": self._stop_text, "max_new_tokens": max_new_tokens}
        if temperature is None:
            replies = ((i, 0, reply) for i, reply in greedy_replies(*asked, **ends))
        else:
            replies = sampled_replies(
                *asked, **ends, temperature=temperature, seed=seed, samples=samples
            )
        result = [""] * (len(prompts) * samples)
        for done, (i, sample, reply) in enumerate(replies, 1):
            result[i * samples + sample] = reply
            if stage and (done % _TELL_EVERY == 0 or done == len(result)):
                self._events.emit(Progress(stage, done, len(result)))
        return result
