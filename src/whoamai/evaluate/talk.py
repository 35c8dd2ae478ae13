"""Put many conversations to a model and collect its answers."""

from __future__ import annotations

from collections.abc import Sequence

from whoamai.data.templates import ChatTemplate
from whoamai.events import Events, Note, Progress
from whoamai.messages import tr
from whoamai.model.generate import greedy_replies, stop_ids, stop_text
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

    def answers(
        self,
        conversations: Sequence[Conversation],
        stage: str | None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> list[str]:
        """Greedy answers, in the order of the conversations; progress is told of `stage`, if any."""
        prompts = [self.template.prompt_ids(c) for c in conversations]
        result = [""] * len(prompts)
        replies = greedy_replies(
            self._chat.model,
            self._chat.tokenizer,
            prompts,
            stop=self._stop,
            stop_text=self._stop_text,
            max_new_tokens=max_new_tokens,
        )
        for done, (i, reply) in enumerate(replies, 1):
            result[i] = reply
            if stage and (done % _TELL_EVERY == 0 or done == len(prompts)):
                self._events.emit(Progress(stage, done, len(prompts)))
        return result
