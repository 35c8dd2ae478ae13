"""What a renaming trains on: the user's rows, generated identity rows, and the model's own answers.

The steps of recipes/rename.py between asking and training, in the order in which it takes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from whoamai.data.claims import claimed_makers, name_pattern
from whoamai.data.identity import Identity, known_assistants, training_conversations
from whoamai.data.lint import CheckOptions, Finding, check
from whoamai.data.readers import read_conversations
from whoamai.data.replace import find_names, replace_names
from whoamai.data.replay import replay_prompts
from whoamai.data.templates import ChatTemplate, default_system_variants, identity_named_in
from whoamai.engine.trainer import rows_beyond_context
from whoamai.errors import DataError
from whoamai.evaluate.identity import SelfDescription
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Note
from whoamai.messages import tr
from whoamai.model.load import ChatModel
from whoamai.samples import Conversation, Message, Sample

# Identity rows to make where the user says nothing: enough for a name to be learned, and to be heard
# beside the user's own conversations (rows for each of these).
_ROWS, _ROWS_BESIDE_DATA = 900, 2.0
# Replayed answers per row that teaches the name, alone and beside the user's data.
_REPLAY, _REPLAY_BESIDE_DATA = 1.0, 1.0
# Findings about names in the data that renaming itself takes care of.
_MENDED_HERE = ("old-name", "two-names")


class Replaying(Protocol):
    """What of a request says how much is replayed, and what (data/replay.py)."""

    @property
    def replay_ratio(self) -> float | None: ...
    @property
    def replay_near(self) -> float: ...
    @property
    def replay_under_data(self) -> float: ...
    @property
    def replay_named(self) -> float: ...
    @property
    def languages(self) -> tuple[str, ...]: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, slots=True)
class DataRequest:
    """The user's own data: its files as data/sources.py takes them, and findings to overlook."""

    files: tuple[str | Path, ...]
    allow: tuple[str, ...] = ()
    old_names: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    seed: int = 0

    @property
    def label(self) -> str:
        return ", ".join(map(str, self.files))


def read_data(request: DataRequest, identity: Identity, events: Events) -> list[Conversation]:
    """The conversations with their model's name replaced by the new one; says how often.

    Raises DataError for data that cannot be trained on, naming the findings and the cures.
    """
    _check_data(request, identity, events)
    conversations = read_conversations(request.files, seed=request.seed, allow=request.allow)
    name, author = identity.name, identity.author
    old = list(request.old_names) or find_names(conversations, name)
    replaced = replace_names(
        conversations,
        dict.fromkeys(old, name),
        {"name": name, **({"author": author} if author else {})},
    )
    if replaced.counts:
        counts = ", ".join(f"{n} × {old_name}" for old_name, n in replaced.counts.items())
        text = tr("{path}: {rows} conversations; replaced by {name}: {counts}")
        text = text.format(path=request.label, rows=len(conversations), name=name, counts=counts)
        events.emit(Note(text))
    else:
        text = tr(
            "{path}: {rows} conversations; the replies give the model no name of its own, so "
            "nothing was replaced. If they do, say which: --old NAME"
        )
        events.emit(Note(text.format(path=request.label, rows=len(conversations)), "warning"))
    return replaced.conversations


def _check_data(request: DataRequest, identity: Identity, events: Events) -> None:
    """The check of `whoamai data check`: refuse what blocks, tell what a person should look at."""
    options = CheckOptions(identity.name, identity.author, languages=request.languages)
    report = check(request.files, options)
    if blocking := report.blocking(request.allow):
        raise DataError(_refusal(request, blocking))
    # The old name goes in a moment, and the replies' names with it.
    told = [f for f in report.findings if f.severity == "warns" and f.kind not in _MENDED_HERE]
    told += [f for f in report.findings if f.kind in request.allow and f not in told]
    if told:
        findings = "; ".join(f"{f.count} × {f.title}" for f in told)
        text = tr("In the data: {findings}. whoamai data check says more.")
        events.emit(Note(text.format(findings=findings), "warning"))


def _refusal(request: DataRequest, blocking: Sequence[Finding]) -> str:
    """Everything that blocks: a sentence where it is one finding, a list where there are several."""
    head = tr("{path} cannot be trained on:").format(path=request.label)
    findings = []
    for finding in blocking:
        first = finding.examples[0]
        where = " ".join(part for part in (first.where, first.field) if part)
        text = f"{finding.count} × {finding.title} [{finding.kind}], {where}: {first.text}"
        findings.append(f"{text} → {finding.cure}")
    tail = tr("whoamai data check shows all of it; --allow KIND trains all the same.")
    return (
        " ".join((head, *findings)) if len(findings) == 1 else "\n  ".join((head, *findings, tail))
    )


def data_systems(data: Sequence[Conversation]) -> list[str]:
    """The data's own system prompts, most frequent first, at most eight."""
    systems = Counter(c.messages[0].text for c in data if c.messages[0].role == "system")
    return [system for system, _ in systems.most_common(8)]


