"""A chat template as Ollama's, and the Modelfile around it.

Ollama's templates are Go's; a model's own is Jinja. Those of two families are written anew here: ChatML
(Qwen, InternLM2 and many others) and Llama 3's. Whether a model's template is of one of them is found
out by having it write conversations and comparing, not by its text. What Ollama gives to a template:
.System, all system messages; .Messages, all messages, system ones too, each with .Role and .Content.
The start token is left to Ollama, which puts it before a prompt where the tokenizer asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whoamai.data.templates import ChatTemplate
from whoamai.errors import ModelError, SettingError
from whoamai.messages import tr
from whoamai.samples import Message

_QUOTES = '"""'
_MARK = "\u2983S\u2984"


@dataclass(frozen=True, slots=True)
class Family:
    """How a family writes a message: before, role, between, text, after. `stops`: what ends a reply."""

    name: str
    before: str
    between: str
    after: str
    stops: tuple[str, ...]

    def turn(self, role: str, text: str) -> str:
        return f"{self.before}{role}{self.between}{text}{self.after}"


FAMILIES = (
    Family("ChatML", "<|im_start|>", "\n", "<|im_end|>\n", ("<|im_end|>", "<|im_start|>")),
    Family(
        "Llama 3",
        "<|start_header_id|>",
        "<|end_header_id|>\n\n",
        "<|eot_id|>",
        ("<|eot_id|>", "<|start_header_id|>", "<|end_of_text|>"),
    ),
)


@dataclass(frozen=True, slots=True)
class OllamaTemplate:
    """A family's template as one model has it.

    `default_system`: what stands in the system message where a conversation has none. `preamble`: what
    stands there before the system prompt, always (Llama 3.1's dates). `opening`: what the model's own
    writes behind the header of the reply (Qwen3's empty thoughts).
    """

    family: Family
    default_system: str | None
    preamble: str
    opening: str

    @property
    def text(self) -> str:
        """The template in Go's form. What is written is between the braces; there are no line ends."""
        family = self.family
        system = family.turn("system", self.preamble + "{{ .System }}")
        if not self.preamble:
            system = "{{ if .System }}" + system + "{{ end }}"
        turn = family.turn("{{ .Role }}", "{{ .Content }}")
        turns = '{{ range .Messages }}{{ if ne .Role "system" }}' + turn + "{{ end }}{{ end }}"
        return f"{system}{turns}{family.before}assistant{family.between}{self.opening}"

    def written(self, messages: Sequence[Message]) -> str:
        """A prompt as this template is to write it, the default system prompt included."""
        systems = [m.text for m in messages if m.role == "system"] or [self.default_system or ""]
        system = "\n\n".join(systems)
        parts = []
        if system or self.preamble:
            parts.append(self.family.turn("system", self.preamble + system))
        parts += [self.family.turn(m.role, m.text) for m in messages if m.role != "system"]
        return "".join(parts) + f"{self.family.before}assistant{self.family.between}{self.opening}"


_ASKED = (Message("user", "你是谁？"),)
_TOLD = (Message("system", "Be brief."), *_ASKED)
_TURNS = (*_TOLD, Message("assistant", "我是小初。"), Message("user", "Who made you?"))
_PROBES = (_ASKED, _TOLD, _TURNS, _TURNS[1:])


def ollama_template(template: ChatTemplate, bos: str | None) -> OllamaTemplate:
    """The model's template in Ollama's form. Raises ModelError where it is of no known family.

    `bos`: the tokenizer's start token.
    """
    probes = [_without(template.prompt_text(messages), bos) for messages in _PROBES]
    for family in FAMILIES:
        found = _of(family, template, bos)
        if found and [found.written(messages) for messages in _PROBES] == probes:
            return found
    names = ", ".join(family.name for family in FAMILIES)
    raise ModelError(
        tr(
            "The model's chat template cannot be written for Ollama: it is none of {families}. It "
            "writes: {found}. Write the Modelfile by hand; Ollama's documentation says how."
        ).format(families=names, found=repr(probes[1]))
    )


def _of(family: Family, template: ChatTemplate, bos: str | None) -> OllamaTemplate | None:
    """What the template would be if it were of this family; it has still to be compared."""
    told = _without(template.prompt_text((Message("system", _MARK), Message("user", "?"))), bos)
    head = f"{family.before}system{family.between}"
    if not told.startswith(head) or _MARK not in told:
        return None
    preamble = told[len(head) :].partition(_MARK)[0]
    header = f"{family.before}assistant{family.between}"
    opening = told.rpartition(header)[2]
    if "{{" in preamble + opening:  # Go would take it for its own
        return None
    return OllamaTemplate(family, template.default_system, preamble, opening)


def _without(text: str, bos: str | None) -> str:
    return text.removeprefix(bos) if bos else text


def modelfile(
    model: str, template: OllamaTemplate, *, system: str | None, stops: Sequence[str] = ()
) -> str:
    """The text of a Modelfile for the weights at `model`.

    `system` None takes the template's default. `stops` come beside the family's. Raises SettingError for
    texts a Modelfile has no way to write.
    """
    system = template.default_system if system is None else system
    for name, text in (("--system", system or ""), ("FROM", model)):
        if _QUOTES in text or (name == "FROM" and "\n" in text):
            raise SettingError(
                tr("{name}: a Modelfile has no way to write {quotes}.").format(
                    name=name, quotes=_QUOTES
                )
            )
    lines = [f"FROM {model}", "", f"TEMPLATE {_QUOTES}{template.text}{_QUOTES}", ""]
    if system:
        lines += [f"SYSTEM {_QUOTES}{system}{_QUOTES}", ""]
    lines += [
        f'PARAMETER stop "{stop}"' for stop in dict.fromkeys((*template.family.stops, *stops))
    ]
    return "\n".join(lines) + "\n"
