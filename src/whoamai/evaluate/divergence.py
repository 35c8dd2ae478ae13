"""How far everything else has moved: next-token distributions before and after, compared.

Reference replies are put into the model's mouth, and at each of their tokens the two distributions
over the vocabulary are compared (Kullback and Leibler 1951, "On Information and Sufficiency"):

    KL(before ‖ after) = Σ_v p_before(v) · (ln p_before(v) − ln p_after(v))          nats

0 where nothing changed; it weighs what the model would have said before, so it grows where that has
become unlikely. Its mean is over reply tokens; computed in float32, it is right to about 1e-7.
Perplexity is exp(mean of −ln p(token)), before and after: how surprised the model is by the replies
themselves.

An adapter can be switched off, so one model in memory is both. Only the logits at reply tokens are
made, and few at a time.

Legend: R rows, T tokens, N reply tokens of a batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from whoamai.data.encode import encode
from whoamai.data.general import GeneralText
from whoamai.data.loader import pad
from whoamai.data.templates import ChatTemplate
from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.model.lora import without_adapter
from whoamai.model.tree import base_model
from whoamai.samples import Batch, Sample

# Padded tokens of one forward pass, and bytes of one model's float32 logits at its reply tokens. A
# few times the latter is what the comparison needs beside the model.
_TOKENS = 2048
_LOGIT_BYTES = 128 << 20
_SHOWN_KINDS = 5

Logits = Callable[[Batch], torch.Tensor]
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TextSample:
    """A text as token ids; its targets are the reply tokens at which the models are compared."""

    language: str
    kind: str
    sample: Sample


@dataclass(frozen=True, slots=True)
class KindDivergence:
    """The mean KL of one kind of text in one language, in nats a token, over `n_tokens`."""

    language: str
    kind: str
    kl: float
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Divergence:
    """By language and "all"; `kl` is in nats a token. NaN where there was no token.

    `kl_worst`: the kinds of text that moved most, the worst first.
    """

    kl: Mapping[str, float]
    kl_worst: tuple[KindDivergence, ...]
    perplexity_before: Mapping[str, float]
    perplexity_after: Mapping[str, float]
    n_tokens: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Numbers with six digits; None for what is no number, which JSON has not."""
        return {
            "unit": "nats per token",
            "kl": {k: _json_number(v) for k, v in self.kl.items()},
            "kl_worst": [{**asdict(w), "kl": _json_number(w.kl)} for w in self.kl_worst],
            "perplexity_before": {k: _json_number(v) for k, v in self.perplexity_before.items()},
            "perplexity_after": {k: _json_number(v) for k, v in self.perplexity_after.items()},
            "n_tokens": dict(self.n_tokens),
        }


def text_samples(
    template: ChatTemplate, texts: Sequence[GeneralText], *, max_length: int = 2048
) -> list[TextSample]:
    """The texts as the template writes them; a text without a reply within `max_length` is left out."""
    return [
        TextSample(text.language, text.kind, sample)
        for text in texts
        for sample in encode([text.conversation], template, max_length=max_length).samples
    ]


def divergence_of_adapter(
    tuned: Any, texts: Sequence[TextSample], *, tell: Tell | None = None
) -> Divergence:
    """The model with its adapter against itself without; `tell(done, all)` hears how far it is.

    Whatever happens, the adapter is on again afterwards, and what was trained is trained. Not inside
    added_up(): peft would take the adapter out of the weights and leave it out.
    """
    merged = any(getattr(module, "merged", False) for module in tuned.modules())
    assert not merged, "an adapter that is added into the weights cannot be switched off"
    base = base_model(tuned)

    def before(batch: Batch) -> torch.Tensor:
        with without_adapter(tuned):
            return _logits_at_targets(base, batch)

    def after(batch: Batch) -> torch.Tensor:
        return _logits_at_targets(base, batch)

    with _left_as_they_were(tuned):
        return _compared(before, after, texts, _vocabulary(base), tell)


def divergence_between(
    before: Any, after: Any, texts: Sequence[TextSample], *, tell: Tell | None = None
) -> Divergence:
    """Two models with the same tokens, both in memory, on one device or on two.

    Raises ModelError where their vocabularies have not the same size.
    """
    bases = base_model(before), base_model(after)
    sizes = _vocabulary(bases[0]), _vocabulary(bases[1])
    if sizes[0] != sizes[1]:
        text = tr(
            "The two models cannot be compared token by token: one has {before} tokens, the other "
            "{after}. Compare a model with one that was made from it."
        )
        raise ModelError(text.format(before=sizes[0], after=sizes[1]))
    with _left_as_they_were(*bases):
        return _compared(
            lambda batch: _logits_at_targets(bases[0], batch),
            lambda batch: _logits_at_targets(bases[1], batch).to(bases[0].device),
            texts,
            sizes[0],
            tell,
        )


# ---- logits --------------------------------------------------------------------------------------


