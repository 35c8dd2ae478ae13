from __future__ import annotations

from pathlib import Path

import pytest

from whoamai.config.reading import read_config
from whoamai.config.writing import write_config
from whoamai.convert.xtuner_config import config_from_xtuner
from whoamai.errors import SettingError

HEAD = """
import torch
from datasets import load_dataset
from mmengine.hooks import CheckpointHook, LoggerHook, ParamSchedulerHook
from mmengine.optim import AmpOptimWrapper, CosineAnnealingLR, LinearLR
from peft import LoraConfig
from torch.optim import AdamW
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from xtuner.dataset import process_hf_dataset
from xtuner.dataset.map_fns import template_map_fn_factory
from xtuner.engine.hooks import DatasetInfoHook, EvaluateChatHook
from xtuner.engine.runner import TrainLoop
from xtuner.model import SupervisedFinetune
from xtuner.utils import PROMPT_TEMPLATE, SYSTEM_TEMPLATE

base = "internlm/internlm2_5-7b-chat"
sequence_parallel_size = 1
accumulative_counts = 16
accumulative_counts *= sequence_parallel_size
max_epochs = 3
lr = 2e-4
warmup_ratio = 0.03
use_varlen_attn = False
"""
LORA = "dict(type=LoraConfig, r=32, lora_alpha=64, lora_dropout=0.1, bias='none', task_type='CAUSAL_LM')"
NF4 = (
    "quantization_config=dict(type=BitsAndBytesConfig, load_in_4bit=True, load_in_8bit=False, "
    "bnb_4bit_use_double_quant=True, bnb_4bit_quant_type='nf4')"
)
BODY = """
model = dict(
    type=SupervisedFinetune,
    llm=dict(type=AutoModelForCausalLM.from_pretrained, pretrained_model_name_or_path=base,
             trust_remote_code=True, torch_dtype=torch.float16, NF4),
    lora=LORA)
data = dict(
    type=process_hf_dataset,
    dataset=dict(type=load_dataset, path='json', data_files=dict(train='mine.jsonl')),
    max_length=1024, dataset_map_fn=None,
    template_map_fn=dict(type=template_map_fn_factory, template=PROMPT_TEMPLATE.internlm2_chat),
    pack_to_max_length=True, use_varlen_attn=use_varlen_attn)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=data)
optim_wrapper = dict(
    type=AmpOptimWrapper,
    optimizer=dict(type=AdamW, lr=lr, betas=(0.9, 0.95), weight_decay=0),
    clip_grad=dict(max_norm=1, error_if_nonfinite=False),
    accumulative_counts=accumulative_counts, loss_scale='dynamic', dtype='float16')
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-5, by_epoch=True, begin=0, end=warmup_ratio * max_epochs),
    dict(type=CosineAnnealingLR, eta_min=0.0, by_epoch=True, begin=warmup_ratio * max_epochs)]
train_cfg = dict(type=TrainLoop, max_epochs=max_epochs)
custom_hooks = [
    dict(type=DatasetInfoHook),
    dict(type=EvaluateChatHook, every_n_iters=500, evaluation_inputs=['你是谁', 'Who are you?'],
         system=SYSTEM_TEMPLATE.alpaca, prompt_template=PROMPT_TEMPLATE.internlm2_chat)]
default_hooks = dict(
    param_scheduler=dict(type=ParamSchedulerHook),
    logger=dict(type=LoggerHook, interval=10),
    checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=500, max_keep_ckpts=2))
visualizer = None
randomness = dict(seed=None, deterministic=False)
"""


def convert(folder: Path, *changes: tuple[str, str], quantized: bool = True, lora: str = LORA):
    text = HEAD + BODY.replace("NF4", NF4 if quantized else "").replace("LORA)", f"{lora})")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.py").write_text(text, "utf-8")
    return config_from_xtuner(folder / "mine.py")


def test_a_qlora_config_becomes_one_of_ours(tmp_path: Path):
    config, notes = convert(tmp_path)
    assert config.method == "qlora"
    assert config.model.pretrained_model_name_or_path == "internlm/internlm2_5-7b-chat"
    assert config.model.double_quantization
    assert config.data.files == ("mine.jsonl",)
    assert config.data.prompt_template == "internlm2_chat"
    assert (config.data.max_length, config.data.pack_to_max_length) == (1024, True)
    assert config.lora is not None
    assert (config.lora.r, config.lora.lora_alpha, config.lora.lora_dropout) == (32, 64, 0.1)
    assert config.lora.adapt_head, "XTuner adapts InternLM2's head"
    assert (config.train.batch_size, config.train.accumulative_counts) == (2, 16)
    assert (config.train.lr, config.train.betas, config.train.weight_decay) == (
        2e-4,
        (0.9, 0.95),
        0,
    )
    assert (config.train.max_epochs, config.train.warmup_ratio, config.train.max_norm) == (
        3,
        0.03,
        1,
    )
    assert (config.checkpoint.save_steps, config.checkpoint.save_total_limit) == (32, 2)
    assert config.evaluation.evaluation_inputs == ["你是谁", "Who are you?"]
    assert config.evaluation.evaluation_freq == 32
    assert config.evaluation.system is None
    assert config.log.interval == 10
    for told in (
        "float16",
        "trust_remote_code",
        "one device",
        "SYSTEM_TEMPLATE.alpaca",
        "500 iterat",
    ):
        assert any(told in note for note in notes), told


def test_what_was_converted_can_be_written_and_read_again(tmp_path: Path):
    config, _ = convert(tmp_path)
    write_config(config, tmp_path / "mine.yaml")
    assert read_config(tmp_path / "mine.yaml").config == config


