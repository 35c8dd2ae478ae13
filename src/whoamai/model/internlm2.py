"""InternLM2 and InternLM2.5, built of transformers' Llama parts: no code comes from the model's folder.

InternLM2 is Llama with other names, and with the query, key and value projections of a layer in one
matrix. Names and layout are upstream's, so that what is saved here loads wherever InternLM2 loads:

    model.tok_embeddings · model.layers.N.attention.{wqkv, wo} · feed_forward.{w1, w3, w2} ·
    attention_norm · ffn_norm · model.norm · output

The rows of `wqkv` are, for each key-value head: its group of query heads, then the key, then the value.

Shapes: B rows, T tokens, D hidden size, H query heads, K key-value heads, G = H / K, F head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.configuration_utils import PreTrainedConfig
from transformers.generation.utils import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from whoamai.errors import ModelError
from whoamai.messages import tr

MODEL_TYPE = "internlm2"
_ROPE_TYPES = ("default", "linear", "dynamic")


class InternLM2Config(PreTrainedConfig):
    """Upstream's keys and defaults.

    `rope_theta` and `rope_scaling` are read as upstream writes them, held as `rope_parameters` as
    transformers does, and written as upstream reads them: a reader that knows only upstream's keys
    would else take the default base without a word.

    Raises ModelError for sizes that do not fit together and for a rope scaling InternLM2 has not.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    base_model_fsdp_plan: ClassVar[dict[Any, str]] = {
        "tok_embeddings": "free_full_weight",
        "layers.*": "free_full_weight",
        "norm": "keep_full_weight",
    }

    vocab_size: int = 103168
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False
    bias: bool = True
    rope_parameters: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        # Reading these fills them in; a caller's own dictionary stays as it is.
        kwargs = {k: dict(v) if isinstance(v, dict) else v for k, v in kwargs.items()}
        self.rope_parameters = dict(self.rope_parameters or {})
        super().__post_init__(**kwargs)
        self.rope_parameters.pop("type", None)  # upstream's name of rope_type, which it became
        _check(self)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def num_key_value_groups(self) -> int:
        """Query heads for each key-value head."""
        return self.num_attention_heads // (self.num_key_value_heads or self.num_attention_heads)

    @property
    def rope_theta(self) -> float:
        return (self.rope_parameters or {}).get("rope_theta", self.default_theta)

    @rope_theta.setter
    def rope_theta(self, value: float) -> None:
        self.rope_parameters = {**(self.rope_parameters or {}), "rope_theta": value}

    @property
    def rope_scaling(self) -> dict[str, Any] | None:
        """`{"type": …, "factor": …}`, or None for plain rope."""
        rope = self.rope_parameters or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        return None if kind == "default" else {"type": kind, "factor": rope.get("factor")}

    @rope_scaling.setter
    def rope_scaling(self, value: dict[str, Any] | None) -> None:
        given = dict(value or {})
        kind = given.pop("type", None) or given.get("rope_type", "default")
        self.rope_parameters = {"rope_theta": self.rope_theta, **given, "rope_type": kind}
        _check(self)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers does, but for `attn_implementation` in the file.

        Upstream's files ask for "eager", the slowest, because its code had to be told. What the
        caller asks for counts; otherwise transformers chooses.
        """
        own = {key: value for key, value in config_dict.items() if key != "attn_implementation"}
        return super().from_dict(own, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        written = super().to_dict()
        written.pop("rope_parameters", None)
        written["rope_theta"], written["rope_scaling"] = self.rope_theta, self.rope_scaling
        return written


def _check(config: InternLM2Config) -> None:
    """Raise ModelError that tells all that is wrong with the sizes and the rope of `config`."""
    problems = []
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or 0
    if heads < 1 or config.hidden_size % heads:
        problems.append(
            tr("hidden_size {size} is no multiple of num_attention_heads {heads}").format(
                size=config.hidden_size, heads=heads
            )
        )
    if kv_heads < 1 or heads % kv_heads:
        problems.append(
            tr("num_attention_heads {heads} is no multiple of num_key_value_heads {kv}").format(
                heads=heads, kv=kv_heads
            )
        )
    scaling = config.rope_scaling or {"type": "default", "factor": None}
    kind, factor = scaling["type"], scaling["factor"]
    if kind not in _ROPE_TYPES:
        problems.append(
            tr('rope_scaling is of type "{kind}"; InternLM2 has "linear" and "dynamic"').format(
                kind=kind
            )
        )
    elif kind != "default" and not (isinstance(factor, int | float) and factor >= 1):
        problems.append(
            tr("the factor of rope_scaling is {factor}; it must be a number from 1 up").format(
                factor=factor
            )
        )
    if problems:
        raise ModelError(
            tr("The InternLM2 config of {path} cannot be used: {problems}.").format(
                path=config.name_or_path or "config.json", problems="; ".join(problems)
            )
        )


class InternLM2RotaryEmbedding(nn.Module):
    """Cosines and sines of the positions, of one forward pass alone.

    `linear` divides the positions by `factor`. `dynamic` (NTK) raises the base where a position lies
    beyond the limit L = max_position_embeddings, by the length N = max(position) + 1:

        base' = base · (factor · N / L - (factor - 1)) ** (F / (F - 2))

    Nothing is remembered: transformers' own keeps the base of the longest input so far, which would make
    a reply depend on the ones before. Nor is there a buffer, which `.to(bfloat16)` would round.
    """

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__()
        scaling = config.rope_scaling or {"type": "default", "factor": 1.0}
        self.kind: str = scaling["type"]
        self.factor = float(scaling["factor"])
        self.base = float(config.rope_theta)
        self.limit = config.max_position_embeddings
        self.head_dim = config.head_dim

    @torch.no_grad()
    def forward(
        self, hidden_BTD: torch.Tensor, position_BT: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(cosines, sines), each (B, T, F), in the type of `hidden_BTD`; computed in float32."""
        positions = position_BT.to(hidden_BTD.device).float()
        if self.kind == "linear":
            positions = positions / self.factor
        angles = positions[..., None] * self._frequencies(position_BT, hidden_BTD.device)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(hidden_BTD.dtype), angles.sin().to(hidden_BTD.dtype)

    def _frequencies(self, position_BT: torch.Tensor, device: torch.device) -> torch.Tensor:
        """(F / 2,), float32, rounded step by step as upstream rounds them."""
        exponents = torch.arange(0, self.head_dim, 2, device=device).float() / self.head_dim
        frequencies = 1.0 / self.base**exponents
        if self.kind != "dynamic":
            return frequencies
        length = (position_BT.max() + 1).to(device)
        growth = self.factor * length / self.limit - (self.factor - 1)
        base = self.base * growth.clamp(min=1.0) ** (self.head_dim / (self.head_dim - 2))
        # A choice between tensors: asking for the length here would make a GPU wait.
        return torch.where(length > self.limit, 1.0 / base**exponents, frequencies)


