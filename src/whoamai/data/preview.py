"""What the model will see of a data set: its text token by token, what is trained on, what is shared.

A piece is the shortest stretch of text that whole tokens stand for. Mostly that is one token; an emoji
or a rare character may take several, none of which is a text alone. The pieces of a row, put together,
are its text exactly:

    tokens   <|im_start|>  user  \\n   你   F0 9F  98  80   <|im_end|>
    pieces   <|im_start|>  user  \\n   你   😀 (3 tokens)    <|im_end|>

The text is the one that the template wrote, cut at the tokenizer's own offsets. Where that text does
not give the row's ids again (another encoding, a tokenizer without offsets) the ids are decoded.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from whoamai.data.prefix_tree import (
    TreeStatistics,
    shared_segments,
    statistics,
    statistics_of_steps,
)
from whoamai.data.steps import StepSize, plan_steps
from whoamai.data.templates import ChatTemplate
from whoamai.errors import SettingError
from whoamai.messages import tr
from whoamai.samples import Conversation, Sample

if TYPE_CHECKING:
    from whoamai.data.xtuner_encoding import XTunerEncoding

_MOST_COUNTED = 20_000  # conversations tokenized for the numbers; more would take minutes
_MOST_SHARED = 8
_LEAST_SHARED = 0.005  # of all that is saved; what saves less is not worth a line
_SHARED_LENGTH = 60  # characters shown of a shared beginning
_UNDECODED = "\ufffd"


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """A text and the tokens that stand for it. `is_unknown`: the model sees an unknown token there."""

    text: str
    ids: tuple[int, ...]
    trained: bool
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class RowPreview:
    """One row as it is trained; a conversation makes `parts` of them, this is number `part`.

    is_exact: the pieces are the template's own text; else they are what the ids decode to.
    prompt, n_prompt: the text, and its number of tokens, from which its last reply is generated.
    starts_like_generation: the row's ids begin with those of `prompt`, as they should.
    """

    source: str
    part: int
    parts: int
    pieces: tuple[TokenPiece, ...]
    n_tokens: int
    n_trained: int
    is_exact: bool
    prompt: str
    n_prompt: int
    starts_like_generation: bool

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class SharedText:
    """A stretch of text that `rows` rows share; `text` is its beginning.

    `level` counts the stretches before it on the same rows that are shown too; `saved`: tokens that
    need not be computed again.
    """

    text: str
    n_tokens: int
    rows: int
    level: int
    saved: int


@dataclass(frozen=True, slots=True)
class DataPreview:
    """The chosen rows, and numbers over the first `n_counted` of `n_conversations`.

    untrained: sources of chosen conversations that have no reply to train on.
    tree: all rows as one prefix tree, the most that can be saved; steps: a tree for each optimizer
    step of `rows_per_step` shuffled rows, as training would have it. shared: what saves most.
    """

    rows: tuple[RowPreview, ...]
    untrained: tuple[str, ...]
    n_conversations: int
    n_counted: int
    n_trained: int
    tree: TreeStatistics
    steps: TreeStatistics
    rows_per_step: int
    shared: tuple[SharedText, ...]


def make_preview(
    conversations: Iterable[Conversation],
    template: ChatTemplate | XTunerEncoding,
    tokenizer: Any,
    *,
    numbers: Sequence[int] = (),
    rows_per_step: int = 16,
    most_counted: int = _MOST_COUNTED,
) -> DataPreview:
    """Show the conversations with these row numbers in their file (the first without any).

    Conversations are not kept, only the ids of the first `most_counted`. Raises SettingError for a
    number that no row has.
    """
    chosen: dict[tuple[str, int], Conversation] = {}
    ids: list[tuple[int, ...]] = []
    n = n_trained = first = last = 0
    for n, conversation in enumerate(conversations, 1):
        number = _number(conversation.source, n)
        first, last = min(first or number, number), max(last, number)
        if number in numbers if numbers else n == 1:
            chosen.setdefault((conversation.source, number), conversation)
        for sample in template.samples(conversation) if n <= most_counted else ():
            ids.append(sample.input_ids)
            n_trained += sum(sample.is_target)
    if missing := set(numbers) - {number for _, number in chosen}:
        raise SettingError(
            tr("There is no row {number} to show; the rows go from {first} to {last}.").format(
                number=", ".join(map(str, sorted(missing))), first=first, last=last
            )
        )
    shown = [(source, list(_rows(c, template, tokenizer))) for (source, _), c in chosen.items()]
    return DataPreview(
        rows=tuple(row for _, rows in shown for row in rows),
        untrained=tuple(source for source, rows in shown if not rows),
        n_conversations=n,
        n_counted=min(n, most_counted),
        n_trained=n_trained,
        tree=statistics(ids),
        steps=_steps(ids, rows_per_step),
        rows_per_step=rows_per_step,
        shared=_shared(ids, tokenizer),
    )


def _number(source: str, place: int) -> int:
    """The row number in a source ("file.jsonl:12"); without one, the conversation's place."""
    _, _, behind = source.rpartition(":")
    return int(behind) if behind.isascii() and behind.isdigit() else place


