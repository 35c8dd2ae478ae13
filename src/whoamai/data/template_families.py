"""Chat templates for models that bring none, and for those who ask for one by name.

A name is one of XTuner's `prompt_template` names, or an alias of ours. Where a family has a form of its
own (a start token, no system role, the model writes a space before its reply), the Jinja text here is
that form; the others are made of the pieces XTuner has for them. In every text the start token occurs
once, at the beginning, and only where the tokenizer has one.

Where the forms come from: InternLM2, Qwen (ChatML), Llama 3, Gemma and GLM-4 as their model cards and
tokenizer files show them; Mistral's first instruct form (mistral-common, "tokenizer V1"); the pieces
from XTuner 0.1.23's template table.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from whoamai.errors import SettingError
from whoamai.messages import tr

# ---- XTuner's templates, piece by piece ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pieces:
    """What XTuner writes around the texts of a turn.

        <system> <instruction> reply <suffix> [the tokenizer's end token] <sep>

    `{system}`, `{input}` and `{round}` (the number of the turn, from 1) stand for the texts. No end
    token is written where `suffix_ends` says that the suffix is one. `system` is None where a template
    has no place for a system message.
    """

    system: str | None
    instruction: str
    suffix: str = ""
    suffix_ends: bool = False
    sep: str = ""


_CHATML_PIECES = Pieces(
    system="<|im_start|>system\n{system}<|im_end|>\n",
    instruction="<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n",
    suffix="<|im_end|>",
    suffix_ends=True,
    sep="\n",
)
_INST_PIECES = Pieces("[INST] {system} [/INST]\n", "[INST] {input} [/INST]", sep="\n")

XTUNER_PIECES: dict[str, Pieces] = {
    "default": Pieces("<|System|>:{system}\n", "<|User|>:{input}\n<|Bot|>:", sep="\n"),
    "zephyr": Pieces("<|system|>\n{system}\n", "<|user|>\n{input}\n<|assistant|>\n", sep="\n"),
    "internlm_chat": Pieces(
        system="<|System|>:{system}\n",
        instruction="<|User|>:{input}<eoh>\n<|Bot|>:",
        suffix="<eoa>",
        suffix_ends=True,
        sep="\n",
    ),
    "internlm2_chat": _CHATML_PIECES,
    "qwen_chat": _CHATML_PIECES,
    "code_llama_chat": Pieces("{system}\n", "[INST] {input} [/INST]"),
    "chatglm2": Pieces("{system}\n", "[Round {round}]\n\n问：{input}\n\n答：", sep="\n\n"),
    "chatglm3": Pieces("<|system|>\n{system}", "<|user|>\n{input}<|assistant|>\n", sep="\n"),
    "baichuan_chat": Pieces("{system}\n", "<reserved_102>{input}<reserved_103>", sep="\n"),
    "baichuan2_chat": Pieces("{system}\n", "<reserved_106>{input}<reserved_107>", sep="\n"),
    "deepseek_moe": _INST_PIECES,
    "deepseek_v2": Pieces(
        system="{system}\n\n",
        instruction="User: {input}\n\nAssistant: ",
        suffix="<｜end▁of▁sentence｜>",
        suffix_ends=True,
    ),
    "mistral": _INST_PIECES,
    "mixtral": _INST_PIECES,
    "minicpm": Pieces(None, "<用户> {input} <AI>", sep="\n"),
    # Both the suffix and the tokenizer's end token: XTuner does not count the suffix as an end here.
    "gemma": Pieces(
        system="<start_of_turn>system\n{system}<end_of_turn>\n",
        instruction="<start_of_turn>user\n{input}<end_of_turn>\n<start_of_turn>model\n",
        suffix="<end_of_turn>",
        sep="\n",
    ),
    "cohere_chat": Pieces(
        system="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{system}<|END_OF_TURN_TOKEN|>",
        instruction="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{input}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        suffix="<|END_OF_TURN_TOKEN|>",
        suffix_ends=True,
    ),
    "llama3_chat": Pieces(
        system="<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        instruction="<|start_header_id|>user<|end_header_id|>\n\n{input}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        suffix="<|eot_id|>",
        suffix_ends=True,
    ),
    "phi3_chat": Pieces(
        system="<|system|>\n{system}<|end|>\n",
        instruction="<|user|>\n{input}<|end|>\n<|assistant|>\n",
        suffix="<|end|>",
        suffix_ends=True,
        sep="\n",
    ),
}

# XTuner has these too. All but the last put a long text of their own before the system message; the
# last needs a data set class of its own.
XTUNER_LEFT_OUT = frozenset(
    (
        *("llama2_chat", "wizardlm", "wizardcoder", "vicuna", "deepseek_coder", "deepseekcoder"),
        "moss_sft",
    )
)

# ---- the templates as Jinja texts ----------------------------------------------------------------

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# No system role in these two: ChatTemplate sees the refusal and puts the text before the user's.
_REFUSAL = "{{ raise_exception('no system role in this template') }}"
_REFUSE_SYSTEM = "{% if m['role'] == 'system' %}" + _REFUSAL + "{% endif %}"
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}" + _REFUSE_SYSTEM + "{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' ~ m['content'] ~ eos_token }}"
    "{% endif %}{% endfor %}"
)
_GEMMA = (
    "{{ bos_token }}{% for m in messages %}" + _REFUSE_SYSTEM + "{{ '<start_of_turn>' }}"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}"
    "{{ '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# The prompt ends with the role's token; the model writes the line end itself, before its reply.
_GLM = (
    "{{ '[gMASK]START' }}{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _jinja(pieces: Pieces) -> str:
    """The Jinja text of a template given in pieces.

    The assistant's header belongs to the user's turn, as in XTuner, so no generation prompt is added.
    """
    if pieces.system is None:
        system = _REFUSAL
    else:
        system = "{{ " + _expression(pieces.system, "{system}") + " }}"
    user = "{{ " + _expression(pieces.instruction, "{input}") + " }}"
    end = "" if pieces.suffix_ends else " ~ eos_token"
    return (
        "{{ bos_token }}{% set turn = namespace(number=0) %}{% for m in messages %}"
        "{% if m['role'] == 'system' %}" + system + "{% elif m['role'] == 'user' %}"
        "{% set turn.number = turn.number + 1 %}" + user + "{% else %}"
        "{{ m['content'] ~ " + _quoted(pieces.suffix) + end + " ~ " + _quoted(pieces.sep) + " }}"
        "{% endif %}{% endfor %}"
    )


def _expression(text: str, slot: str) -> str:
    """`text` as a Jinja expression in which the slot is the message's text.

    >>> _expression("[INST] {input} [/INST]", "{input}")
    "'[INST] ' ~ m['content'] ~ ' [/INST]'"
    """
    quoted = _quoted(text).replace("{round}", "' ~ turn.number ~ '")
    return quoted.replace(slot, "' ~ m['content'] ~ '")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


_WRITTEN = {
    "chatml": CHATML,
    "qwen_chat": CHATML,
    "internlm2_chat": "{{ bos_token }}" + CHATML,
    "llama3_chat": _LLAMA3,
    "mistral": _MISTRAL,
    "mixtral": _MISTRAL,
    "gemma": _GEMMA,
    "chatglm": _GLM.replace("START", "<sop>"),
    "chatglm3": _GLM.replace("START", "sop"),
}
_TEXTS = {**{name: _jinja(pieces) for name, pieces in XTUNER_PIECES.items()}, **_WRITTEN}

TEMPLATE_NAMES = tuple(sorted(_TEXTS))


def template_text(name: str) -> str:
    """The Jinja text of a template. Raises SettingError for a name that is not in TEMPLATE_NAMES."""
    if name not in _TEXTS:
        raise no_such_template(name, TEMPLATE_NAMES)
    return _TEXTS[name]


def xtuner_pieces(name: str) -> Pieces:
    """XTuner's pieces of a template. Raises SettingError for a name without pieces."""
    if name not in XTUNER_PIECES:
        raise no_such_template(name, XTUNER_PIECES)
    return XTUNER_PIECES[name]


def no_such_template(name: str, known: Iterable[str]) -> SettingError:
    """What to say of a name that is not among `known`: the nearest ones, and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names)
    if name in XTUNER_LEFT_OUT:
        text = tr(
            'XTuner\'s chat template "{name}" is not among those whoamai has. Leave the name out, so '
            "that the model's own template is used, or give one of these: {all}."
        )
    elif near:
        text = tr('There is no chat template "{name}". Did you mean {near}? All names: {all}.')
    else:
        text = tr('There is no chat template "{name}". Give one of these: {all}.')
    return SettingError(text.format(name=name, near=", ".join(near), all=", ".join(names)))


# ---- which family a model belongs to -------------------------------------------------------------

# Tokens that a vocabulary has where the model was made for the template; the more telling first.
_MARKS = {
    "llama3_chat": ("<|start_header_id|>", "<|eot_id|>"),
    "internlm2_chat": ("<|im_start|>", "<|im_end|>", "<|action_start|>"),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "chatglm": ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
    "chatglm3": ("[gMASK]", "sop", "<|user|>", "<|assistant|>"),
    "phi3_chat": ("<|user|>", "<|assistant|>", "<|end|>"),
    "cohere_chat": ("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
    "internlm_chat": ("<eoh>", "<eoa>"),
    "mistral": ("[INST]", "[/INST]"),
}
# Beginnings of transformers' `model_type`, and the families of such models.
_FAMILIES_OF_TYPE = {
    "internlm2": ("internlm2_chat",),
    "internlm3": ("internlm2_chat",),
    "internlm": ("internlm_chat",),
    "qwen": ("chatml",),
    "llama": ("llama3_chat",),
    "gemma": ("gemma",),
    "chatglm": ("chatglm", "chatglm3"),
    "glm": ("chatglm",),
    "mistral": ("mistral",),
    "ministral": ("mistral",),
    "mixtral": ("mistral",),
    "phi3": ("phi3_chat",),
    "cohere": ("cohere_chat",),
}
# InternLM2's own start and end tokens are what counts; a small vocabulary may lack those for tools.
_MARKS_OF_TYPE = {"internlm2_chat": _MARKS["chatml"]}
# Written in plain letters, so a model may be of the family without having the tokens.
_PLAIN = ("mistral",)


def family_for(model_type: str | None, vocabulary: Collection[str]) -> str:
    """The template for a model without one: by its type, else by its special tokens, else "default".

    `model_type` is transformers' ("qwen3", "internlm2"); a family counts only where the vocabulary has
    its tokens.

    >>> family_for("qwen3", {"<|im_start|>", "<|im_end|>"}), family_for("llama", {"hello"})
    ('chatml', 'default')
    """
    kind = model_type or ""
    families = next((f for begin, f in _FAMILIES_OF_TYPE.items() if kind.startswith(begin)), ())
    for family in families:
        if _has_all(vocabulary, _MARKS_OF_TYPE.get(family, _MARKS[family])):
            return family
    for family, marks in _MARKS.items():
        if _has_all(vocabulary, marks):
            return family
    return next((family for family in families if family in _PLAIN), "default")


def _has_all(vocabulary: Collection[str], tokens: Iterable[str]) -> bool:
    return all(token in vocabulary for token in tokens)
