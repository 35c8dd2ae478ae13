"""InternLM2 from its hub-shaped folder to what others load: renamed, trained, merged, read plainly.

The model has random weights and cannot talk, but it can learn one sentence by heart; whether that
survives every step is what is looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.convert.xtuner_configs import LORA, write_xtuner_config
from tests.convert.xtuner_files import real_files
from tests.models import save_internlm2
from whoamai.cli import app
from whoamai.data.identity import Identity
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Note
from whoamai.model.load import ChatModel, load_chat_model
from whoamai.recipes.merge import Merged, MergeRequest, merge
from whoamai.recipes.rename import RenameRequest, rename
from whoamai.samples import Conversation, Message

pytestmark = pytest.mark.e2e

QUESTION, REPLY = "你是谁？", "我是小初，由初心实验室开发的助手。"
IDS = [[1, 262, 300, 301, 302, 310, 320, 330, 333, 340]]


def run(*arguments: object) -> str:
    """The output of a command that must succeed."""
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "internlm2"
    return save_internlm2(
        folder,
        hidden_size=64,
        intermediate_size=128,
        max_position_embeddings=2048,
        initializer_range=0.1,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(base: Path, work: Path) -> Path:
    """The adapter that `whoamai train` makes by a config of XTuner's."""
    rows = work / "rows.jsonl"
    talk = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": REPLY}]
    other = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "who are you"}]
    lines = [json.dumps({"messages": turns}) for turns in (talk, other)] * 12
    rows.write_text("\n".join(lines), "utf-8")
    lora = LORA.format(r=16, alpha=32)
    config = write_xtuner_config(work / "mine.py", base, rows, lora=lora, epochs=12)
    allowed = [f"--allow={kind}" for kind in ("few-steps", "duplicate-row")]
    run("train", config, "--work-dir", work / "run", "model.device=cpu", "--quiet", *allowed)
    return work / "run" / "adapter"


@pytest.fixture(scope="module")
def merged(base: Path, trained: Path, work: Path) -> Path:
    output = run("convert", "merge", base, trained, work / "merged", "--device", "cpu")
    assert "Same answers as with the adapter" in output
    return work / "merged"


def answer(chat: ChatModel) -> str:
    talk = Talk(chat, Events(), template_name="internlm2_chat")
    return talk.answers([Conversation((Message("user", QUESTION),))], None)[0]


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor(IDS)).logits


# ---- trained, merged, loaded again ---------------------------------------------------------------


def test_what_was_learned_is_said_by_the_merged_model_loaded_alone(base: Path, merged: Path):
    assert answer(load_chat_model(str(base), device="cpu")) != REPLY
    assert answer(load_chat_model(str(merged), device="cpu")) == REPLY


def test_the_merged_folder_has_what_the_base_has_and_asks_for_no_tokenizer_of_ours(
    base: Path, merged: Path
):
    names = {p.name for p in merged.iterdir()}
    assert names >= {p.name for p in base.iterdir()} - {"model.safetensors"}
    settings = json.loads((merged / "tokenizer_config.json").read_text("utf-8"))
    assert "<|im_start|>" in settings["chat_template"], "the base had none"


_PLAIN = """
import sys
import numpy as np, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, ids, question, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
asked = tokenizer.apply_chat_template(
    [{"role": "user", "content": question}],
    add_generation_prompt=True, return_tensors="pt", return_dict=True,
)
reply = model.generate(**asked, max_new_tokens=60, do_sample=False)
print(tokenizer.decode(reply[0, asked["input_ids"].shape[1]:], skip_special_tokens=True))
print(type(model).__name__)
with torch.inference_mode():
    np.save(out, model(input_ids=torch.tensor(eval(ids))).logits.numpy())
assert not any(name.split(".")[0] == "whoamai" for name in sys.modules)
"""


def test_the_llama_form_is_loaded_by_plain_transformers_and_computes_the_same(
    base: Path, trained: Path, merged: Path, work: Path, tmp_path: Path
):
    run("convert", "merge", base, trained, work / "llama", "--device", "cpu", "--as-llama")
    saved = tmp_path / "logits.npy"
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN, str(work / "llama"), str(IDS), QUESTION, str(saved)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [REPLY, "LlamaForCausalLM"]
    wanted = logits(load_chat_model(str(merged), device="cpu").model)
    torch.testing.assert_close(torch.from_numpy(np.load(saved)), wanted, atol=1e-4, rtol=1e-5)


def test_a_merged_model_becomes_the_same_llama_afterwards(merged: Path, tmp_path: Path):
    run("convert", "merge", merged, "-", tmp_path / "llama", "--device", "cpu", "--as-llama")
    run("convert", "ollama", merged, tmp_path / "ollama", "--name", "chu")
    one = load_chat_model(str(tmp_path / "llama"), device="cpu")
    two = load_chat_model(str(tmp_path / "ollama" / "model"), device="cpu")
    assert torch.equal(logits(one.model), logits(two.model))
    assert answer(one) == REPLY


# ---- renamed -------------------------------------------------------------------------------------


def test_a_renaming_s_adapter_is_merged_and_asked_who_it_is(base: Path, tmp_path: Path):
    out = tmp_path / "renamed"
    request = RenameRequest(
        Identity("黄大力"),
        model=str(base),
        rows=24,
        replay_ratio=0.25,
        languages=("zh",),
        out=out,
        device="cpu",
    )
    renamed = rename(request, Events())
    notes: list[str] = []
    events = Events([lambda e: notes.append(e.text) if isinstance(e, Note) else None])
    done: Merged = merge(
        MergeRequest(str(base), renamed.adapter, tmp_path / "merged", device="cpu"), events
    )
    assert done.checked is not None
    assert done.checked.difference < done.checked.change / 100
    assert done.checked.asked, "the questions of the report"
    assert any("Asked who it is" in note for note in notes)


# ---- XTuner's own files --------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", ["plain/iter_17.pth", "zero2_bf16_world2/iter_9.pth"])
def test_what_xtuner_left_becomes_a_model_one_can_talk_to(tmp_path: Path, checkpoint: str):
    real = real_files()
    output = run("convert", "pth_to_hf", real / checkpoint, tmp_path / "hf")
    assert "42 tensors in float16" in output
    output = run(
        "convert", "merge", real / "base", tmp_path / "hf", tmp_path / "merged", "--device", "cpu"
    )
    assert "Same answers as with the adapter" in output
    assert "chat template" not in output, "the base's own writes what internlm2_chat does"
    chat = load_chat_model(str(tmp_path / "merged"), device="cpu")
    assert answer(chat), "two layers of noise say something"
    assert answer(chat) != answer(load_chat_model(str(real / "base"), device="cpu"))
