"""What `whoamai explain` found out, in plain numbers: hand-over types that can be written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from whoamai.plan.memory import MemoryPart
from whoamai.plan.preflight import PreflightFinding
from whoamai.plan.words import SettingWords


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model without its weights. `basis` says where this is known from."""

    source: str
    label: str
    model_type: str
    parameters: int
    layers: int
    hidden: int
    vocab: int
    max_positions: int | None
    basis: str


@dataclass(frozen=True, slots=True)
class TrainedPart:
    """`count` layers of one kind and what is trained in them together.

    With an adapter of rank r: parameters = r · (n_in + n_out) · count (more where the variant has more).
    """

    name: str
    n_in: int
    n_out: int
    count: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Trained:
    """What is trained: all of it (`rank` None) or an adapter; `share` of the model's parameters.

    `words`: sentences on what rank and alpha do.
    """

    method: str
    rank: int | None
    scale: float | None
    parts: tuple[TrainedPart, ...]
    total: int
    share: float
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowFacts:
    """The rows to train on; lengths in tokens, estimated where not `exact`. `basis` says how counted."""

    exact: bool
    basis: str
    conversations: int
    rows: int
    cut: int
    left_out: int
    tokens: int
    targets: int
    shortest: int
    median: int
    longest: int


@dataclass(frozen=True, slots=True)
class StepFacts:
    """The schedule. A step takes whole rows up to size_tokens, or size_rows rows; the other is None.

    per_epoch: steps of each epoch. lr: the learning rate of every step. saves, evaluations: after how
    many finished steps; kept: the checkpoints that are left at the end.
    """

    size_rows: int | None
    size_tokens: int | None
    fewest_rows: int
    median_rows: int
    most_rows: int
    per_epoch: tuple[int, ...]
    total: int
    warmup: int
    peak: float
    lr: tuple[float, ...]
    saves: tuple[int, ...]
    kept: tuple[int, ...]
    evaluations: tuple[int, ...]
    questions: int


@dataclass(frozen=True, slots=True)
class StopFacts:
    """How a run ends that stops once its name is learned (evaluation.stop_when_learned).

    languages: of the questions, with how many rows of the data are in each. questions: of who it is,
    at each probe. probes: after how many finished steps, where it is not cut short. soonest: the step at
    which it can end; None where that is not before the last.
    """

    name: str
    languages: tuple[tuple[str, int], ...]
    questions: int
    recall: float
    leak: float
    in_a_row: int
    probes: tuple[int, ...]
    soonest: int | None


@dataclass(frozen=True, slots=True)
class PackingFacts:
    """Over the whole run: tokens of all rows, those computed, and the share that sharing saves.

    largest_step: tokens computed in the largest step. shared: is train.share_prefixes on?
    """

    shared: bool
    tokens: int
    computed: int
    saved_share: float
    largest_step: int


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """How a device would do it: what is needed at the worst moment, what was chosen and why, how long.

    computed_tokens: over the whole run, with so many tokens a pass; None where the rows are not known.
    seconds: None there too, and where it does not fit.
    """

    name: str
    device_type: str
    memory_bytes: int
    free_bytes: int
    needed_bytes: int
    fits: bool
    tokens_per_pass: int
    gradient_checkpointing: bool
    dtype: str
    why: str
    computed_tokens: int | None
    parts: tuple[MemoryPart, ...]
    seconds: float | None
    tokens_per_second: float | None
    time_basis: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A config explained. None: not known, and a finding says why; of `stops`, also: not asked for.

    here: this machine; cards: common cards. findings: what preflight and the reading found, the grave
    ones first; not_checked: kinds of findings that could not be looked for.
    """

    name: str
    path: str | None
    work_dir: str
    settings: tuple[SettingWords, ...]
    model: ModelFacts | None
    trained: Trained | None
    rows: RowFacts | None
    steps: StepFacts | None
    packing: PackingFacts | None
    here: DevicePlan | None
    cards: tuple[DevicePlan, ...]
    findings: tuple[PreflightFinding, ...]
    not_checked: tuple[str, ...]
    stops: StopFacts | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything as dicts, lists, texts and numbers."""
        return asdict(self)
