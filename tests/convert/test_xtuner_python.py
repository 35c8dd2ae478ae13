from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from whoamai.convert.python_values import Dotted, Unknown
from whoamai.convert.xtuner_python import parse_python_config, read_python_config
from whoamai.errors import SettingError


def values(text: str) -> dict[str, Any]:
    parsed = parse_python_config(dedent(text), "x.py")
    assert parsed.not_understood == ()
    return dict(parsed.values)


def test_literals_names_and_arithmetic_are_worked_out():
    found = values(
        """
        '''A docstring.'''
        lr = 2e-4
        sequence_parallel_size = 2
        accumulative_counts = 4
        accumulative_counts *= sequence_parallel_size
        warmup, (a, b) = 0.03 * 3, (1, -2)
        betas: tuple = (0.9, 0.999)
        half = accumulative_counts // 3 + 7 % 4 - 2 ** 3
        name = 'a' + 'b' * 2
        text = f'{name}_{a}'
        both = [*betas, 1][1:]
        big = 1 if lr < 1e-3 and not b == 2 else 2
        inside = 'a' in {'a': 1} or missing
        """
    )
    assert found["accumulative_counts"] == 8
    assert (found["warmup"], found["a"], found["b"]) == (0.09, 1, -2)
    assert found["half"] == 2 + 3 - 8
    assert found["text"] == "abb_1"
    assert found["both"] == [0.999, 1]
    assert found["big"] == 1
    assert found["inside"] is True


def test_imported_things_become_their_full_names():
    found = values(
        """
        import torch
        import os.path as osp
        from transformers import AutoModelForCausalLM as Auto
        from xtuner.utils import PROMPT_TEMPLATE
        prompt_template = PROMPT_TEMPLATE.internlm2_chat
        dtype = torch.float16
        same = PROMPT_TEMPLATE['internlm2_chat']
        llm = dict(type=Auto.from_pretrained, torch_dtype=dtype)
        path = osp.join('data', 'x.json')
        """
    )
    assert found["prompt_template"] == "xtuner.utils.PROMPT_TEMPLATE.internlm2_chat"
    assert found["same"] == found["prompt_template"]
    assert isinstance(found["dtype"], Dotted)
    assert found["llm"]["type"] == "transformers.AutoModelForCausalLM.from_pretrained"
    assert found["path"] == "data/x.json"
    assert "torch" not in found


def test_branches_are_taken_by_known_values():
    found = values(
        """
        use_varlen_attn = True
        hooks = [dict(type='A')]
        if use_varlen_attn:
            hooks += [dict(type='B')]
        elif missing:
            hooks = None
        else:
            hooks.append(missing)
        """
    )
    assert [hook["type"] for hook in found["hooks"]] == ["A", "B"]


def test_dicts_and_lists_are_changed_in_place():
    found = values(
        """
        model = dict(lora=dict(r=64), **{'x': 1})
        model['lora']['r'] = 8
        model['lora'].update(lora_alpha=16)
        files = ['a']
        files.append('b')
        files.extend(['c'])
        n = len(files) + max(1, 2) + int('3')
        model.pop('x')
        r = model.get('lora')['r']
        del n
        """
    )
    assert found["model"] == {"lora": {"r": 8, "lora_alpha": 16}}
    assert found["files"] == ["a", "b", "c"]
    assert found["r"] == 8
    assert "n" not in found


def test_what_is_not_understood_is_told_with_its_line_and_nothing_is_run(tmp_path: Path):
    text = f"""\
import os
lr = 1e-4
os.system('touch {tmp_path / "touched"}')
epochs = int(os.environ['EPOCHS'])
for i in range(3):
    lr = lr * 2
def f():
    return 1
model = dict(r=f(), alpha=16)
twice = epochs * 2
"""
    (tmp_path / "x.py").write_text(text)
    parsed = read_python_config(tmp_path / "x.py")
    assert not (tmp_path / "touched").exists()
    assert [one.line for one in parsed.not_understood] == [3, 4, 5, 7, 9, 10]
    assert "os.system" in str(parsed.not_understood[0])
    assert isinstance(parsed.values["epochs"], Unknown)
    assert isinstance(parsed.values["lr"], Unknown), "a loop changes it"
    assert isinstance(parsed.values["twice"], Unknown)
    assert parsed.values["model"]["alpha"] == 16
    assert isinstance(parsed.values["model"]["r"], Unknown)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "x = ().__class__.__bases__",
        "x = dict.__subclasses__()",
        "x = eval('1')",
        "x = [i for i in (1, 2)]",
        "x = (lambda: 1)()",
        "x = open('x').read()",
        "x = '{0}'.format(1)",
        "x = '%s' % 'a'",
        "with read_base():\n    from .other import *",
        "from .other import *",
        "x = 9 ** 9 ** 9",
        "x = 'a' * 10 ** 9",
        "x = [0] * 10 ** 9",
        "x = 10 ** 60 * 10 ** 60 * 10 ** 60",
        "x = 1 << 10 ** 9",
        "x = 1 / 0",
        "x = {}['a']",
    ],
)
def test_what_could_do_harm_or_is_wrong_is_passed_over(text: str):
    assert len(parse_python_config(text, "x.py").not_understood) >= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr = = 3", "line 1 is no Python"),
        ("lr = 1\n  x = 2", "line 2 is no Python"),
        ("x = '\x00'", "x.py"),
        ("x = " + "(" * 5000 + ")" * 5000, "x.py"),
        ("x = " + "-" * 20000 + "1", "x.py"),
    ],
)
def test_a_file_that_is_no_python_is_told_with_its_line(text: str, expected: str):
    with pytest.raises(SettingError, match=expected):
        parse_python_config(text, "x.py")


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(SettingError, match=r"nothing\.py cannot be read"):
        read_python_config(tmp_path / "nothing.py")