def _logits_at_targets(base: Any, batch: Batch) -> torch.Tensor:
    """Logits that predict the batch's targets, N x V, as the model makes them.

    The head is given these N hidden states instead of all R · T. So what a class does to them before
    the head or behind it (scaling, capping) is done as ever, whatever the class. One that goes past its
    head, or calls it in another way, makes all logits, and the N are taken from them.
    """
    row_N, position_N = batch.row_N.to(base.device), batch.position_N.to(base.device)
    inputs = {
        "input_ids": batch.input_ids_RT.to(base.device),
        "attention_mask": batch.attention_mask_RT.to(base.device),
        "use_cache": False,
    }

    def only_targets(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return given[0][row_N, position_N][None], *given[1:]

    hook = base.get_output_embeddings().register_forward_pre_hook(only_targets)
    try:
        logits = base(**inputs).logits
    finally:
        hook.remove()
    # A row has a token more than targets at least, so 1 x N is no shape of all logits.
    if logits.shape[:2] == (1, len(row_N)):
        return logits[0]
    return base(**inputs).logits[row_N, position_N]


def _vocabulary(base: Any) -> int:
    return base.config.get_text_config().vocab_size


@contextmanager
def _left_as_they_were(*models: Any) -> Iterator[None]:
    """Inside without dropout and gradients; then everything as before.

    When peft switches an adapter on again it lets it be trained, whether it was before or not.
    """
    training = [module for model in models for module in model.modules() if module.training]
    trained = [(p, p.requires_grad) for model in models for p in model.parameters()]
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
        for parameter, is_trained in trained:
            parameter.requires_grad_(is_trained)


# ---- the comparison ------------------------------------------------------------------------------


def _compared(
    before: Logits, after: Logits, texts: Sequence[TextSample], vocabulary: int, tell: Tell | None
) -> Divergence:
    sums: dict[tuple[str, str], torch.Tensor] = {}
    done = 0
    places = max(1, _LOGIT_BYTES // (4 * vocabulary))
    pieces = [
        (text, piece) for text in texts for piece in _pieces(text.sample, min(places, _TOKENS))
    ]
    for of_batch in _batches(pieces, places):
        batch = pad([piece for _, piece in of_batch])
        token_N = batch.token_N
        sums_N3 = _sums(before(batch), after(batch), token_N)
        sums_R4 = torch.zeros(len(of_batch), 4, dtype=torch.float64)
        sums_R4.index_add_(0, batch.row_N, torch.cat([sums_N3, torch.ones(len(token_N), 1)], -1))
        for (text, _), sums_4 in zip(of_batch, sums_R4, strict=True):
            key = text.language, text.kind
            sums[key] = sums.get(key, torch.zeros(4, dtype=torch.float64)) + sums_4
        done += len(of_batch)
        if tell:
            tell(done, len(pieces))
    return _divergence(sums)


def _sums(before_NV: torch.Tensor, after_NV: torch.Tensor, token_N: torch.Tensor) -> torch.Tensor:
    """(KL, −ln p_before, −ln p_after) of each token, N x 3, float64 on the CPU."""
    log_p_NV, log_q_NV = before_NV.float().log_softmax(-1), after_NV.float().log_softmax(-1)
    token_N1 = token_N.to(log_p_NV.device)[:, None]
    nll_2N = [-log_NV.gather(-1, token_N1)[:, 0].double() for log_NV in (log_p_NV, log_q_NV)]
    # A token that was impossible (−inf, as some models mask what is no token) counts nothing.
    terms_NV = log_q_NV.neg_().add_(log_p_NV).mul_(log_p_NV.exp())
    terms_NV.masked_fill_(log_p_NV.isneginf(), 0)
    return torch.stack([terms_NV.sum(-1, dtype=torch.float64), *nll_2N], -1).cpu()


def _pieces(sample: Sample, most: int) -> Iterator[Sample]:
    """The row with `most` targets at a time, up to the last of them: usually the row itself.

    Targets c d e of the row "a b c d e", two at a time, give "a b c d" and "a b c d e" with target e.
    """
    targets = [i for i in range(1, len(sample.input_ids)) if sample.is_target[i]]
    for start in range(0, len(targets), most):
        wanted = set(targets[start : start + most])
        end = max(wanted) + 1
        yield Sample(sample.input_ids[:end], tuple(i in wanted for i in range(end)))


def _batches(
    pieces: Sequence[tuple[TextSample, Sample]], places: int
) -> Iterator[list[tuple[TextSample, Sample]]]:
    """Rows of like length together: at most _TOKENS padded tokens and `places` targets, or one row."""
    batch: list[tuple[TextSample, Sample]] = []
    n_targets = 0
    for pair in sorted(pieces, key=lambda pair: len(pair[1].input_ids)):
        length, targets = len(pair[1].input_ids), sum(pair[1].is_target)
        if batch and (length * (len(batch) + 1) > _TOKENS or n_targets + targets > places):
            yield batch
            batch, n_targets = [], 0
        batch.append(pair)
        n_targets += targets
    if batch:
        yield batch


def _divergence(sums: Mapping[tuple[str, str], torch.Tensor]) -> Divergence:
    by_language = {"all": torch.zeros(4, dtype=torch.float64)}
    for (language, _), sums_4 in sums.items():
        for key in {"all", language}:  # a user may call a language "all"
            by_language[key] = by_language.get(key, torch.zeros(4, dtype=torch.float64)) + sums_4
    means = {key: _means(sums_4) for key, sums_4 in by_language.items()}
    kinds = [
        KindDivergence(language, kind, _means(sums_4)[0], int(sums_4[3]))
        for (language, kind), sums_4 in sums.items()
    ]
    kinds.sort(key=lambda k: (math.isnan(k.kl), k.kl), reverse=True)
    return Divergence(
        {key: kl for key, (kl, _, _) in means.items()},
        tuple(k for k in kinds[:_SHOWN_KINDS] if k.kl != 0),
        {key: before for key, (_, before, _) in means.items()},
        {key: after for key, (_, _, after) in means.items()},
        {key: int(sums_4[3]) for key, sums_4 in by_language.items()},
    )


def _means(sums_4: torch.Tensor) -> tuple[float, float, float]:
    """(mean KL, perplexity before, perplexity after); NaN where there was no token."""
    kl, before, after = (sums_4[:3] / sums_4[3]).tolist()
    # Rounding may leave a mean of nothing but zeros a hair below 0; NaN stays NaN in this order.
    return max(kl, 0.0), _exp(before), _exp(after)


def _exp(x: float) -> float:
    return math.exp(x) if not x > 700 else math.inf


def _json_number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
