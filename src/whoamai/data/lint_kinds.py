"""Every kind of defect a data file can have: how grave it is, what it is called, and the cure.

`blocks`: training on it wastes the run or teaches something wrong; `rename` and `train` refuse unless
told `--allow KIND`. `warns`: a person should look. `notes`: worth knowing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from whoamai.messages import tr

Severity = Literal["blocks", "warns", "notes"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of defect, in the reader's language."""

    name: str
    severity: Severity
    title: str
    cure: str


def kind(name: str) -> Kind:
    """The kind called `name`. Raises KeyError for a name that is none."""
    severity, words = _KINDS[name]
    return Kind(name, severity, *words())


def kind_names() -> tuple[str, ...]:
    return tuple(_KINDS)


_Words = Callable[[], tuple[str, str]]

_KINDS: dict[str, tuple[Severity, _Words]] = {
    # ---- the file ----
    "not-json": (
        "blocks",
        lambda: (
            tr("lines that are not JSON"),
            tr("Mend the line by hand; --allow not-json leaves such rows out."),
        ),
    ),
    "broken-utf8": (
        "blocks",
        lambda: (
            tr("text that is not UTF-8"),
            tr("Save the file as UTF-8. What is lost cannot be guessed."),
        ),
    ),
    "ends-early": (
        "blocks",
        lambda: (tr("a packed file that is cut off"), tr("Copy or download the file again.")),
    ),
    "wrong-columns": (
        "blocks",
        lambda: (
            tr("table rows that do not fit the heading"),
            tr("Put texts that hold commas, quotes or line ends in quotes."),
        ),
    ),
    "byte-order-mark": (
        "notes",
        lambda: (
            tr("a byte order mark (BOM) at the beginning of the file, or in a text"),
            tr("It is passed over here; other tools stumble. whoamai data repair drops it."),
        ),
    ),
    # ---- the row ----
    "unknown-form": (
        "blocks",
        lambda: (
            tr("rows of no known form"),
            tr("Known forms: conversation, messages, conversations, instruction/output, query."),
        ),
    ),
    "nested-object": (
        "blocks",
        lambda: (
            tr("an object or list where text belongs"),
            tr(
                "A tool that does not look writes it as text, and the model learns that. "
                "whoamai data repair takes the text out and gives lost questions back."
            ),
        ),
    ),
    "not-text": (
        "blocks",
        lambda: (
            tr("a missing text, or a number where text belongs"),
            tr("whoamai data repair writes numbers as text; the rest needs a person."),
        ),
    ),
    "no-turns": (
        "blocks",
        lambda: (
            tr("rows without a list of turns"),
            tr("Write the turns as a list of objects."),
        ),
    ),
    "unknown-role": (
        "blocks",
        lambda: (
            tr("roles that are not known"),
            tr("Known are system, user, assistant (and human, gpt). Tool calls are not read."),
        ),
    ),
    "role-order": (
        "blocks",
        lambda: (
            tr("turns out of order"),
            tr("User and assistant take turns, the user first; a reply comes last."),
        ),
    ),
    "no-reply": (
        "blocks",
        lambda: (
            tr("rows without a reply to train on"),
            tr("Nothing is learned from them. Add the reply or take the row out."),
        ),
    ),
    "empty-reply": (
        "blocks",
        lambda: (
            tr("empty replies"),
            tr("The model would learn to say nothing. Fill them in or take the rows out."),
        ),
    ),
    "empty-question": (
        "warns",
        lambda: (
            tr("replies without a question"),
            tr("The model learns to say this to anything. whoamai data repair finds questions."),
        ),
    ),
    "two-systems": (
        "blocks",
        lambda: (
            tr("two system prompts in one row that differ"),
            tr("Decide on one; put it in the first message or in the field system."),
        ),
    ),
    "half-character": (
        "blocks",
        lambda: (
            tr("halves of characters (lone surrogates)"),
            tr("An emoji was cut in two. Replace it; no tokenizer can read it."),
        ),
    ),
    # ---- the text ----
    "placeholder": (
        "blocks",
        lambda: (
            tr('placeholders instead of text ("xxx", "…", "TODO")'),
            tr("Fill in what was meant; whoamai data repair gives lost questions back."),
        ),
    ),
    "unfilled-name": (
        "blocks",
        lambda: (
            tr("{{name}} or {{author}} not filled in"),
            tr("Give --name and --author; otherwise the model says the braces."),
        ),
    ),
    "braces": (
        "warns",
        lambda: (
            tr("{{…}} in a text"),
            tr("If it is a placeholder, fill it in; code may stay."),
        ),
    ),
    "special-token": (
        "blocks",
        lambda: (
            tr("special tokens inside a text (<|im_end|>, </s>, [INST], …)"),
            tr("They would end or begin turns in the middle of a text. Take them out."),
        ),
    ),
    "control-character": (
        "warns",
        lambda: (
            tr("control characters (NUL and others)"),
            tr("whoamai data repair takes them out."),
        ),
    ),
    "too-long": (
        "warns",
        lambda: (
            tr("rows longer than max_length"),
            tr(
                "Cut after the last whole turn that fits, or dropped. Raise max_length to keep them."
            ),
        ),
    ),
    # ---- the rows together ----
    "doubled-system": (
        "warns",
        lambda: (
            tr("the system prompt a second time inside the row"),
            tr("Its second copy costs tokens and teaches nothing."),
        ),
    ),
    "repeated-system": (
        "notes",
        lambda: (
            tr("one system prompt on many rows"),
            tr("Needed on each row, and computed once for all of them where rows share a pack."),
        ),
    ),
    "duplicate-row": (
        "warns",
        lambda: (
            tr("rows that occur more than once"),
            tr("They count double. If unwanted: whoamai data repair --drop-duplicates."),
        ),
    ),
    "same-question": (
        "warns",
        lambda: (
            tr("one question with many different replies"),
            tr("Is it a placeholder, or were the real questions lost? whoamai data repair helps."),
        ),
    ),
    "two-names": (
        "warns",
        lambda: (
            tr("the replies give the model more than one name"),
            tr("It will learn both. Put one name everywhere: whoamai data replace --old … --new …"),
        ),
    ),
    "old-name": (
        "warns",
        lambda: (
            tr("names of other assistants in replies"),
            tr("If it is the model's own old name: whoamai data replace --old … --new …"),
        ),
    ),
    "old-name-left": (
        "blocks",
        lambda: (
            tr("the old name (--old) is still there"),
            tr("whoamai data replace --old … --new … puts the new one everywhere."),
        ),
    ),
    "other-language": (
        "warns",
        lambda: (
            tr("replies in another language than asked for (--lang)"),
            tr("Take them out, or add the language to --lang."),
        ),
    ),
}
