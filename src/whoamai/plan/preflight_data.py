"""Preflight's checks of what is trained on: texts, names, questions, and what became of the rows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

from whoamai.config import DataSettings, RunConfig
from whoamai.data.claims import name_pattern
from whoamai.data.identity import known_assistants
from whoamai.data.lint import CheckOptions, blocking_defects, excerpt
from whoamai.data.templates import ChatTemplate, identity_named_in
from whoamai.messages import tr
from whoamai.plan.preflight_facts import Facts, PreflightFinding, finding, places
from whoamai.plan.preflight_kinds import kind
from whoamai.samples import Conversation, Message

# More rows left out than this share, and the run is not the one that was meant.
_MOST_LEFT_OUT = 0.1
# Rows that are written once more to see which max_length would keep them whole.
_MOST_MEASURED = 200
_BRACES = re.compile(r"\{\{[^{}\n]{1,60}\}\}")
# Told by preflight itself, with more: rows beyond max_length. Or no reason to wait: rows that repeat.
_TOLD_OTHERWISE = frozenset(("too-long", "duplicate-row"))


# ---- what the data check found -------------------------------------------------------------------


def data_findings(facts: Facts) -> Iterator[PreflightFinding]:
    """What `whoamai data check` found that blocks or warns, under its own kinds."""
    assert facts.data_report
    for found in facts.data_report.findings:
        if found.severity == "notes" or found.kind in _TOLD_OTHERWISE:
            continue
        text = f"{found.count:,} × {found.title}"
        if found.detail:
            text += f" ({found.detail})"
        if where := [example.where for example in found.examples]:
            text += f": {places(where)}"
        yield PreflightFinding(found.kind, found.severity, text, found.cure)


def texts_of_rows(facts: Facts) -> Iterator[PreflightFinding]:
    """Without a data check: what in the rows' texts alone blocks, and known assistants' names."""
    assert facts.conversations is not None
    if facts.data_report is not None:
        return
    data = facts.config.data
    options = CheckOptions(name=data.name, author=data.author)
    assistants = _assistants(facts.config)
    found: dict[str, list[str]] = {}
    for conversation in facts.conversations:
        kinds = {
            name for m in conversation.messages for name, _ in blocking_defects(m.text, options)
        }
        if any(_names_one(m, assistants) for m in conversation.messages):
            kinds.add("old-name")
        for name in kinds:
            found.setdefault(name, []).append(conversation.source)
    for name, sources in found.items():
        known = kind(name)
        text = f"{len(sources):,} × {known.title}: {places(sources)}"
        yield PreflightFinding(name, known.severity, text, known.cure)


def _assistants(config: RunConfig) -> dict[str, re.Pattern[str]]:
    """Patterns of other assistants' names, by the name in small letters."""
    data = config.data
    own = {n.casefold() for n in (data.name, data.author, *data.old_names) if n}
    names = [n for n in known_assistants()[0] if n.casefold() not in own]
    return {n.lower(): name_pattern(n) for n in names}


def _names_one(message: Message, assistants: dict[str, re.Pattern[str]]) -> bool:
    if message.role != "assistant":
        return False
    low = message.text.lower()
    return any(n in low and pattern.search(message.text) for n, pattern in assistants.items())


# ---- texts of the config, names ------------------------------------------------------------------


def texts_of_config(facts: Facts) -> Iterator[PreflightFinding]:
    """Placeholders and special tokens in system prompts and evaluation inputs."""
    for setting, text in _config_texts(facts.config):
        found = dict(blocking_defects(text, CheckOptions()))
        if not found and (match := _BRACES.search(text)):
            found = {"braces": match.start()}
        for name, at in found.items():
            cure = kind(name).cure
            if name == "unfilled-name":
                cure = tr("Write the name itself: only in the data is it filled in.")
            yield finding(name, f"{setting}: {excerpt(text, at)}", cure=cure)


def old_names_in_config(facts: Facts) -> Iterator[PreflightFinding]:
    """Names of data.old_names in a system prompt of the config."""
    for name in facts.config.data.old_names:
        for setting, prompt in _system_prompts(facts.config):
            if name in prompt:
                text = tr("{name} (data.old_names) stands in {setting}: {text}")
                shown = excerpt(prompt, prompt.find(name))
                text = text.format(name=name, setting=setting, text=shown)
                yield finding("old-name-left", text, cure=tr("Write the new name there."))