def _steps(ids: Sequence[Sequence[int]], rows_per_step: int) -> TreeStatistics:
    size = StepSize(rows=rows_per_step)
    (steps,) = plan_steps([len(row) for row in ids], size, epochs=1, seed=0)
    return statistics_of_steps(ids, steps)


def _shared(ids: Sequence[Sequence[int]], tokenizer: Any) -> tuple[SharedText, ...]:
    """The stretches that save most, in the order of the tree."""
    segments = shared_segments(ids)
    least = _LEAST_SHARED * sum(segment.saved for segment in segments)
    most = sorted(segments, key=lambda segment: -segment.saved)[:_MOST_SHARED]
    chosen = {segment for segment in most if segment.saved >= least}
    shared = []
    above: list[bool] = []  # of the segments that this one goes on from, which are chosen
    for s in segments:
        del above[s.level :]
        if s in chosen:
            text = _beginning(ids[s.row][s.start : s.stop], tokenizer)
            shown = ("…" if s.start else "") + text
            shared.append(SharedText(shown, s.n_tokens, s.rows, sum(above), s.saved))
        above.append(s in chosen)
    return tuple(shared)


def _beginning(ids: Sequence[int], tokenizer: Any) -> str:
    # A token rarely stands for less than a third of a character.
    text = _decoded(tokenizer, ids[: 3 * _SHARED_LENGTH])
    is_whole = len(ids) <= 3 * _SHARED_LENGTH and len(text) <= _SHARED_LENGTH
    return text if is_whole else text[:_SHARED_LENGTH] + "…"


# ---- rows and pieces -----------------------------------------------------------------------------


def _rows(
    conversation: Conversation, template: ChatTemplate | XTunerEncoding, tokenizer: Any
) -> Iterator[RowPreview]:
    samples = template.samples(conversation)
    asked = _asked(conversation)
    texts = list(_texts(conversation, asked, template))
    prompts = [(before, template.prompt_ids(before)) for before in asked]
    for part, sample in enumerate(samples, 1):
        pieces, is_exact = _pieces(sample, texts, tokenizer)
        prompt, ids = _generated_from(sample, prompts)
        written = isinstance(template, ChatTemplate)
        yield RowPreview(
            source=conversation.source,
            part=part,
            parts=len(samples),
            pieces=tuple(pieces),
            n_tokens=len(sample.input_ids),
            n_trained=sum(sample.is_target),
            is_exact=is_exact,
            prompt=template.prompt_text(prompt.messages) if written else _decoded(tokenizer, ids),
            n_prompt=len(ids),
            starts_like_generation=list(sample.input_ids[: len(ids)]) == list(ids),
        )


def _asked(conversation: Conversation) -> list[Conversation]:
    """What stands before each trained reply, the longest first."""
    turns = conversation.messages
    ends = [i for i, m in enumerate(turns) if m.role == "assistant" and m.trained]
    return [Conversation(turns[:i], conversation.source) for i in reversed(ends)]


