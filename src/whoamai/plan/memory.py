"""Bytes that a device holds at the worst moment of a training step, by what they are for.

One pass computes one pack of `tokens` tokens (engine/trainer.py), and a step may take several passes, so
gradients of earlier ones are there. What autograd keeps of a layer is read off transformers' Llama-like
layers under peft; tests/plan/test_memory.py counts it on small models and finds the same numbers.

The three moments that can be the worst:

    loss       everything kept for the way back  +  the logits of one chunk of places
    backward   everything kept for the way back  +  what the last layer's gradients need meanwhile
    AdamW      nothing kept                      +  copies that the optimizer makes

Legend: H hidden size, I intermediate size, Q and K numbers of all query and all key heads, r rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from whoamai.config import RunConfig
from whoamai.messages import tr
from whoamai.plan import memory_fast
from whoamai.plan.architecture import Architecture, Linear, adapted_linears, lora_parameters

MIB = 2**20

# ---- measured constants --------------------------------------------------------------------------

# What the driver, the context and the loaded kernels take of a GPU; torch's counters do not show it.
CONTEXT_BYTES = 512 * MIB
# What the matrix products of cuBLAS get as scratch space (Hopper 32 MiB, older cards less).
PRODUCT_SCRATCH_BYTES = 32 * MIB
# Places whose logits are made at once: CHUNK of kernels/linear_cross_entropy.py.
LOGITS_CHUNK = 1024
# Bytes a logit takes while the loss of a chunk is made. A head that is trained or adapted goes through
# autograd.
FROZEN_HEAD_BYTES = {2: 10, 4: 8}
TRAINED_HEAD_BYTES = 20
# Classes that change their logits behind the head: the loss is made over all places at once.
WHOLE_LOGITS = frozenset({"gemma2", "cohere", "cohere2", "granite", "granitemoe", "falcon_h1"})
WHOLE_LOGITS_BYTES = 24
# Temporary bytes for each token, by what is trained and the size of a number: while the last norm is
# computed, in units of H; and while the last layer goes backward, in units of (H, I).
AT_LAST_NORM = {("lora", 2): 24.0, ("lora", 4): 20.0, ("full", 2): 24.0, ("full", 4): 20.0}
GOING_BACK = {
    ("lora", 2): (3.0, 2.7),
    ("lora", 4): (5.0, 7.0),
    ("full", 2): (3.0, 3.0),
    ("full", 4): (5.0, 7.0),
}
# dora's products for each output of a layer, kept besides.
DORA_KEPT = 2
# Attention whose logits are capped, where FlexAttention does not run, keeps them for each head.
CAPPED_LOGITS_KEPT = 8
# Classes whose layers are not Llama's: the activations are an estimate, so a quarter more is taken.
ROUGH = 1.25
LLAMA_LIKE = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "internlm2", "gemma", "gemma2", "gemma3_text"}
)
_FOUR_NORMS = frozenset({"gemma2", "gemma3_text"})
_QK_NORM = frozenset({"qwen3", "gemma3_text"})

# Layers that have one input in common, and those whose input attention keeps anyway.
_INPUT_GROUPS = (
    frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj", "wqkv"}),
    frozenset({"gate_proj", "up_proj", "gate_up_proj", "w1", "w3"}),
)
_AFTER_ATTENTION = frozenset({"o_proj", "wo"})


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """`bytes` for one purpose; `why`, for a person, is the formula with its numbers.

    Names: weights, quantization, adapter, gradients, optimizer, activations, logits, workspace, context.
    """

    name: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a device holds at the worst moment of a step with `tokens` tokens a pass."""

    parts: tuple[MemoryPart, ...]
    tokens: int
    gradient_checkpointing: bool

    @property
    def total(self) -> int:
        """All of it, the context of the GPU included: what must fit."""
        return sum(part.bytes for part in self.parts)

    @property
    def peak(self) -> int:
        """Of it what torch allocates: comparable with torch.cuda.max_memory_allocated."""
        return sum(part.bytes for part in self.parts if part.name != "context")


