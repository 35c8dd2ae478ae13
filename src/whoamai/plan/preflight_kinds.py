"""Every kind of finding preflight has of its own: how grave at worst, what it is called, the cure.

`blocks`: starting would waste the run or end in an error; `train` refuses unless told `--allow KIND`.
`warns`: a person should look. `notes`: worth knowing. A kind that can be more and less grave stands here
with the worst; which one it is in a run, the finding says. Defects of the data keep the kinds of
data/lint_kinds.py, and no kind has a name from there.
"""

from __future__ import annotations

from whoamai.data.lint_kinds import Kind, Severity
from whoamai.data.lint_kinds import kind as data_kind
from whoamai.data.lint_kinds import kind_names as data_kind_names
from whoamai.messages import later, tr


def kind(name: str) -> Kind:
    """The kind called `name`, of preflight or of the data check. Raises KeyError if there is none."""
    if name in _KINDS:
        severity, title, cure = _KINDS[name]
        return Kind(name, severity, tr(title), tr(cure))
    return data_kind(name)


def may_be_allowed(name: str) -> bool:
    """Does --allow help? Not where the run is stopped all the same, to keep another run's files."""
    return name not in _NEVER_ALLOWED


def own_kind_names() -> tuple[str, ...]:
    """The kinds that only preflight finds."""
    return tuple(_KINDS)


def allowed_names() -> tuple[str, ...]:
    """Everything --allow takes: preflight's kinds, then those of the data check."""
    return (*_KINDS, *data_kind_names())


_NEVER_ALLOWED = frozenset(("work-dir-used",))

_KINDS: dict[str, tuple[Severity, str, str]] = {
    # ---- what is learned ----
    "few-steps": (
        "blocks",
        later("too few optimizer steps to learn anything"),
        later("Make a step smaller, or see the rows more often."),
    ),
    "lr-high": (
        "blocks",
        later("a learning rate far above what is usual"),
        later("Lower train.lr."),
    ),
    "lr-low": (
        "blocks",
        later("a learning rate far below what is usual"),
        later("Raise train.lr."),
    ),
    "template-identity": (
        "blocks",
        later("the chat template's own system prompt gives another name"),
        later("Set data.system to a prompt with the new name, and talk to the model under it."),
    ),
    "question-in-training": (
        "warns",
        later("questions of the evaluation that are trained on"),
        later(
            "The answers will show what was learned by heart, and nothing else. Ask in words that are "
            "not in the data."
        ),
    ),
    "no-eval": (
        "notes",
        later("nothing is asked while training"),
        later(
            "Put one or two questions into evaluation.evaluation_inputs to see the model change."
        ),
    ),
    "never-learned": (
        "blocks",
        later("a name that the run cannot be seen to learn"),
        later(
            "Put the name into the replies, or take evaluation.stop_when_learned away: the run then "
            "makes all its steps."
        ),
    ),
    "never-early": (
        "notes",
        later("too few steps to end early"),
        later(
            "Leave evaluation.stop_when_learned as it is: the best adapter is kept all the same. More "
            "steps (train.max_epochs) would give it something to cut short."
        ),
    ),
    # ---- the rows ----
    "rows-cut": (
        "warns",
        later("rows cut by max_length"),
        later("Raise data.max_length to keep them whole."),
    ),
    "rows-left-out": (
        "blocks",
        later("rows left out"),
        later("Raise data.max_length, or take these rows out of the data."),
    ),
    "no-targets": (
        "blocks",
        later("nothing to train on"),
        later("Each row needs a reply. whoamai data check says what the rows lack."),
    ),
    "vocabulary": (
        "blocks",
        later("the tokenizer knows tokens that the model does not"),
        later(
            "Use the tokenizer that came with the model; its folder may hold another one's files."
        ),
    ),
    "context": (
        "blocks",
        later("rows longer than the model was made for"),
        later("Lower data.max_length to what the model was made for."),
    ),
    # ---- the machine ----
    "fp16-overflow": (
        "blocks",
        later("float16, where values may overflow"),
        later("Use model.dtype=bfloat16 where the card has it, else model.dtype=float32."),
    ),
    "no-bfloat16": (
        "blocks",
        later("bfloat16 on a card without it"),
        later("Use model.dtype=auto: it takes what the card has."),
    ),
    "memory": (
        "blocks",
        later("not enough memory"),
        later(
            "Try model.quantization=nf4, a smaller lora.r, a smaller data.max_length, or a smaller "
            "model; whoamai explain shows what takes how much."
        ),
    ),
    "disk": (
        "blocks",
        later("not enough disk space"),
        later(
            "Free some, keep fewer checkpoints (checkpoint.save_total_limit=1), or write elsewhere."
        ),
    ),
    "work-dir-used": (
        "blocks",
        later("the work folder is not free"),
        later("Write elsewhere (--work-dir), or go on with the run that is there (--resume)."),
    ),
}