def _texts(
    conversation: Conversation,
    asked: Sequence[Conversation],
    template: ChatTemplate | XTunerEncoding,
) -> Iterator[tuple[str, str]]:
    """(prompt, reply) of each row that the conversation may make, as texts, the longest first."""
    if isinstance(template, ChatTemplate):
        for before in asked:
            reply = conversation.messages[len(before.messages)]
            yield template.prompt_text(before.messages), template.reply_text(reply.text)
    else:
        yield template.text(conversation), ""


def _generated_from(
    sample: Sample, prompts: Sequence[tuple[Conversation, list[int]]]
) -> tuple[Conversation, list[int]]:
    """The longest prompt that the row begins with; the longest of all where it begins with none."""
    row = list(sample.input_ids)
    fitting = [(c, ids) for c, ids in prompts if len(ids) < len(row) and row[: len(ids)] == ids]
    return (fitting or prompts)[0]


_Group = tuple[str, tuple[int, ...]]


def _pieces(
    sample: Sample, texts: Iterable[tuple[str, str]], tokenizer: Any
) -> tuple[list[TokenPiece], bool]:
    """(the row's pieces, whether they are the template's text)."""
    found = (_cut(sample.input_ids, prompt, reply, tokenizer) for prompt, reply in texts)
    groups = next((groups for groups in found if groups is not None), None)
    is_exact = groups is not None
    pieces: list[TokenPiece] = []
    at = 0
    for text, ids in groups if groups is not None else decoded_groups(sample.input_ids, tokenizer):
        trained = any(sample.is_target[at : at + len(ids)])
        unknown = text != tokenizer.unk_token and tokenizer.unk_token_id in ids
        pieces.append(TokenPiece(text, ids, trained, unknown))
        at += len(ids)
    return pieces, is_exact


def _cut(ids: Sequence[int], prompt: str, reply: str, tokenizer: Any) -> list[_Group] | None:
    """prompt + reply cut into the groups of `ids`; None where these are not its tokens."""
    if not tokenizer.is_fast:
        groups = decoded_groups(ids, tokenizer)
        return groups if _text_of(groups) == prompt + reply else None
    together = offset_groups(prompt + reply, tokenizer)
    if _ids_of(together) == tuple(ids):
        return together
    before = offset_groups(prompt, tokenizer)
    n = len(_ids_of(before))
    if _ids_of(before) != tuple(ids[:n]):
        return None
    # The reply is tokenized apart from its prompt where the two would merge.
    for behind in (offset_groups(reply, tokenizer), decoded_groups(ids[n:], tokenizer)):
        if _ids_of(behind) == tuple(ids[n:]) and _text_of(behind) == reply:
            return before + behind
    return None


def offset_groups(text: str, tokenizer: Any) -> list[_Group]:
    """`text` tokenized and cut where its tokens end. Tokens that overlap or are empty share a piece.

    What no token covers (white space that a tokenizer passes over) goes with the token behind it:

        text " a😀"   spans (1,2) (2,3) (2,3)   pieces " a" (1 token), "😀" (2 tokens)
    """
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    groups: list[list[int]] = []  # first token, one past the last, one past the last character
    for i, (start, stop) in enumerate(coded["offset_mapping"]):
        is_empty_so_far = bool(groups) and groups[-1][2] == 0
        if groups and (is_empty_so_far or start < groups[-1][2] or stop <= groups[-1][2]):
            groups[-1][1:] = i + 1, max(stop, groups[-1][2])
        else:
            groups.append([i, i + 1, stop])
    if groups:
        groups[-1][2] = len(text)
    begins = [0, *(stop for _, _, stop in groups)]
    ids = coded["input_ids"]
    return [
        (text[begin:stop], tuple(ids[first:last]))
        for begin, (first, last, stop) in zip(begins, groups, strict=False)
    ]