class InternLM2Attention(nn.Module):
    """Grouped-query attention; how it is computed is transformers' `attn_implementation`."""

    def __init__(self, config: InternLM2Config, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_key_value_groups
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        heads = config.num_attention_heads + 2 * (config.num_key_value_heads or 0)
        self.wqkv = nn.Linear(config.hidden_size, heads * self.head_dim, bias=config.bias)
        self.wo = nn.Linear(
            config.num_attention_heads * self.head_dim, config.hidden_size, bias=config.bias
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        shape = hidden_states.shape[:-1]
        group = self.num_key_value_groups
        qkv = self.wqkv(hidden_states).view(*shape, -1, group + 2, self.head_dim)  # B T K G+2 F
        query = qkv[..., :group, :].flatten(-3, -2).transpose(1, 2)
        key = qkv[..., group, :].transpose(1, 2)
        value = qkv[..., group + 1, :].transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation or "eager", eager_attention_forward
        )
        mixed, weights = attention(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs
        )
        return self.wo(mixed.reshape(*shape, -1).contiguous()), weights


class InternLM2MLP(nn.Module):
    """w2(act(w1 x) · w3 x)."""

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.w2(self.act_fn(self.w1(hidden_states)) * self.w3(hidden_states))


class InternLM2DecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: InternLM2Config, layer_idx: int) -> None:
        super().__init__()
        self.attention = InternLM2Attention(config, layer_idx)
        self.feed_forward = InternLM2MLP(config)
        self.attention_norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.ffn_norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        mixed, _ = self.attention(hidden_states=self.attention_norm(hidden_states), **kwargs)
        hidden_states = hidden_states + mixed
        return hidden_states + self.feed_forward(self.ffn_norm(hidden_states))