def memory(
    arch: Architecture,
    config: RunConfig,
    *,
    dtype: str,
    tokens: int,
    targets: int,
    gradient_checkpointing: bool,
    device_type: str = "cuda",
) -> MemoryPlan:
    """The memory of training `arch` with `config`, computed in `dtype`, `tokens` tokens a pass.

    `targets` of the tokens are trained on. `dtype` is "bfloat16", "float16" or "float32".
    """
    run = _Run(arch, config, 4 if dtype == "float32" else 2, dtype, device_type)
    held = [_weights(run), _quantization(run), *_trained(run)]
    moments = _Moments.of(run, tokens, targets, gradient_checkpointing)
    context = CONTEXT_BYTES if device_type == "cuda" else 0
    parts = [
        *held,
        *moments.parts(),
        MemoryPart("context", context, tr("driver and kernels, outside torch's count")),
    ]
    return MemoryPlan(tuple(part for part in parts if part.bytes), tokens, gradient_checkpointing)


@dataclass(frozen=True, slots=True)
class _Run:
    """What decides how much is held. `size`: bytes of a number that is computed with."""

    arch: Architecture
    config: RunConfig
    size: int
    dtype: str
    device_type: str

    @property
    def full(self) -> bool:
        return self.config.lora is None

    @property
    def kind(self) -> tuple[str, int]:
        """Where to look in the table of constants."""
        return ("full" if self.full else "lora", self.size)

    @property
    def mixed(self) -> bool:
        """Computed in 16 bits, what is trained held in 32."""
        return self.size == 2

    @property
    def adapted(self) -> tuple[Linear, ...]:
        return () if self.config.lora is None else adapted_linears(self.arch, self.config.lora)

    @property
    def adapter_parameters(self) -> int:
        lora = self.config.lora
        return 0 if lora is None else sum(n for _, n in lora_parameters(self.arch, lora))

    @property
    def rank(self) -> int:
        lora = self.config.lora
        return 0 if lora is None else lora.r * (2 if lora.variant == "pissa" else 1)

    @property
    def adapts_head(self) -> bool:
        return self.config.lora is not None and self.config.lora.adapt_head

    @property
    def dropout(self) -> bool:
        return self.config.lora is not None and self.config.lora.lora_dropout > 0

    @property
    def fast(self) -> bool:
        """Are the layers computed by model/fast_layers.py?"""
        return memory_fast.runs_fast(self.arch, self.config, self.dtype, self.device_type)

    @property
    def dense_mask(self) -> bool:
        """Is attention computed with a boolean mask of tokens × tokens (kernels/tree_attention.py)?"""
        on_gpu = self.device_type == "cuda" and self.dtype == "bfloat16"
        return not self.in_stretches and not on_gpu and not self.fast

    @property
    def in_stretches(self) -> bool:
        """Does each stretch of queries get only the keys it sees? What rows share is copied for it, so
        that packs that share much take more than is counted here.
        """
        return self.device_type == "cpu" and self.arch.model_type != "gemma2"


# ---- what is there all the time ------------------------------------------------------------------


