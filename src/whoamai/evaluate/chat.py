"""The questions of a config, put to the model while it learns: what a person reads between two steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Result
from whoamai.messages import tr
from whoamai.samples import Conversation, Message


class ChatEvaluation:
    """Asks `questions` under `system`, tells the answers and adds them to a Markdown file.

    Texts are taken as they are: what looks like a placeholder in them stays what it is.
    """

    def __init__(
        self,
        talk: Talk,
        questions: Sequence[str],
        *,
        system: str | None,
        max_new_tokens: int,
        file: Path,
        events: Events,
    ) -> None:
        self._talk = talk
        self._questions = tuple(questions)
        before = (Message("system", system),) if system else ()
        self._conversations = [
            Conversation((*before, Message("user", question))) for question in self._questions
        ]
        self._system = system
        self._max_new_tokens = max_new_tokens
        self._file = file
        self._events = events

    def ask(self, done: int) -> list[str]:
        """The answers after `done` optimizer steps, in the order of the questions."""
        start = time.monotonic()
        answers = self._talk.answers(self._conversations, None, max_new_tokens=self._max_new_tokens)
        pairs = [
            {"question": question, "answer": answer}
            for question, answer in zip(self._questions, answers, strict=True)
        ]
        seconds = round(time.monotonic() - start, 3)
        found = {"step": done, "system": self._system, "seconds": seconds, "answers": pairs}
        self._events.emit(Result("answers", found))
        with self._file.open("a", encoding="utf-8") as file:
            file.write(self._as_markdown(done, answers))
        return answers

    def _as_markdown(self, done: int, answers: Sequence[str]) -> str:
        title = tr("After step {done}").format(done=done) if done else tr("Before training")
        parts = [f"## {title}"]
        if self._system:
            parts.append(_quoted(self._system))
        for question, answer in zip(self._questions, answers, strict=True):
            parts += [_bold(question), _quoted(answer)]
        return "\n\n".join(parts) + "\n\n"


def _bold(text: str) -> str:
    """Line by line: in Markdown nothing is bold across an empty line."""
    return "\n".join(f"**{line}**" if line.strip() else "" for line in text.splitlines())


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines() or [""])