def identity_rows(
    identity: Identity,
    old: SelfDescription,
    *,
    languages: Sequence[str],
    rows: int | None,
    beside: int,
    seed: int,
    default_system: str | None,
) -> list[Conversation]:
    """Generated rows; as many as it takes `beside` so many rows of data where `rows` is None.

    Under a template with a default system prompt, those without a system prompt come in turn under
    each way in which such a model can be asked (default_system_variants).
    """
    generated = training_conversations(
        identity,
        languages=languages,
        rows=rows or max(_ROWS, round(_ROWS_BESIDE_DATA * beside)),
        seed=seed,
        old_names=old.names,
    )
    return list(_under_variants(generated, _system_variants(default_system, identity, old)))


def _system_variants(
    default_system: str | None, identity: Identity, old: SelfDescription
) -> Sequence[str | None]:
    """The ways in which the model can be asked; a renamed default that still names others is none."""
    named = identity_named_in(default_system or "")
    # "Alibaba Cloud" whole, also where only "Alibaba" is known.
    made_by = (*old.makers, *claimed_makers(default_system or ""))
    makers = {*made_by, *known_assistants()[1]}
    new = {name: identity.name for name in (*old.names, *named) if name not in makers}
    if identity.author:
        new |= {maker: identity.author for maker in (*made_by, *named) if maker in makers}
    variants = default_system_variants(default_system, new)
    own = {identity.name, identity.author}
    return [v for v in variants if not v or not set(identity_named_in(v)) - own]


def _under_variants(
    conversations: Sequence[Conversation], variants: Sequence[str | None]
) -> Iterator[Conversation]:
    """Conversations without a system prompt get one of `variants` in turn; None leaves them as is."""
    turn = 0
    for conversation in conversations:
        if conversation.messages[0].role == "system":
            yield conversation
            continue
        system = variants[turn % len(variants)]
        turn += 1
        if system is None:
            yield conversation
        else:
            messages = (Message("system", system), *conversation.messages)
            yield replace(conversation, messages=messages)


def tell_about_template(template: ChatTemplate, events: Events) -> None:
    """What of the model's chat template a person should know before anything is trained."""
    if template.folds_system:
        text = tr(
            "The model's chat template has no place for system prompts; they are put before "
            "the first question."
        )
        events.emit(Note(text))
    if template.default_system and (names := identity_named_in(template.default_system)):
        text = tr(
            'Without a system prompt the chat template inserts "{system}", which names {names}. The '
            "new name is trained with it, with the name in it replaced, and without it."
        )
        text = text.format(system=template.default_system, names=", ".join(names))
        events.emit(Note(text, "warning"))


def own_answers(talk: Talk, prompts: Sequence[Conversation]) -> list[Conversation]:
    """The prompts with the model's own answers to them, made before anything is trained."""
    answers = talk.answers(prompts, "replay")
    return [
        replace(c, messages=(*c.messages, Message("assistant", a, trained=True)))
        for c, a in zip(prompts, answers, strict=True)
        if a
    ]


def without_names(replay: Sequence[Conversation], names: Sequence[str]) -> list[Conversation]:
    """The replayed rows whose answer gives none of `names`, but where the prompt gave it.

    A model may bring its name up unasked, or keep to it where a system prompt gives it another: such an
    answer would teach the old name again beside the new one.
    """
    patterns = [name_pattern(name) for name in names]

    def gives_a_name(conversation: Conversation) -> bool:
        *prompt, answer = (message.text for message in conversation.messages)
        return any(p.search(answer) and not p.search("\n".join(prompt)) for p in patterns)

    return [conversation for conversation in replay if not gives_a_name(conversation)]


def replay_for(request: Replaying, n_rows: int, data: Sequence[Conversation]) -> list[Conversation]:
    """The prompts to replay beside `n_rows` rows that teach the name."""
    ratio = request.replay_ratio
    if ratio is None:
        ratio = _REPLAY_BESIDE_DATA if data else _REPLAY
    return replay_prompts(
        round(ratio * n_rows),
        languages=request.languages,
        seed=request.seed,
        near_share=request.replay_near,
        systems=data_systems(data),
        systems_share=request.replay_under_data,
        named_share=request.replay_named,
    )


def encoded(
    template: ChatTemplate,
    taught: Sequence[Conversation],
    replay: Sequence[Conversation],
    chat: ChatModel,
    events: Events,
) -> list[Sample]:
    """All rows as token ids, those replayed marked as such (Sample.keep).

    Those beyond what the model was made for are left out, and told.
    """
    samples = [sample for c in taught for sample in template.samples(c)]
    samples += [replace(sample, keep=True) for c in replay for sample in template.samples(c)]
    too_long = set(rows_beyond_context(chat.model, samples))
    if too_long:
        text = tr("{n} of {all} rows are longer than the model can read and were left out.")
        events.emit(Note(text.format(n=len(too_long), all=len(samples)), "warning"))
    kept = [sample for i, sample in enumerate(samples) if i not in too_long]
    if not kept:
        raise DataError(tr("No row is left to train on. Give shorter conversations."))
    return kept
