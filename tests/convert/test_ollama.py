"""Ollama's template against the model's own, by a small reader of the few Go constructs it uses."""

from __future__ import annotations

import re

import pytest

from tests.models import CHAT_TEMPLATE, make_tokenizer
from whoamai.convert.ollama import modelfile, ollama_template
from whoamai.data.template_families import template_text
from whoamai.data.templates import ChatTemplate
from whoamai.errors import ModelError, SettingError
from whoamai.samples import Message

QWEN25 = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}"
    "{% endif %}" + CHAT_TEMPLATE
)
QWEN3 = CHAT_TEMPLATE.replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)
LLAMA31 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n' + s }}"
    "{{ '<|eot_id|>' }}"
    "{% for m in rest %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
KNOWN = {
    "chatml": CHAT_TEMPLATE,
    "internlm2": template_text("internlm2_chat"),
    "qwen2.5": QWEN25,
    "qwen3": QWEN3,
    "llama3": template_text("llama3_chat"),
    "llama3.1": LLAMA31,
}
ASKED = (Message("user", "你是谁？"),)
TOLD = (Message("system", "Be {{ brief }}."), *ASKED)
TURNS = (*TOLD, Message("assistant", "我是小初。"), Message("user", "And who\nmade you?"))
_TAG = re.compile(r"\{\{ (.*?) \}\}")


def go(template: str, values: dict) -> str:
    """What Go's text/template writes, for the constructs in our templates; others are an error."""
    return _write(_parse(iter(_TAG.split(template))), values)


def _parse(parts) -> list:
    """Nodes up to {{ end }}: texts, ("put", name), ("if" or "range", what, nodes)."""
    nodes = []
    for number, part in enumerate(parts):
        if number % 2 == 0:
            nodes.append(part)
        elif part == "end":
            return nodes
        elif part.startswith(("if ", "range ")):
            word, _, what = part.partition(" ")
            nodes.append((word, what, _parse(parts)))
        else:
            assert re.fullmatch(r"\.\w+", part), part
            nodes.append(("put", part[1:], []))
    return nodes


def _write(nodes: list, dot: dict) -> str:
    written = []
    for node in nodes:
        if isinstance(node, str):
            written.append(node)
            continue
        word, what, inner = node
        if word == "put":
            written.append(dot[what])
        elif word == "range":
            written += [_write(inner, item) for item in dot[what[1:]]]
        elif match := re.fullmatch(r'ne \.(\w+) "(\w+)"', what):
            written.append(_write(inner, dot) if dot[match[1]] != match[2] else "")
        else:
            assert re.fullmatch(r"\.\w+", what), what
            written.append(_write(inner, dot) if dot[what[1:]] else "")
    return "".join(written)


def as_ollama_asks(template: str, messages, system: str | None) -> str:
    """As Ollama's server calls a template: the Modelfile's SYSTEM comes first where none is given."""
    if system and messages[0].role != "system":
        messages = (Message("system", system), *messages)
    values = {
        "System": "\n\n".join(m.text for m in messages if m.role == "system"),
        "Messages": [{"Role": m.role, "Content": m.text} for m in messages],
    }
    return go(template, values)


def own(text: str) -> tuple[ChatTemplate, str]:
    tokenizer = make_tokenizer(text)
    tokenizer.bos_token = "<|endoftext|>"
    return ChatTemplate(tokenizer), tokenizer.bos_token


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("messages", [ASKED, TOLD, TURNS, TURNS[1:]], ids=range(4))
def test_ollama_writes_what_the_model_was_trained_on(name, messages):
    template, bos = own(KNOWN[name])
    found = ollama_template(template, bos)
    written = as_ollama_asks(found.text, messages, found.default_system)
    assert written == template.prompt_text(messages).removeprefix(bos)


def test_the_reader_of_go_templates_reads_them():
    text = '{{ if .System }}[{{ .System }}]{{ end }}{{ range .Messages }}{{ if ne .Role "a" }}'
    text += "<{{ .Content }}>{{ end }}{{ end }}."
    messages = [{"Role": "a", "Content": "1"}, {"Role": "b", "Content": "2"}]
    assert go(text, {"System": "s", "Messages": messages}) == "[s]<2>."
    assert go(text, {"System": "", "Messages": []}) == "."


def test_a_default_system_prompt_becomes_the_modelfiles():
    template = ollama_template(*own(QWEN25))
    assert 'SYSTEM """You are Qwen."""' in modelfile("/m", template, system=None)
    given = modelfile("/m", template, system='You are "黄大力".')
    assert 'SYSTEM """You are "黄大力"."""' in given
    assert "Qwen" not in given
    assert "SYSTEM" not in modelfile("/m", template, system="")


def test_the_modelfile_has_everything_in_its_place():
    template = ollama_template(*own(CHAT_TEMPLATE))
    text = modelfile("/some where/merged", template, system=None, stops=["</s>", "<|im_end|>"])
    assert text.splitlines()[0] == "FROM /some where/merged"
    assert f'TEMPLATE """{template.text}"""\n' in text
    assert re.findall(r'PARAMETER stop "(.*)"', text) == ["<|im_end|>", "<|im_start|>", "</s>"]


@pytest.mark.parametrize("name", ["mistral", "gemma", "phi3_chat", "chatglm3"])
def test_a_template_of_another_family_is_refused_with_what_it_writes(name):
    with pytest.raises(ModelError, match=r"none of ChatML, Llama 3. It writes: '.*Be brief"):
        ollama_template(*own(template_text(name)))


def test_a_template_that_only_looks_like_chatml_is_refused():
    with pytest.raises(ModelError, match="none of ChatML"):
        ollama_template(*own(CHAT_TEMPLATE.replace("+ '<|im_end|>\n'", "+ '<|im_end|> \n'")))


def test_a_system_prompt_that_a_modelfile_cannot_hold_is_refused():
    with pytest.raises(SettingError, match="--system"):
        modelfile("/m", ollama_template(*own(CHAT_TEMPLATE)), system='Say """.')