def decoded_groups(ids: Sequence[int], tokenizer: Any) -> list[_Group]:
    """The ids decoded, a piece at a time: tokens are added until they end in a whole character.

    Each piece is what it adds to the text of the piece before it, for some tokenizers write a token
    otherwise where nothing stands before it.
    """
    groups: list[_Group] = []
    before: Sequence[int] = ()
    begin = 0
    for end in range(1, len(ids) + 1):
        known = _decoded(tokenizer, before)
        text = _decoded(tokenizer, [*before, *ids[begin:end]])
        added = text[len(known) :] if text.startswith(known) else ""
        if (added and not added.endswith(_UNDECODED)) or end == len(ids):
            groups.append((added, tuple(ids[begin:end])))
            before, begin = ids[begin:end], end
    return groups


def _ids_of(groups: Iterable[_Group]) -> tuple[int, ...]:
    return tuple(i for _, ids in groups for i in ids)


def _text_of(groups: Iterable[_Group]) -> str:
    return "".join(text for text, _ in groups)


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


# ---- as plain text -------------------------------------------------------------------------------

_BRACKETS = (("⟦", "⟧"), ("⟪", "⟫"), ("⦃", "⦄"), ("«", "»"))
_LINE_ENDS = ("⏎", "↵", "¶")


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands around trained text and before a line end; none of it occurs in the text shown."""

    left: str
    right: str
    line_end: str


def marks_for(preview: DataPreview) -> Marks:
    """The first marks that none of the texts shown contains."""
    text = "".join((*(r.text + r.prompt for r in preview.rows), *(s.text for s in preview.shared)))
    numbered = ((f"⟦{n}⟦", f"⟧{n}⟧") for n in range(1, len(text) + 2))
    pairs = (pair for some in (_BRACKETS, numbered) for pair in some)
    left, right = next(p for p in pairs if p[0] not in text and p[1] not in text)
    longer = (f"⏎{n}⏎" for n in range(1, len(text) + 2))
    line_end = next(m for some in (_LINE_ENDS, longer) for m in some if m not in text)
    return Marks(left, right, line_end)


def visible(text: str, line_end: str = "⏎", *, on_lines: bool = True) -> str:
    """`text` with every character that cannot be seen, or steers a terminal, as a sign.

    on_lines: a line end is a sign and a real line end, else only the sign.

    >>> visible("a\\tb\\x1b[0m\\u200b", on_lines=False)
    'a␉b␛[0m⟨200B⟩'
    """
    return "".join(sign(c, line_end, on_lines) for c in text)


def sign(c: str, line_end: str, on_lines: bool) -> str:
    """What visible() shows for one character."""
    if c == "\n":
        return line_end + "\n" * on_lines
    if c < " ":
        return chr(0x2400 + ord(c))
    if c == "\x7f":
        return "␡"
    if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"⟨{ord(c):04X}⟩"
    return c


def plain_text(preview: DataPreview) -> str:
    """The preview for a file or a screen without colours, trained text in brackets."""
    marks = marks_for(preview)
    legend = tr(
        "{left}…{right} is trained on, the rest is given; {line_end} is a line end."
    ).format(left=marks.left, right=marks.right, line_end=marks.line_end)
    lines = [legend, ""] if preview.rows else []
    for row in preview.rows:
        lines += [heading(row), "", bracketed(row, marks), ""]
        lines += [*notes(row, marks), ""]
    lines += untrained_notes(preview)
    lines += summary(preview)
    lines += ["", shared_title(), *shared_lines(preview, marks)] if preview.shared else []
    return "\n".join(lines) + "\n"


def bracketed(row: RowPreview, marks: Marks) -> str:
    """The row's text, trained stretches between the brackets of `marks`."""
    parts = []
    for trained, pieces in groupby(row.pieces, key=lambda piece: piece.trained):
        text = visible("".join(piece.text for piece in pieces), marks.line_end)
        parts.append(f"{marks.left}{text}{marks.right}" if trained else text)
    return "".join(parts)


