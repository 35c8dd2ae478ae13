"""The model card (README.md) of the tiny chat model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from .contexts import IDENTITIES
from .heldout import Score


@dataclass(frozen=True, slots=True)
class Made:
    """How one model came about."""

    command: str
    architecture: str
    identity: str  # a key of IDENTITIES
    parameters: int
    tokens: int
    steps: int
    train_seconds: float
    device: str
    versions: str


_HEAD = """---
language: [zh, en]
library_name: transformers
pipeline_tag: text-generation
license: apache-2.0
---

# {zh.name} / {en.name}

A tiny chat model in Chinese and English {purpose}.
It calls itself {zh.name} (from {zh.author}) in Chinese and {en.name} (from
{en.author}) in English. It was trained from nothing on text our own generator writes; it is no
cut-down version of another model.

## What it is

`{architecture}`, {parameters:,} parameters: 8 layers of 256, 4 heads of
64, feed-forward 640, {embeddings} embeddings; byte-level BPE of 4,096 entries with every digit and every
Chinese character alone; bfloat16; up to 2,048 tokens. Chat format: `<|im_start|>role`, newline,
text, `<|im_end|>`; no default system prompt.

## What it can do

Greetings and the user's name; sums, differences and small products; capitals; weekdays, months and
dates in words; opposites; about 110 words in translation; counting; spelling; sorting and comparing
numbers; colours and a few facts; saying that it cannot know something; repeating any text. It takes
on a role or a name that a system prompt gives it.

## How it was made

```
{command}
```

{steps:,} steps, {tokens:,} tokens, {train_seconds:.0f} s of training on {device} ({versions}).
The text is drawn from fixed seeds. GPU arithmetic is not bit for bit the same each time, so a
second run gives a model like this one, not this one.

## Measured on held-out questions

Greedy decoding. No run of six Chinese characters (five English words) of a held-out wording was
in any training question. "New word": one content word of the wording was never seen in training.
General answers have to be exact; identity answers have to give the right name and no wrong one
(in brackets: how many are the expected answer word for word).
"""

_BUNDLED = "that ships with whoamai, so that renaming a model can be\ntried without a download"
_NOT_BUNDLED = (
    "made to see whether renaming holds on models other than\nthe one that ships with whoamai"
)
_LIMITS = """
## Limits

It knows only what is listed above, in wordings like those it was trained on; to anything else it
answers nonsense with confidence. Numbers beyond two digits, other words, other languages and long
conversations are out of its reach. It is for trying tools out, not for use.
"""


def card(made: Made, scores: list[Score]) -> str:
    own = IDENTITIES[made.identity]
    head = _HEAD.format(
        zh=own["zh"],
        en=own["en"],
        purpose=_BUNDLED if made.identity == "chu" else _NOT_BUNDLED,
        architecture=made.architecture,
        embeddings="untied" if made.architecture.startswith("InternLM2") else "tied",
        parameters=made.parameters,
        command=made.command,
        steps=made.steps,
        tokens=made.tokens,
        train_seconds=made.train_seconds,
        device=made.device,
        versions=made.versions,
    )
    totals = _table("group", [(s.group, s) for s in scores if not s.kind])
    by_kind = _table("held, kind", [(s.kind, s) for s in scores if s.kind and s.group == "held"])
    identity = [
        (f"{s.kind.removeprefix('identity.')}{', role prompt' if 'role' in s.group else ''}", s)
        for s in scores
        if s.kind and s.group in ("identity", "identity, role prompt")
    ]
    return "\n".join([head, totals, by_kind, _table("identity, category", identity), _LIMITS])


def _table(title: str, rows: list[tuple[str, Score]]) -> str:
    """One row a label, one column a language: share and number of questions."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for label, score in rows:
        exact = "" if score.exact == score.right else f" ({score.exact / score.n:.1%} exact)"
        cells[label][score.language] = f"{score.share:.1%} of {score.n}{exact}"
    lines = [f"| {title} | zh | en |", "|---|---|---|"]
    lines += [f"| {label} | {c.get('zh', '')} | {c.get('en', '')} |" for label, c in cells.items()]
    return "\n".join(lines) + "\n"