def test_lora_and_full_training_are_told_apart(tmp_path: Path):
    assert convert(tmp_path, quantized=False)[0].method == "lora"
    assert convert(tmp_path, quantized=False, lora="None")[0].method == "full"


def test_a_head_called_lm_head_is_not_adapted_as_in_xtuner(tmp_path: Path):
    config, _ = convert(tmp_path, ("internlm/internlm2_5-7b-chat", "Qwen/Qwen2.5-7B-Instruct"))
    assert config.lora is not None
    assert not config.lora.adapt_head


def test_lora_s_own_defaults_hold_where_the_file_leaves_them_out(tmp_path: Path):
    config, _ = convert(tmp_path, lora="dict(type=LoraConfig, target_modules=['wqkv', 'output'])")
    assert config.lora is not None
    assert (config.lora.r, config.lora.lora_alpha, config.lora.lora_dropout) == (8, 8, 0)
    assert (config.lora.target_modules, config.lora.adapt_head) == (["wqkv"], True)


def test_sequence_parallelism_is_divided_out_again(tmp_path: Path):
    config, notes = convert(tmp_path, ("sequence_parallel_size = 1", "sequence_parallel_size = 4"))
    assert config.train.accumulative_counts == 16
    assert any("sequence_parallel_size" in note for note in notes)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("'json', data_files=dict(train='mine.jsonl')", "'tatsu-lab/alpaca'", "tatsu-lab/alpaca"),
        ("dataset_map_fn=None", "dataset_map_fn='my.map_fn'", "map_fn"),
        ("eta_min=0.0", "eta_min=1e-6", "eta_min"),
        ("type=AdamW", "type='bitsandbytes.optim.PagedAdamW32bit'", "PagedAdamW32bit"),
        ("dict(type=DatasetInfoHook)", "dict(type='my.Hook')", "Hook"),
        ("template=PROMPT_TEMPLATE.internlm2_chat)", "template=dict(SYSTEM='x'))", "chat template"),
        ("bias='none'", "modules_to_save=['norm']", "modules_to_save"),
        ("load_in_4bit=True, load_in_8bit=False", "load_in_8bit=True", "load_in_8bit"),
        ("by_epoch=False, interval=500", "by_epoch=True, interval=1", "epochs"),
        ("visualizer = None", "load_from = 'x.pth'", "load_from"),
        ("max_epochs=max_epochs)", "max_iters=1000)", "max_epochs"),
        ("visualizer = None", "for i in (1, 2):\n    pass", "line"),
    ],
)
def test_what_has_no_counterpart_is_told(tmp_path: Path, old: str, new: str, told: str):
    before = convert(tmp_path)[1]
    added = [note for note in convert(tmp_path, (old, new))[1] if note not in before]
    assert any(told in note for note in added)


def test_trackers_and_a_plain_system_prompt_are_taken_over(tmp_path: Path):
    backend = (
        "dict(type='X', vis_backends=[dict(type='mmengine.visualization.TensorboardVisBackend')])"
    )
    config, _ = convert(
        tmp_path,
        ("visualizer = None", f"visualizer = {backend}"),
        ("system=SYSTEM_TEMPLATE.alpaca", "system='你是小助手'"),
    )
    assert config.log.trackers == ["tensorboard"]
    assert config.evaluation.system == "你是小助手"


def test_several_data_sets_are_taken_together(tmp_path: Path):
    other = "dict(dataset=dict(path='json', data_files=['b.json']), max_length=512)"
    config, notes = convert(
        tmp_path, ("dataset=data)", f"dataset=dict(type='Concat', datasets=[data, {other}]))")
    )
    assert config.data.files == ("mine.jsonl", "b.json")
    assert any("max_length differs" in note for note in notes)


def test_a_needed_setting_that_cannot_be_worked_out_is_refused(tmp_path: Path):
    with pytest.raises(SettingError, match=r"optim_wrapper\.optimizer\.lr \(line") as caught:
        convert(tmp_path, ("lr = 2e-4", "lr = find_lr()"))
    assert "Write plain values" in str(caught.value)


def test_values_we_cannot_use_are_told_together_in_the_words_of_our_configs(tmp_path: Path):
    with pytest.raises(SettingError) as caught:
        convert(
            tmp_path,
            ("lr = 2e-4", "lr = 3.0"),
            ("max_length=1024", "max_length='many'"),
            ("betas=(0.9, 0.95)", "betas=(0.9, 2)"),
            ("dtype='float16')", "dtype='float8')"),
            ("every_n_iters=500", "every_n_iters=500, max_new_tokens=-1"),
        )
    told = str(caught.value)
    assert told.startswith(f"{tmp_path / 'mine.py'} has values that cannot be used here:\n")
    for part in (
        "train.lr: 3 is out of range: it must be above 0",
        'data.max_length: expected a whole number, found the text "many"',
        "train.betas: must both be at least 0",
        "model.dtype: float8 is none of its choices",
        "evaluation.max_new_tokens: -1 is out of range",
    ):
        assert part in told
    assert "Input should be" not in told


@pytest.mark.parametrize("kind", ["'xtuner.model.LLaVAModel'", "'xtuner.model.DPO'"])
def test_configs_of_other_kinds_are_refused(tmp_path: Path, kind: str):
    with pytest.raises(SettingError, match=kind.strip("'").rpartition(".")[2]):
        convert(tmp_path, ("type=SupervisedFinetune", f"type={kind}"))


def test_a_python_file_of_another_sort_is_refused(tmp_path: Path):
    (tmp_path / "x.py").write_text("print('hello')")
    with pytest.raises(SettingError, match="no config of the kind that is converted"):
        config_from_xtuner(tmp_path / "x.py")