class InternLM2PreTrainedModel(PreTrainedModel):
    config_class = InternLM2Config
    config: InternLM2Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _input_embed_layer = "tok_embeddings"
    _no_split_modules: ClassVar = ["InternLM2DecoderLayer"]
    _skip_keys_device_placement: ClassVar = ["past_key_values"]
    # Early InternLM2 files hold the rotary frequencies, which follow from the config.
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"rotary_emb\.inv_freq"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _can_record_outputs: ClassVar = {
        "hidden_states": InternLM2DecoderLayer,
        "attentions": InternLM2Attention,
    }


class InternLM2Model(InternLM2PreTrainedModel):
    """Embeddings, layers and the last norm, without the head."""

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__(config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList(
            InternLM2DecoderLayer(config, number) for number in range(config.num_hidden_layers)
        )
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = InternLM2RotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states (B, T, D). What else is given in `kwargs` reaches the attention function."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds is needed")
        hidden = self.tok_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            past = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(past, past + hidden.shape[1], device=hidden.device)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        position_embeddings = self.rotary_emb(hidden, position_ids)
        for layer in self.layers[: self.config.num_hidden_layers]:
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_embeddings=position_embeddings,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden), past_key_values=past_key_values
        )


class InternLM2ForCausalLM(InternLM2PreTrainedModel, GenerationMixin):
    """The language model: InternLM2Model and the head `output`."""

    _tied_weights_keys: ClassVar = {"output.weight": "model.tok_embeddings.weight"}

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__(config)
        self.model = InternLM2Model(config)
        self.vocab_size = config.vocab_size
        self.output = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.output

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.output = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, vocabulary), or the last `logits_to_keep` of a row.

        With `labels` (B, T) also the mean cross-entropy of each token from those before it; -100 is
        left out.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.output(outputs.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def register_internlm2() -> None:
    """Have transformers' Auto classes use these classes for model_type "internlm2".

    May be called again. Should transformers get InternLM2 of its own, this one stays in use: adapters,
    conversions and packing are made for these parameter names.
    """
    AutoConfig.register(MODEL_TYPE, InternLM2Config, exist_ok=True)
    AutoModel.register(InternLM2Config, InternLM2Model, exist_ok=True)
    AutoModelForCausalLM.register(InternLM2Config, InternLM2ForCausalLM, exist_ok=True)


def split_wqkv(
    wqkv: torch.Tensor, config: InternLM2Config
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(q, k, v) of Llama's layout from the rows of `wqkv`: its weight, its bias, or a LoRA B.

    `wqkv` is (K · (G + 2) · F, ...); q is (H · F, ...), k and v are (K · F, ...). No value changes.
    Raises ModelError where the rows are not that many.
    """
    group, size = config.num_key_value_groups, config.head_dim
    kv_heads = config.num_attention_heads // group
    rows = kv_heads * (group + 2) * size
    if wqkv.shape[0] != rows:
        raise ModelError(
            tr("A wqkv of {found} rows does not belong to this config, which has {rows}.").format(
                found=wqkv.shape[0], rows=rows
            )
        )
    by_head = wqkv.reshape(kv_heads, group + 2, size, *wqkv.shape[1:])
    query, key, value = by_head[:, :group], by_head[:, group], by_head[:, group + 1]
    return query.flatten(0, 2), key.flatten(0, 1), value.flatten(0, 1)


def join_wqkv(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, config: InternLM2Config
) -> torch.Tensor:
    """The inverse of `split_wqkv`."""
    group, size = config.num_key_value_groups, config.head_dim
    kv_heads = config.num_attention_heads // group
    by_head = (
        query.reshape(kv_heads, group, size, *query.shape[1:]),
        key.reshape(kv_heads, 1, size, *key.shape[1:]),
        value.reshape(kv_heads, 1, size, *value.shape[1:]),
    )
    return torch.cat(by_head, dim=1).flatten(0, 2)
