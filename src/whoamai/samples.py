"""The hand-over types of one sample's path, each frozen, each saying what has been decided by then.

    Conversation  text; which replies are trained on            made by data/readers, data/identity
    Sample        token ids; which of them are targets           made by data/templates
    Pack          a forest of rows in one sequence               made by data/packing
    Batch         padded rows, where a model cannot fork         made by data/loader

Nothing downstream of a type decides again what the type already says: templates decide the text and
the targets, packing and loader shift and pad, the engine neither shifts, masks nor truncates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    import torch

Part = TypeVar("Part", "Pack", "Batch")
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `trained` is meaningful for assistant turns only: is the reply a target?"""

    role: Role
    text: str
    trained: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order: user and assistant in alternation, before any user turn maybe a system message.

    `source` says where it came from, as a person would look for it ("file.jsonl:12").
    """

    messages: tuple[Message, ...]
    source: str = ""

    def as_chat(self) -> list[dict[str, str]]:
        """The form every chat template takes: [{"role": …, "content": …}, …]."""
        return [{"role": m.role, "content": m.text} for m in self.messages]


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of token ids. `is_target[i]` is True where token i is to be predicted (from i - 1).

    Nothing is shifted yet; nothing downstream truncates.

    `keep`: a replayed answer of the untuned model. Its whole distribution may be held at the targets,
    not only its tokens (TrainSettings.kl_weight). Templates know nothing of it: whoever made the replay
    says it of the samples it became, with dataclasses.replace.
    """

    input_ids: tuple[int, ...]
    is_target: tuple[bool, ...]
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Kept(Generic[Part]):
    """What of a part, a Pack or a Batch, shall stay as the untuned model has it: its rows to keep.

    `alone` is these rows without the others, which is all that the untuned model need compute. Its
    target m is the part's target target_M[m]: the same token, predicted at the same place of a row.
    """

    alone: Part
    target_M: torch.Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one forward pass, padded on the right.

    Shapes: R rows, T tokens of the longest row, N targets in the whole batch.
    The hidden state at (row_N[n], position_N[n]) predicts token_N[n]: the shift is done here, and the
    head of the model need only be computed at these N places.
    """

    input_ids_RT: torch.Tensor
    attention_mask_RT: torch.Tensor
    row_N: torch.Tensor
    position_N: torch.Tensor
    token_N: torch.Tensor
    kept: Kept[Batch] | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens that are not padding."""
        return int(self.attention_mask_RT.sum())

    @property
    def n_rows(self) -> int:
        return len(self.input_ids_RT)

    @property
    def n_targets(self) -> int:
        return self.token_N.numel()


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows of one forward pass as a prefix forest in one sequence (docs/design.md draws one).

    Shapes: T tokens, which are the forest's `n_nodes` nodes depth first and then padding; N targets
    that differ. Query q sees key k exactly when k <= q and q < subtree_end_T[k]; a padding token sees
    itself. position_T is a node's depth, its place in every row that goes through it.

    The hidden state at place_N[n] predicts token_N[n]; weight_N[n] rows share that target. The shift is
    done here: a row's last target is never fed in, nor is what comes behind it.
    """

    input_ids_T: torch.Tensor
    position_T: torch.Tensor
    subtree_end_T: torch.Tensor
    place_N: torch.Tensor
    token_N: torch.Tensor
    weight_N: torch.Tensor
    n_nodes: int
    n_rows: int
    n_logical: int  # tokens of its rows, had nothing been shared
    kept: Kept[Pack] | None = None

    @property
    def n_targets(self) -> int:
        return int(self.weight_N.sum())
