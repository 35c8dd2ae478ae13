"""Every setting of a run, documented where it is declared.

A setting says what it is, and what a higher and a lower value does; `whoamai explain` shows these texts.
Names and defaults are XTuner's where it has the setting. Validators check, they do not rewrite: what a
config says is what it says, and what is left to the program is written "auto" or left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from whoamai.messages import later


class Section(BaseModel):
    """A part of a config. Unknown settings are refused; no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _setting(default: Any, about: str, *, more: str = "", less: str = "", **limits: Any) -> Any:
    """A setting with its texts: what it is; what a higher and what a lower value does."""
    return Field(
        default, description=about, json_schema_extra={"more": more, "less": less}, **limits
    )


# A whole number is taken too, as XTuner's files say 1 where 1.0 is meant; text, true and false are not.
Number = Annotated[float, Field(allow_inf_nan=False)]

# Beyond these a number is a slip of the hand, or text that was read as a number.
MOST_STEPS = 10**9
MOST_TOKENS = 2**24  # eight times the longest context of the models there are
MOST_ROWS = 10**6


class ModelSettings(Section):
    """Which model, and in what precision its weights are held."""

    pretrained_model_name_or_path: str = _setting(
        "tiny-chat",
        later(
            "The model: a folder, a name on the hub, or tiny-chat for the one that comes with whoamai."
        ),
        min_length=1,
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = _setting(
        "auto",
        later(
            "The precision that is computed in. auto: bfloat16 where the GPU has it, float16 on older "
            "ones, float32 on the CPU."
        ),
        more=later("float32: twice the memory, several times slower, exact."),
        less=later(
            "float16: for cards without bfloat16; large values can overflow, so the loss is scaled."
        ),
    )
    quantization: Literal["none", "nf4"] = _setting(
        "none",
        later(
            "nf4 holds the frozen weights in 4 bits (QLoRA): about a quarter of the memory of 16 bits, "
            "at some speed and a little accuracy."
        ),
    )
    double_quantization: bool = _setting(
        True,
        later("With nf4, the scales are quantized too: 0.37 bits less a weight (QLoRA, 2023)."),
    )
    device: str = _setting(
        "auto",
        later("auto: the GPU where there is one. Or cpu, cuda, cuda:1."),
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
    )


class DataSettings(Section):
    """What is trained on, and how it becomes token ids."""

    data_path: str | list[str] = _setting(
        [],
        later(
            "Files with conversations, or patterns; FILE#500 takes 500 of its rows, FILE#0.5x half of "
            "them. Every known form is read: XTuner, OpenAI, ShareGPT, Alpaca."
        ),
    )
    prompt_template: str | None = _setting(
        None,
        later(
            "How turns are written as one text. Left out: the model's own chat template. Else a name "
            "such as internlm2_chat or qwen_chat."
        ),
    )
    encoding: Literal["whoamai", "xtuner"] = _setting(
        "whoamai",
        later(
            "xtuner writes rows exactly as XTuner 0.1 did; whoamai as the model is asked afterwards."
        ),
    )
    system: str | None = _setting(
        None,
        later("A system prompt for rows that have none. Left out: none is added."),
    )
    name: str | None = _setting(None, later("What {{name}} stands for in the data."))
    author: str | None = _setting(None, later("What {{author}} stands for in the data."))
    old_names: list[str] = _setting(
        [], later("Names that must not be left in the data; preflight looks for them.")
    )
    max_length: int = _setting(
        2048,
        later(
            "The longest row, in tokens. A longer one is cut after its last whole turn that fits, and "
            "left out where no reply is left. With packing, also the measure of an optimizer step."
        ),
        more=later("Longer conversations are kept whole; more memory where rows are long."),
        less=later("Less memory; long rows are cut, which is said before training."),
        ge=8,
        le=MOST_TOKENS,
    )
    pack_to_max_length: bool = _setting(
        True,
        later(
            "An optimizer step takes whole rows up to max_length × batch_size × accumulative_counts "
            "tokens. Rows packed together never see each other, and nothing is padded. false: it takes "
            "batch_size × accumulative_counts rows."
        ),
    )

    @property
    def files(self) -> tuple[str, ...]:
        return (self.data_path,) if isinstance(self.data_path, str) else tuple(self.data_path)


class LoraSettings(Section):
    """The adapter. Left out (lora: null), every weight of the model is trained."""

    r: int = _setting(
        64,
        later(
            "The rank: beside each frozen linear layer two small matrices are trained, r × in and "
            "out × r, which is r · (in + out) numbers."
        ),
        more=later("More can be learned; adapter, gradients and optimizer grow in proportion."),
        less=later("Smaller and a little faster; a name alone needs little (8 to 32)."),
        ge=1,
        le=4096,
    )
    lora_alpha: Number = _setting(
        16,
        later("What the adapter adds is multiplied by lora_alpha / r."),
        more=later("The adapter acts more strongly, much as a higher learning rate would."),
        less=later("It acts more weakly; raise lr with it."),
        gt=0,
        le=100_000,
    )
    lora_dropout: Number = _setting(
        0.1,
        later(
            "Share of the adapter's inputs set to zero while training. On a beginning that rows share "
            "it is drawn once for all of them."
        ),
        more=later("Less is learned by heart; slower to learn."),
        less=later("0: exact and fastest; sharing beginnings changes nothing at all."),
        ge=0,
        lt=1,
    )
    adapt_head: bool = _setting(
        False,
        later(
            "Also adapt the head that turns the last layer into words. XTuner does (its output layer); "
            "it costs r · (hidden + vocabulary) numbers and is seldom worth it."
        ),
    )
    target_modules: Literal["all-linear"] | list[str] = _setting(
        "all-linear",
        later("Which layers get an adapter: all linear ones, or those with these names."),
    )
    variant: Literal["lora", "rslora", "dora", "pissa"] = _setting(
        "lora",
        later(
            "rslora divides by the root of r instead of r; dora trains directions and lengths apart; "
            "pissa starts from the largest parts of each weight."
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.target_modules == []:
            raise ValueError(
                later(
                    "target_modules is empty, so nothing would be trained: write all-linear, or the "
                    "names of layers"
                )
            )
        return self


class TrainSettings(Section):
    """Optimizer steps and their size."""

    max_epochs: int = _setting(
        3,
        later("How often every row is seen."),
        more=later("More is learned by heart; time grows in proportion."),
        less=later("Faster; with few rows, too few optimizer steps."),
        ge=1,
        le=100_000,
    )
    batch_size: int = _setting(
        1,
        later(
            "Packs (or, unpacked, rows) of an optimizer step, times accumulative_counts. Memory does "
            "not depend on it: what is computed at once is tokens_per_pass."
        ),
        more=later("Steadier but fewer optimizer steps an epoch."),
        less=later("More optimizer steps an epoch, each noisier."),
        ge=1,
        le=MOST_ROWS,
    )
    accumulative_counts: int = _setting(
        1,
        later("Multiplies batch_size; kept from XTuner, where the two differ in memory."),
        more=later("Fewer optimizer steps an epoch."),
        less=later("More optimizer steps an epoch."),
        ge=1,
        le=MOST_ROWS,
    )
    lr: Number = _setting(
        2e-4,
        later(
            "The highest learning rate. It rises over the warmup, then falls to 0 as half a cosine."
        ),
        more=later("Learns faster, forgets more; too high and the loss explodes."),
        less=later("Gentler; too low and the old name stays."),
        gt=0,
        lt=1,
    )
    betas: tuple[Number, Number] = _setting(
        (0.9, 0.999),
        later("AdamW's memory of the gradient and of its square, as shares kept each step."),
        strict=False,
    )
    weight_decay: Number = _setting(
        0.0,
        later("AdamW pulls trained weights towards 0 by lr × weight_decay each step."),
        more=later("Keeps the adapter small."),
        less=later("0: nothing is pulled."),
        ge=0,
        lt=1,
    )
    max_norm: Number = _setting(
        1.0,
        later(
            "A gradient longer than this is shortened to it, so that one bad step cannot ruin a run."
        ),
        more=later("Shortens less often."),
        less=later("Shortens more often; every step becomes smaller."),
        gt=0,
        le=1e6,
    )
    warmup_ratio: Number = _setting(
        0.03,
        later(
            "Share of all optimizer steps over which the learning rate rises; at least one step."
        ),
        more=later("A calmer start."),
        less=later("Full speed sooner."),
        ge=0,
        lt=1,
    )
    sequence_parallel_size: int = _setting(
        1,
        later("How many devices share one sequence. Only 1 is built; XTuner's name is kept."),
        ge=1,
    )
    seed: int = _setting(
        0,
        later("Same seed, same result: the order of rows, dropout and the adapter's start."),
        ge=0,
        lt=2**32,
    )
    share_prefixes: bool = _setting(
        True,
        later(
            "Compute the beginnings that rows of a step share (system prompt, question) once. Changes "
            "speed, not what is learned."
        ),
    )
    tokens_per_pass: Literal["auto"] | int = _setting(
        "auto",
        later(
            "Tokens computed at once, forward and backward; a step larger than this is done in parts. "
            "auto: what fits the memory. Changes speed and memory, not what is learned."
        ),
        more=later("Faster on a GPU up to some thousands; more memory."),
        less=later("Less memory."),
    )
    gradient_checkpointing: Literal["auto"] | bool = _setting(
        "auto",
        later(
            "Forget what each layer computed and compute it again on the way back: much less memory for "
            "about a third more time. auto: only where it would not fit otherwise."
        ),
    )

    fast_layers: Literal["auto"] | bool = _setting(
        "auto",
        later(
            "Compute the layers with kernels written for training an adapter in 16 bits on a GPU: "
            "faster, with half the activations, the same to rounding. auto: where model and settings "
            "allow, which is tried when the model is loaded. true: or else stop."
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.tokens_per_pass, int) and self.tokens_per_pass < 1:
            raise ValueError(later("tokens_per_pass must be at least 1, or auto"))
        if self.sequence_parallel_size > 1:
            raise ValueError(
                later("sequence_parallel_size: only 1 is built; leave the line out, or write 1")
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(later("betas must both be at least 0 and below 1"))
        return self

    @property
    def rows_or_packs(self) -> int:
        """batch_size × accumulative_counts."""
        return self.batch_size * self.accumulative_counts


class CheckpointSettings(Section):
    """What is saved on the way."""

    save_steps: int = _setting(
        500,
        later("A checkpoint every so many optimizer steps, and one at the end."),
        more=later("Less is written; a killed run loses more."),
        less=later("A killed run loses less."),
        ge=1,
        le=MOST_STEPS,
    )
    save_total_limit: int = _setting(
        2,
        later("How many checkpoints are kept; the oldest goes first. -1 keeps all."),
        ge=-1,
        le=MOST_STEPS,
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.save_total_limit == 0:
            raise ValueError(later("save_total_limit must be -1 (keep all) or at least 1"))
        return self


class EvaluationSettings(Section):
    """Questions put to the model while it learns, to see it change."""

    evaluation_freq: int = _setting(
        500,
        later(
            "The questions below are asked before training, every so many optimizer steps, and after."
        ),
        more=later("Seldomer."),
        less=later("More often; each time costs a few steps' time."),
        ge=1,
        le=MOST_STEPS,
    )
    evaluation_inputs: list[str] = _setting(
        [],
        later("What is asked. Nothing of it should stand in the data word for word."),
    )
    system: str | None = _setting(
        None,
        later("The system prompt to ask under. Left out: none."),
    )
    max_new_tokens: int = _setting(
        128,
        later("The longest answer, in tokens."),
        ge=1,
        le=8192,
    )
    stop_when_learned: bool = _setting(
        False,
        later(
            "End the run once the model knows that it is data.name. whoamai's own questions are put to "
            "it after 5, 10, 20 and every evaluation_freq steps; once the two goals below are met twice "
            "in a row, the learning rate runs out over a third as many steps again. The best adapter "
            "is kept."
        ),
    )
    goal_recall: Number = _setting(
        98,
        later(
            "With stop_when_learned: at least so many percent of the answers give data.name as the "
            "model's own. One answer may always be wrong, and under system prompts that give a role "
            "seven in ten are enough."
        ),
        more=later("The name sits more firmly; a goal of 100 may never be met."),
        less=later("Ends sooner."),
        gt=0,
        le=100,
    )
    goal_leak: Number = _setting(
        1,
        later(
            "With stop_when_learned: at most so many percent of the answers give one of data.old_names, "
            "or another assistant's name, as the model's own."
        ),
        more=later("Ends sooner, and an old name comes through now and then."),
        less=later("The old name is more surely gone; it takes longer."),
        ge=0,
        lt=100,
    )


class LogSettings(Section):
    """What is written down while training."""

    interval: int = _setting(
        10, later("A line in the log every so many optimizer steps."), ge=1, le=MOST_STEPS
    )
    trackers: list[Literal["tensorboard", "wandb", "swanlab"]] = _setting(
        [], later("Curves are also sent there.")
    )


class RunConfig(Section):
    """Everything `whoamai train` needs to know."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    lora: LoraSettings | None = LoraSettings()
    train: TrainSettings = TrainSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    log: LogSettings = LogSettings()
    work_dir: str | None = _setting(
        None,
        later("Where the run is written. Left out: work_dirs/<name of the config>."),
        min_length=1,
    )
    allow: list[str] = _setting(
        [], later("Findings of preflight or of the data check that do not stop this run.")
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model.quantization == "nf4" and self.lora is None:
            raise ValueError(
                later(
                    "model.quantization nf4 freezes the weights, and lora: null would train them: take "
                    "one of the two away"
                )
            )
        if self.evaluation.stop_when_learned:
            self._check_stop()
        return self

    def _check_stop(self) -> None:
        """What stop_when_learned needs, told together where both are missing."""
        if self.lora is None and not self.data.name:
            raise ValueError(
                later(
                    "evaluation.stop_when_learned asks for data.name and keeps the best adapter, and "
                    "lora: null has none: write the name and train an adapter, or take the line away"
                )
            )
        if self.lora is None:
            raise ValueError(
                later(
                    "evaluation.stop_when_learned keeps the best adapter, and lora: null has none: take "
                    "one of the two away"
                )
            )
        if not self.data.name:
            raise ValueError(
                later(
                    "evaluation.stop_when_learned has to know the name: write it in data.name, or take "
                    "the line away"
                )
            )

    @property
    def method(self) -> Literal["qlora", "lora", "full"]:
        if self.lora is None:
            return "full"
        return "qlora" if self.model.quantization == "nf4" else "lora"
