"""A pack's prefix forest through a transformers model, exactly as if its rows went through alone.

Not every class can fork: ALiBi by index, recurrent and linear attention, classes that keep the keywords
they are called with to themselves. They are not listed; `can_fork` tries each model once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from whoamai.errors import ModelError
from whoamai.kernels.tree_attention import Tree
from whoamai.messages import tr
from whoamai.model import tree_interface
from whoamai.samples import Pack

# Tokens of a branch: few, so that what comes over from another branch weighs much.
_BRANCH, _CHILDREN = 6, (2, 3)
_LENGTHS = 128  # the trial's tokens are a multiple of it
_SHORT_TRUNK = 12
# Of a hidden state's norm: the greatest leak; what is rounding whatever the model; what is so for none.
_LIMITS = {torch.float32: (1e-5, 1e-4, 1e-2), torch.float64: (1e-5, 1e-4, 1e-2)}
_LIMITS_OF_HALF = (4e-3, 2e-2, 1e-1)


def hidden_states(
    model: Any, pack: Pack, places_U: torch.Tensor | None = None, *, dense: bool = False
) -> torch.Tensor:
    """The decoder's last hidden states of a pack, T x D, inside `tree_attention_on(model)`.

    With `places_U` (on the model's device, each once) only those there: U x D. `model` may be a peft
    model. The backward pass, too, must come inside: checkpointed layers are computed again in it.
    `dense` keeps to masks of T x T, where FlexAttention would be used. Where the model was given fast
    layers (model/fast_path.py) that take this pack, these compute it.
    """
    fast = getattr(base_model(model), "fast_decoder", None)
    if fast is not None and not dense and fast.takes(pack):
        return fast.hidden_states(pack, places_U)
    decoder = base_model(model).get_decoder()
    states_TD = decoder(**forward_arguments(model, pack, dense=dense)).last_hidden_state[0]
    return states_TD if places_U is None else states_TD[places_U]


def forward_arguments(model: Any, pack: Pack, *, dense: bool = False) -> dict[str, Any]:
    """What the transformers model, or its decoder, is called with for one pack."""
    device = base_model(model).device
    return {
        "input_ids": pack.input_ids_T[None].to(device, non_blocking=True),
        "position_ids": pack.position_T[None].to(device, non_blocking=True),
        # Of four dimensions, so every class takes it for a mask that is made already and makes none;
        # our attention function does not look at it.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        "tree": Tree(pack.subtree_end_T, pack.position_T, dense=dense),
        "use_cache": False,
    }


@contextmanager
def tree_attention_on(model: Any) -> Iterator[None]:
    """Inside the block this model, and no other, attends by a pack's tree; then as before.

    Raises ModelError where the model's class cannot be told which attention to use.
    """
    base = base_model(model)
    before = _implementations(base.config)
    if not getattr(base, "_can_set_attn_implementation", lambda: True)():
        raise ModelError(tr("its class does not let its attention be replaced"))
    like_sdpa = before[""] in ("sdpa", tree_interface.NAME)
    name = tree_interface.NAME if like_sdpa else tree_interface.NAME_COMPLETE
    tree_interface.register()
    try:
        base.set_attn_implementation(name)
        yield
    finally:
        base.set_attn_implementation(before)


def base_model(model: Any) -> Any:
    """The transformers model inside a peft model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _implementations(config: Any) -> dict[str, str]:
    """The attention of the model ("") and of each of its parts that has a config of its own."""
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    return {"": config._attn_implementation} | {
        name: part._attn_implementation for name, part in parts.items() if part is not None
    }


# ---- can it fork? --------------------------------------------------------------------------------
#
#     trunk ─┬─ middle ─┬─ leaf          a second tree ─ ─ ─ ─          padding
#            │          ├─ leaf
#            │          └─ leaf
#            └─ middle ─┬─ leaf …
#
# goes through the model as one pack. Does a branch change when others are replaced (the same shapes
# again, so even small leaks stand out), and does each row come out as it does alone, with the attention
# that the model was loaded with? Equal rows and rows that are beginnings of others need no trial: they
# are the same nodes.


@torch.no_grad()
def can_fork(model: Any, *, longest: int = 2048, dense: bool = False) -> str | None:
    """None where a forest gives what its rows give alone; else why not, as part of a sentence.

    `longest` is the number of tokens of the longest row there will be: the trial goes deeper than every
    window of the config that such a row could feel (twice as deep), and no deeper. Runs without dropout;
    the model is left as it was. `dense` as in hidden_states: FlexAttention is not compiled for it.
    Raises OutOfMemoryError, like any forward pass.
    """
    base = base_model(model)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        forest = _forest(_trunk(base, longest), base.get_input_embeddings().num_embeddings)
        return _trial(base, *forest, dense=dense)
    except ModelError as error:
        return str(error)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # any class may fail in a way of its own; its rows alone still train
        what = str(error).partition("\n")[0] or type(error).__name__
        return tr("it fails on a sequence that forks ({error})").format(error=what)
    finally:
        for module in training:
            module.training = True


def trial_forest(model: Any) -> tuple[Pack, list[list[int]]]:
    """The forest of the drawing with a short trunk, and the nodes of each of its rows."""
    return _forest(_SHORT_TRUNK, base_model(model).get_input_embeddings().num_embeddings)


@torch.no_grad()
def compare_ways(model: Any, other: Callable[[Pack], torch.Tensor]) -> tuple[float, float]:
    """How far another way to a pack's hidden states is off the model's own, and how far is rounding.

    Relative, the medians over the forest of `can_fork`. The model's own rounding is what lies between a
    row in the pack and the same row alone, which goes through another kernel of attention.
    """
    base = base_model(model)
    pack, rows = trial_forest(model)
    with tree_attention_on(base):
        own_TD, other_TD = hidden_states(base, pack, dense=True), other(pack)
    off = _relative(other_TD[: pack.n_nodes], own_TD[: pack.n_nodes]).median().item()
    row_LD = own_TD[torch.tensor(rows[0], device=own_TD.device)]
    rounding = _relative(_alone(base, pack, rows[:1])[0], row_LD).median().item()
    _, least, most = _LIMITS.get(_dtype(own_TD), _LIMITS_OF_HALF)
    return off, min(max(least, 4 * rounding), most)


def _trial(base: Any, pack: Pack, rows: list[list[int]], *, dense: bool) -> str | None:
    with tree_attention_on(base):
        packed_TD = hidden_states(base, pack, dense=dense)
        leak = _leak(base, pack, rows, packed_TD, dense=dense)
    leak_limit, least, most = _LIMITS.get(_dtype(packed_TD), _LIMITS_OF_HALF)
    if not leak <= leak_limit:  # nor where it is NaN
        return tr(
            "its rows see one another where they fork (hidden states change by {off:.0e})"
        ).format(off=leak)
    off, own = _difference(base, pack, rows, packed_TD, dense=dense)
    if not off <= min(max(least, 4 * own), most):
        return tr(
            "where rows fork its hidden states differ from those of the rows alone by {off:.0e}, "
            "which is more than rounding"
        ).format(off=off)
    return None


def _trunk(base: Any, longest: int) -> int:
    """Tokens of the trunk: twice the greatest window that a row of `longest` tokens goes beyond."""
    config = base.config.get_text_config().to_dict()
    windows = [
        size
        for name, size in config.items()
        if ("window" in name or "chunk" in name)
        and isinstance(size, int)
        and not isinstance(size, bool)
        and size < longest
    ]
    room = config.get("max_position_embeddings") or 1 << 30
    return max(1, min(2 * max(windows, default=0) + _SHORT_TRUNK, room - 2 * _BRANCH))


def _forest(trunk: int, vocabulary: int) -> tuple[Pack, list[list[int]]]:
    """The forest of the drawing, and the nodes of each of its rows, the second tree's last."""
    position: list[int] = []
    end: list[int] = []
    rows: list[list[int]] = []

    def grow(above: list[int], lengths: Sequence[int], children: Sequence[int]) -> None:
        nodes = list(range(len(end), len(end) + lengths[0]))
        position.extend(range(len(above), len(above) + lengths[0]))
        end.extend([0] * lengths[0])
        if children:
            for _ in range(children[0]):
                grow([*above, *nodes], lengths[1:], children[1:])
        else:
            rows.append([*above, *nodes])
        for node in nodes:
            end[node] = len(end)

    grow([], (trunk, _BRANCH, _BRANCH), _CHILDREN)
    grow([], (_BRANCH,), ())
    n_nodes = len(end)
    drawn = torch.Generator().manual_seed(0)
    ids_T = torch.randint(min(3, vocabulary - 1), vocabulary, (n_nodes,), generator=drawn)
    # To a length that every kernel is made for; it also tries out that padding is seen by nothing.
    padding = torch.arange(n_nodes, -(-(n_nodes + 1) // _LENGTHS) * _LENGTHS)
    none_N = torch.zeros(0, dtype=torch.long)
    pack = Pack(
        torch.cat([ids_T, torch.zeros_like(padding)]),
        torch.cat([torch.tensor(position), torch.zeros_like(padding)]),
        torch.cat([torch.tensor(end), padding + 1]),
        none_N,
        none_N,
        none_N,
        n_nodes=n_nodes,
        n_rows=len(rows),
        n_logical=sum(map(len, rows)),
    )
    return pack, rows


def _leak(
    base: Any, pack: Pack, rows: list[list[int]], packed_TD: torch.Tensor, *, dense: bool
) -> float:
    """How much the last two leaves and all above them change when every other token is another one.

    Of the two the one that changes less, token by token, the most changed of these: a mixture of experts
    may round otherwise in other company.
    """
    path_2L = torch.tensor(rows[-3:-1])
    own = torch.zeros(len(pack.input_ids_T), dtype=torch.bool)
    own[path_2L] = True
    others = pack.input_ids_T.flip(0)
    changed = replace(pack, input_ids_T=torch.where(own, pack.input_ids_T, others))
    path_2L = path_2L.to(packed_TD.device)
    changed_TD = hidden_states(base, changed, dense=dense)
    off_2L = _relative(changed_TD[path_2L], packed_TD[path_2L])
    return off_2L.min(0).values.max().item()


def _difference(
    base: Any, pack: Pack, rows: list[list[int]], packed_TD: torch.Tensor, *, dense: bool
) -> tuple[float, float]:
    """How far hidden states are off those of the rows alone; and how much this model rounds by itself.

    Medians over tokens that a mistake would hit alike, the greatest of them: where rounding makes a
    mixture of experts choose another one for a single token, that is no mistake. Leaves that come first
    are not asked, they merely go on. The model's own rounding is the greater of two: a row alone beside
    the same in a batch, and beside itself as a pack without a fork, which goes through our attention. In
    16 bits a deep model makes much of it (measured: 4e-2 after 32 layers with random weights).
    """
    other = rows[-1]
    forking = [row for r, row in enumerate(rows[:-1]) if r % _CHILDREN[1]]
    alone_RLD = _alone(base, pack, forking)
    off_RL = _relative(packed_TD[torch.tensor(forking, device=packed_TD.device)], alone_RLD)
    trunk = len(forking[0]) - 2 * _BRANCH
    other_LD = packed_TD[torch.tensor(other, device=packed_TD.device)]
    off = [
        off_RL[:, -_BRANCH:].median(0).values.max(),
        off_RL[0, trunk // 2 : trunk].median(),
        _relative(other_LD, _alone(base, pack, [other])[0]).median(),
    ]
    batched = _relative(_alone(base, pack, forking[:1])[0], alone_RLD[0])[-_BRANCH:].median()
    straight_LD = _straight(base, pack, forking[0], dense=dense)
    attended = _relative(straight_LD, alone_RLD[0])[-_BRANCH:].median()
    return torch.stack(off).max().item(), max(batched.item(), attended.item())


def _straight(base: Any, pack: Pack, row: list[int], *, dense: bool) -> torch.Tensor:
    """Hidden states of one row as a pack of its own, padded like `pack`: L D."""
    length, total = len(row), len(pack.input_ids_T)
    padding = torch.arange(length, total)
    alone = replace(
        pack,
        input_ids_T=torch.cat([pack.input_ids_T[torch.tensor(row)], torch.zeros_like(padding)]),
        position_T=torch.cat([torch.arange(length), torch.zeros_like(padding)]),
        subtree_end_T=torch.cat([torch.full((length,), length), padding + 1]),
        n_nodes=length,
    )
    with tree_attention_on(base):
        return hidden_states(base, alone, dense=dense)[:length]


def _alone(base: Any, pack: Pack, rows: list[list[int]]) -> torch.Tensor:
    """Hidden states of rows of one length, R L D, as any user of the model would compute them."""
    ids_RL = pack.input_ids_T[torch.tensor(rows)].to(base.device)
    return base.get_decoder()(input_ids=ids_RL, use_cache=False).last_hidden_state


def _relative(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The norm of the difference over b's norm, over the last dimension."""
    return (a.float() - b.float()).norm(dim=-1) / b.float().norm(dim=-1)


def _dtype(hidden: torch.Tensor) -> torch.dtype:
    """What the hidden states were computed in, which autocast may hide."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