def _weights(run: _Run) -> MemoryPart:
    arch, size = run.arch, run.size
    if run.full:
        text = tr("{n:,} numbers × 4 bytes: what is trained is held in float32")
        return MemoryPart("weights", 4 * arch.n_parameters, text.format(n=arch.n_parameters))
    if run.config.model.quantization == "nf4":
        rest = arch.n_parameters - arch.linear_parameters
        text = tr("{linear:,} in linear layers × ½ byte + {rest:,} others × {size} bytes")
        text = text.format(linear=arch.linear_parameters, rest=rest, size=size)
        return MemoryPart("weights", arch.linear_parameters // 2 + size * rest, text)
    text = tr("{n:,} numbers × {size} bytes ({dtype})")
    text = text.format(n=arch.n_parameters, size=size, dtype=run.dtype)
    return MemoryPart("weights", size * arch.n_parameters, text)


def _quantization(run: _Run) -> MemoryPart:
    """The scales of nf4, exactly: bitsandbytes' blocks of 64 weights and 256 scales."""
    if run.config.model.quantization != "nf4":
        return MemoryPart("quantization", 0, "")
    n = run.arch.linear_parameters
    layers = sum(linear.count for linear in run.arch.linears)
    tables = 16 * 4 * layers  # nf4's 16 levels, kept by every layer
    if run.config.model.double_quantization:
        scales = n // 64 + 4 * -(-n // (64 * 256)) + (256 + 1) * 4 * layers
        text = tr("a scale for 64 weights: 1 byte each, and 4 bytes for 256 of them")
    else:
        scales = 4 * (n // 64)
        text = tr("a scale for 64 weights: 4 bytes each")
    return MemoryPart("quantization", scales + tables, text)


def _trained(run: _Run) -> Iterable[MemoryPart]:
    n = run.arch.n_parameters if run.full else run.adapter_parameters
    if not run.full:
        copies = run.size if run.mixed else 0
        text = tr("{n:,} numbers × 4 bytes (float32)")
        if copies:
            text = tr("{n:,} numbers × (4 + 2) bytes: float32, and 16 bits to compute with")
        yield MemoryPart("adapter", (4 + copies) * n, text.format(n=n))
    text = tr("{n:,} numbers × 4 bytes: a gradient for each that is trained")
    yield MemoryPart("gradients", 4 * n, text.format(n=n))
    text = tr("{n:,} numbers × 8 bytes: AdamW's two averages")
    yield MemoryPart("optimizer", 8 * n, text.format(n=n))


# ---- what a pass adds ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Moments:
    """Bytes beyond what is always there: kept for the way back; at the loss; backward; in AdamW."""

    run: _Run
    tokens: int
    targets: int
    checkpointing: bool
    kept: int
    logits: int
    at_loss: int
    backward: int
    optimizer: int

    @classmethod
    def of(cls, run: _Run, tokens: int, targets: int, checkpointing: bool) -> _Moments:
        arch = run.arch
        layer = _kept_of_layer(run, tokens)
        stream = (4 if run.full else run.size) * arch.hidden * tokens
        kept = arch.layers * (stream if checkpointing else layer)
        if run.dense_mask:
            # One for all layers: as numbers to be added, and as booleans while it may be asked again.
            kept += (run.size + checkpointing) * tokens * tokens
        # The norm behind the last layer; then what of it is kept, and its output.
        norm = round(AT_LAST_NORM[run.kind] * arch.hidden * tokens)
        if run.fast:  # the sum and its norm
            norm = 2 * run.size * arch.hidden * tokens
        kept_norm = (12 if run.full else 4 + run.size) * arch.hidden * tokens
        if run.fast:
            kept_norm = norm
        logits = _logits(run, targets)
        # The copies in 16 bits that autocast makes of trained weights: all are there until the forward
        # pass ends, and where nothing is computed again, until their layer's way back.
        casts = 2 * arch.linear_parameters if run.full and run.mixed else 0
        head_cast = 2 * arch.head.parameters if run.full and run.mixed else 0
        loss_forward = casts + head_cast + _logits_forward(run, targets)
        loss_backward = (0 if checkpointing else casts) + logits
        scratch = PRODUCT_SCRATCH_BYTES if run.device_type == "cuda" else 0
        return cls(
            run=run,
            tokens=tokens,
            targets=targets,
            checkpointing=checkpointing,
            kept=kept,
            logits=logits,
            at_loss=max(norm + casts, kept_norm + max(loss_forward, loss_backward)) + scratch,
            backward=_temporary(run, tokens) + (layer if checkpointing else casts) + scratch,
            # Elsewhere than on a GPU AdamW makes one more copy of everything that is trained.
            optimizer=0
            if run.device_type == "cuda"
            else 4 * (arch.n_parameters if run.full else run.adapter_parameters),
        )

    def parts(self) -> Iterable[MemoryPart]:
        """Activations, logits and workspace, which together are the worst of the moments."""
        worst = max(self.kept + self.at_loss, self.kept + self.backward, self.optimizer)
        logits = min(self.logits, worst - self.kept)
        yield MemoryPart("activations", self.kept, self._why_kept())
        yield MemoryPart("logits", logits, self._why_logits())
        yield MemoryPart("workspace", worst - self.kept - logits, self._why_workspace(worst))

    def _why_kept(self) -> str:
        layers, tokens, hidden = self.run.arch.layers, self.tokens, self.run.arch.hidden
        if self.checkpointing:
            text = tr(
                "{layers} layers × {tokens:,} tokens × {hidden:,} × {size} bytes: their inputs"
            )
            size = 4 if self.run.full else self.run.size
            return text.format(layers=layers, tokens=tokens, hidden=hidden, size=size)
        text = tr("{layers} layers × {tokens:,} tokens × about {kib:,} KiB kept for the way back")
        kib = round(self.kept / layers / tokens / 1024)
        return text.format(layers=layers, tokens=tokens, kib=kib)

    def _why_logits(self) -> str:
        vocab, places = self.run.arch.vocab, _places(self.run, self.targets)
        size = round(self.logits / max(1, places * vocab))
        text = tr("{places:,} places at once × {vocab:,} words × about {size} bytes")
        return text.format(places=places, vocab=vocab, size=size)

    def _why_workspace(self, worst: int) -> str:
        if worst == self.kept + self.at_loss:
            return tr("what the loss needs beside the logits")
        if worst == self.optimizer:
            return tr("what AdamW's step needs beside its averages")
        if self.checkpointing:
            return tr("one layer computed again, and its gradients on the way back")
        return tr("gradients of one layer on the way back")


def _kept_of_layer(run: _Run, tokens: int) -> int:
    """Bytes that autograd keeps of one layer without checkpointing."""
    arch, size = run.arch, run.size
    if run.fast:
        return size * tokens * memory_fast.numbers_kept(arch, run.config, run.rank)
    hidden, queries, keys = arch.hidden, arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    norms = 4 if arch.model_type in _FOUR_NORMS else 2
    # A norm keeps its input in float32; where its scale is trained, the normed input besides.
    token = norms * ((8 if run.full else 4) * hidden + 4)
    if arch.model_type in _QK_NORM:
        token += (4 + (size if run.full else 0)) * (queries + keys) + 4 * (
            arch.heads + arch.kv_heads
        )
    token += _kept_inputs(run)
    token += run.rank * size * _each_layer(run, [(linear, 1) for linear in run.adapted])
    if run.config.lora is not None and run.config.lora.variant == "dora":
        token += DORA_KEPT * size * _each_layer(run, [(lin, lin.n_out) for lin in run.adapted])
    token += size * 3 * arch.intermediate  # gate, act(gate), up
    token += size * _kept_by_attention(run, queries, keys) + 4 * arch.heads
    if run.dense_mask and arch.model_type == "gemma2":
        token += CAPPED_LOGITS_KEPT * arch.heads * tokens
    rough = 1 if arch.model_type in LLAMA_LIKE else ROUGH
    return round(rough * tokens * token)


def _kept_by_attention(run: _Run, queries: int, keys: int) -> int:
    """Numbers a token: queries, keys, values and the output.

    With a mask keys and values are repeated for each query head. Where one layer makes all three
    together, the values are a view of all of it.
    """
    if run.dense_mask or run.in_stretches:
        parts = queries if run.in_stretches else 0  # the stretches' outputs, and all put together
        return parts + (4 * queries if run.arch.kv_heads > 1 else 2 * queries + 2 * keys)
    whole = any(linear.name in ("wqkv", "qkv_proj") for linear in run.arch.linears)
    return 2 * queries + 2 * keys + (queries + keys if whole else 0)


def _kept_inputs(run: _Run) -> int:
    """Bytes a token of the inputs of layers whose weights, or adapters, need a gradient."""
    size = run.size
    if run.dropout:
        # Every layer draws its own: the input with its holes, and which they are.
        noise = 1 if run.device_type == "cuda" else size
        return (size + noise) * _each_layer(run, [(lin, lin.n_in) for lin in run.adapted])
    head = run.arch.head_name
    linears = [lin for lin in (run.arch.linears if run.full else run.adapted) if lin.name != head]
    kept = 0
    for group in _INPUT_GROUPS:
        inside = [linear for linear in linears if linear.name in group]
        # In full fine-tuning the input is float32, and autocast makes each layer a copy in 16 bits.
        apart = run.full and run.mixed
        kept += size * sum(linear.n_in for linear in (inside if apart else inside[:1]))
    grouped = frozenset().union(*_INPUT_GROUPS) | _AFTER_ATTENTION
    others = [(linear, linear.n_in) for linear in linears if linear.name not in grouped]
    return kept + size * _each_layer(run, others)


def _each_layer(run: _Run, numbers: Iterable[tuple[Linear, int]]) -> int:
    """The sum over a layer's linear layers, of which the model has `count`; the head is not one."""
    head = run.arch.head_name
    return round(
        sum(n * linear.count / run.arch.layers for linear, n in numbers if linear.name != head)
    )


def _whole(run: _Run) -> bool:
    return run.arch.model_type in WHOLE_LOGITS


def _bytes_a_logit(run: _Run) -> int:
    if _whole(run):
        return WHOLE_LOGITS_BYTES
    if run.full or run.adapts_head:
        return TRAINED_HEAD_BYTES
    return FROZEN_HEAD_BYTES[run.size]


def _logits(run: _Run, targets: int) -> int:
    """The logits at their worst, with the hidden states they are made from and their gradient.

    A trained head goes through autograd: its worst moment is on the way back, either that of the logits
    or, a little later, that of its own gradient, which comes in 16 bits and is added up in float32.
    """
    vocab, head = run.arch.vocab, run.arch.head.parameters if run.full else 0
    hidden = 2 * run.size * targets * run.arch.hidden
    if not run.full and not run.adapts_head:
        return _logits_forward(run, targets) + hidden // 2
    logits = _places(run, targets) * vocab * _bytes_a_logit(run)
    its_own = _places(run, targets) * vocab * 8 + (8 if run.mixed else 4) * head
    return max(logits + (2 if run.mixed else 0) * head, its_own) + hidden


def _logits_forward(run: _Run, targets: int) -> int:
    """The same while the loss is made: as with a frozen head, whose way back is part of it."""
    size, places = run.size, _places(run, targets)
    in_kernels = run.device_type == "cuda" and size == 2 and not run.full and not run.adapts_head
    frozen = memory_fast.LOGIT_BYTES if in_kernels else FROZEN_HEAD_BYTES[size]
    logits = places * (WHOLE_LOGITS_BYTES if _whole(run) else frozen)
    return logits * run.arch.vocab + size * targets * run.arch.hidden


def _places(run: _Run, targets: int) -> int:
    """Places whose logits are there at once."""
    return targets if _whole(run) else min(targets, LOGITS_CHUNK)


def _temporary(run: _Run, tokens: int) -> int:
    """What one layer's way back needs besides what was kept."""
    arch = run.arch
    per_hidden, per_intermediate = GOING_BACK[run.kind]
    if run.fast:
        per_hidden, per_intermediate = (run.size * n for n in memory_fast.GOING_BACK)
    bytes_ = round(tokens * (per_hidden * arch.hidden + per_intermediate * arch.intermediate))
    largest = max((linear.n_in * linear.n_out for linear in arch.linears), default=0)
    if run.full:
        bytes_ += (6 if run.mixed else 4) * largest  # its gradient, as the head's above
    elif run.config.model.quantization == "nf4":
        bytes_ += 2 * run.size * largest  # the weights written out for the product
    return bytes_