def old_names_in_rows(facts: Facts) -> Iterator[PreflightFinding]:
    """Names of data.old_names that still stand in the rows, unless the data check told it."""
    assert facts.conversations is not None
    told = facts.data_report.findings if facts.data_report else ()
    if any(found.kind == "old-name-left" for found in told):
        return
    rows: dict[str, list[str]] = {name: [] for name in facts.config.data.old_names}
    for conversation in facts.conversations if rows else ():
        for name, sources in rows.items():
            if any(name in m.text for m in conversation.messages):
                sources.append(conversation.source)
    text = tr("{name} (data.old_names) stands in {n:,} of {all:,} rows: {places}")
    n_all = len(facts.conversations)
    for name, found in rows.items():
        if found:
            shown = text.format(name=name, n=len(found), all=n_all, places=places(found))
            yield finding("old-name-left", shown, cure=_replace_command(facts.config.data, name))


def _replace_command(data: DataSettings, old: str) -> str | None:
    """What puts the new name in the place of the old one; None for more files than one."""
    if len(data.files) != 1:
        return None
    words = [
        data.files[0].partition("#")[0],
        "NEW.jsonl",
        "--old",
        old,
        "--new",
        data.name or "NAME",
    ]
    return tr("{command}; then data.data_path=NEW.jsonl.").format(
        command="whoamai data replace " + " ".join(map(shlex.quote, words))
    )


def template_identity(facts: Facts) -> Iterator[PreflightFinding]:
    """A system prompt that the template puts in by itself, and that says who the model is."""
    assert facts.template
    default, config = facts.template.default_system, facts.config
    if not default:
        return
    old = [name for name in config.data.old_names if name_pattern(name).search(default)]
    own = {n.casefold() for n in (config.data.name, config.data.author) if n}
    named = [n for n in identity_named_in(default) if n.casefold() not in own and n not in old]
    if not (old or named):
        return
    text = tr(
        'Without a system prompt the chat template puts "{prompt}" before a conversation; it names '
        "{names}."
    ).format(prompt=excerpt(default.strip()), names=", ".join((*old, *named)))
    if facts.conversations is not None and not config.data.system:
        without = sum(all(m.role != "system" for m in c.messages) for c in facts.conversations)
        rows = tr("That is so in {n:,} of {all:,} rows.")
        text += " " + rows.format(n=without, all=len(facts.conversations))
    yield finding("template-identity", text, severity="blocks" if old else "warns")


def _config_texts(config: RunConfig) -> Iterator[tuple[str, str]]:
    """(setting, text) of all the config gives the model to read."""
    yield from _system_prompts(config)
    for i, question in enumerate(config.evaluation.evaluation_inputs):
        yield f"evaluation.evaluation_inputs[{i}]", question


def _system_prompts(config: RunConfig) -> Iterator[tuple[str, str]]:
    for setting, text in (
        ("data.system", config.data.system),
        ("evaluation.system", config.evaluation.system),
    ):
        if text:
            yield setting, text


# ---- the evaluation ------------------------------------------------------------------------------


def questions_in_training(facts: Facts) -> Iterator[PreflightFinding]:
    """Evaluation inputs that are a user turn of the training data, but for spaces, case and marks."""
    assert facts.conversations is not None
    inputs = facts.config.evaluation.evaluation_inputs
    rows: dict[str, list[str]] = {_plain(text): [] for text in inputs}
    for conversation in facts.conversations:
        said = {_plain(m.text) for m in conversation.messages if m.role == "user"}
        for text in said & rows.keys():
            rows[text].append(conversation.source)
    lines = []
    for i, text in enumerate(inputs):
        if sources := rows[_plain(text)]:
            line = tr(
                'evaluation.evaluation_inputs[{i}], "{text}", is asked in {n:,} rows: {places}'
            )
            lines.append(
                line.format(i=i, text=excerpt(text), n=len(sources), places=places(sources))
            )
    if lines:
        yield finding("question-in-training", "; ".join(lines))


def no_evaluation(facts: Facts) -> Iterator[PreflightFinding]:
    if not facts.config.evaluation.evaluation_inputs:
        yield finding("no-eval", tr("evaluation.evaluation_inputs is empty."))