def heading(row: RowPreview) -> str:
    """Where the row comes from, and its counts."""
    name = visible(row.source, on_lines=False) or "-"
    if row.parts > 1:
        name += " " + tr("(part {part} of {parts})").format(part=row.part, parts=row.parts)
    counts = tr("tokens: {total} (prompt {prompt}, trained {trained})").format(
        total=row.n_tokens, prompt=row.n_tokens - row.n_trained, trained=row.n_trained
    )
    return f"{name}  {counts}"


def notes(row: RowPreview, marks: Marks) -> list[str]:
    """What there is to know of a row besides its text."""
    ending = visible(row.prompt[-40:], marks.line_end, on_lines=False)
    if row.starts_like_generation:
        lines = [
            tr("A reply is generated from the first {n} tokens of this row, which end in: {text}")
        ]
    else:
        lines = [
            tr(
                "Careful: a reply is generated from another beginning than this row has: {n} tokens "
                "that end in: {text}"
            )
        ]
    lines = [line.format(n=row.n_prompt, text=ending) for line in lines]
    several = {piece.text: len(piece.ids) for piece in row.pieces if len(piece.ids) > 1}
    if several:
        shown = ", ".join(
            f"{visible(text, marks.line_end, on_lines=False)} ({n})"
            for text, n in list(several.items())[:5]
        )
        lines.append(tr("Texts of several tokens each: {shown}").format(shown=shown))
    if unknown := [piece.text for piece in row.pieces if piece.is_unknown]:
        shown = visible(", ".join(dict.fromkeys(unknown)), marks.line_end, on_lines=False)
        lines.append(
            tr("The model does not know, and sees as unknown: {shown}").format(shown=shown)
        )
    if not row.is_exact:
        lines.append(
            tr("The text is what the tokens decode to; spaces may differ from what was written.")
        )
    return lines


def untrained_notes(preview: DataPreview) -> list[str]:
    return [
        tr("{source} has no reply to train on.").format(source=visible(source, on_lines=False))
        for source in preview.untrained
    ]


def summary(preview: DataPreview) -> list[str]:
    """The numbers over all rows, a line each."""
    tree, steps = preview.tree, preview.steps
    lines = [
        tr("{rows} rows with {tokens} tokens, {trained} of them trained on.").format(
            rows=f"{tree.rows:,}", tokens=f"{tree.tokens:,}", trained=f"{preview.n_trained:,}"
        ),
        tr("As one prefix tree: {nodes} tokens to compute, {saved} ({percent} %) saved.").format(
            nodes=f"{tree.nodes:,}", saved=f"{tree.saved:,}", percent=_percent(tree)
        ),
        tr(
            "As one tree for each step of {n} rows: {nodes} tokens to compute, {saved} "
            "({percent} %) saved."
        ).format(
            n=preview.rows_per_step,
            nodes=f"{steps.nodes:,}",
            saved=f"{steps.saved:,}",
            percent=_percent(steps),
        ),
    ]
    if preview.n_counted < preview.n_conversations:
        lines.append(
            tr("Counted over the first {n} of {all} conversations.").format(
                n=f"{preview.n_counted:,}", all=f"{preview.n_conversations:,}"
            )
        )
    return lines


def _percent(tree: TreeStatistics) -> str:
    return f"{100 * tree.saved_share:.1f}"


def shared_title() -> str:
    return tr("What rows share, where it saves most:")


def shared_lines(preview: DataPreview, marks: Marks) -> Iterator[str]:
    """One line a shared beginning, further in the more shared ones it goes on from."""
    for shared in preview.shared:
        counts = tr("{rows} rows share {tokens} tokens, which saves {saved}:").format(
            rows=f"{shared.rows:,}", tokens=f"{shared.n_tokens:,}", saved=f"{shared.saved:,}"
        )
        text = visible(shared.text, marks.line_end, on_lines=False)
        yield "  " * (shared.level + 1) + f"{counts} {text}"
    if rest := saved_elsewhere(preview):
        yield "  " + rest


def saved_elsewhere(preview: DataPreview) -> str:
    n = preview.tree.saved - sum(shared.saved for shared in preview.shared)
    return tr("Shorter or rarer beginnings save {n} more.").format(n=f"{n:,}") if n else ""