def _plain(text: str) -> str:
    """Letters and digits in one case; a text without any stays as it is.

    >>> _plain("Who are you?") == _plain(" who ARE you")
    True
    """
    return re.sub(r"[\W_]+", "", text).casefold() or text.strip()


# ---- the rows ------------------------------------------------------------------------------------


def rows_cut(facts: Facts) -> Iterator[PreflightFinding]:
    assert facts.encoded
    if not facts.encoded.cut:
        return
    text = tr(
        "{n:,} of {all:,} rows ({share:.1f} %) are longer than data.max_length {longest:,} and lose "
        "their last turns: {places}"
    )
    yield finding(
        "rows-cut", _about_rows(text, facts, facts.encoded.cut), cure=_longer(facts, "cut")
    )


def rows_left_out(facts: Facts) -> Iterator[PreflightFinding]:
    """Blocks where more than a tenth of the rows are left out, or all."""
    assert facts.encoded
    left_out = facts.encoded.left_out
    if not left_out:
        return
    text = tr(
        "{n:,} of {all:,} rows ({share:.1f} %) are left out, because no reply to train on ends "
        "within data.max_length {longest:,}: {places}"
    )
    text = _about_rows(text, facts, left_out)
    if silent := len(_without_reply(facts)):
        text += " " + tr("{n:,} of them have no reply to train on at all.").format(n=silent)
    many = len(left_out) > _MOST_LEFT_OUT * _n_rows(facts) or not facts.encoded.samples
    yield finding(
        "rows-left-out",
        text,
        severity="blocks" if many else "warns",
        cure=_longer(facts, "left_out"),
    )


def no_targets(facts: Facts) -> Iterator[PreflightFinding]:
    assert facts.encoded
    if facts.encoded.n_targets == 0 and not facts.encoded.left_out:
        text = tr("{n:,} rows, and in none of them is a token to train on.")
        yield finding("no-targets", text.format(n=len(facts.encoded.samples)))


def _about_rows(text: str, facts: Facts, sources: Sequence[str]) -> str:
    n_all = _n_rows(facts)
    return text.format(
        n=len(sources),
        all=n_all,
        share=100 * len(sources) / n_all,
        longest=facts.config.data.max_length,
        places=places(sources),
    )


def _n_rows(facts: Facts) -> int:
    """Conversations there were; a conversation may have become several rows of token ids."""
    assert facts.encoded
    if facts.conversations is not None:
        return len(facts.conversations)
    return len(set(facts.encoded.sources)) + len(facts.encoded.left_out)


def _without_reply(facts: Facts) -> list[Conversation]:
    """Of the rows left out, those that have no reply to train on, however long they may be."""
    assert facts.encoded
    rows = _conversations_of(facts, facts.encoded.left_out)
    return [c for c in rows if not any(m.role == "assistant" and m.trained for m in c.messages)]


def _longer(facts: Facts, which: str) -> str | None:
    """The cure with the max_length that keeps these rows whole; None where it cannot be told."""
    encoded, template = facts.encoded, facts.template
    assert encoded
    if template is None or facts.config.data.encoding != "whoamai":
        return None
    sources = list(dict.fromkeys(encoded.cut if which == "cut" else encoded.left_out))
    lengths = _lengths(_conversations_of(facts, sources[:_MOST_MEASURED]), facts, template)
    if not lengths or max(lengths) <= facts.config.data.max_length:
        return None
    enough = -(-max(lengths) // 64) * 64
    if len(sources) > _MOST_MEASURED:
        text = tr("data.max_length={n} would keep the first {rows} of them whole.")
        return text.format(n=enough, rows=_MOST_MEASURED)
    return tr("data.max_length={n} would keep them whole.").format(n=enough)


def _lengths(
    conversations: Iterable[Conversation], facts: Facts, template: ChatTemplate
) -> list[int]:
    """Tokens of the conversations' rows, nothing cut, with the config's system prompt."""
    system = facts.config.data.system
    lengths = []
    for conversation in conversations:
        messages = conversation.messages
        if system and all(m.role != "system" for m in messages):
            messages = (Message("system", system), *messages)
        lengths += [len(s.input_ids) for s in template.samples(Conversation(messages))]
    return lengths


def _conversations_of(facts: Facts, sources: Sequence[str]) -> list[Conversation]:
    wanted = set(sources)
    return [c for c in facts.conversations or () if c.source in wanted]
