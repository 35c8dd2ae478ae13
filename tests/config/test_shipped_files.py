"""The configs that come along: read, commented in both languages, true to the models they name."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers

import whoamai
from whoamai.config.reading import read_config
from whoamai.config.schema import RunConfig
from whoamai.plan.architecture import Architecture, architecture_of, lora_parameters

FOLDER = Path(whoamai.__file__).parent / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))
_CHINESE = re.compile("[\u4e00-\u9fff]")
# A setting that is offered, to be used without its #.
_SETTING = re.compile(r"# ([a-z]+_[a-z_]+: [a-z0-9.]+)")
# InternLM2 is Llama with query, key and value in one layer; it has no class in transformers.
_INTERNLM2_NAMES = {
    "o_proj": "wo",
    "gate_proj": "w1",
    "up_proj": "w3",
    "down_proj": "w2",
    "lm_head": "output",
}


def by_file(function):
    return pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)(function)


def config_of(file: Path) -> RunConfig:
    return read_config(file).config


def comments(file: Path) -> list[str]:
    lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    sentences = [line for line in lines if line.startswith("#") and not _SETTING.fullmatch(line)]
    return [line.removeprefix("#").strip() for line in sentences]


def model_on_meta(arch: Architecture) -> torch.nn.Module:
    """The class that the config's model has in transformers, of these sizes, without memory."""
    kind = "llama" if arch.model_type == "internlm2" else arch.model_type
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=arch.vocab,
        hidden_size=arch.hidden,
        intermediate_size=arch.intermediate,
        num_hidden_layers=arch.layers,
        num_attention_heads=arch.heads,
        num_key_value_heads=arch.kv_heads,
        head_dim=arch.head_dim,
        tie_word_embeddings=arch.tied,
    )
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def linear_sizes(model: torch.nn.Module) -> Counter[tuple[str, int, int]]:
    """How many linear layers of each (name, in, out)."""
    return Counter(
        (name.rpartition(".")[2], layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
    )


def test_there_are_about_a_dozen():
    assert 10 <= len(FILES) <= 14


@by_file
def test_a_shipped_config_is_read_and_named_as_its_file(file: Path):
    loaded = read_config(file.stem)
    assert loaded.name == file.stem
    assert loaded.config.data.files


@by_file
def test_the_first_two_lines_say_in_both_languages_what_it_is(file: Path):
    zh, en = file.read_text("utf-8").splitlines()[:2]
    assert zh.startswith("# zh: ")
    assert _CHINESE.search(zh)
    assert en.startswith("# en: ")
    assert not _CHINESE.search(en)


@by_file
def test_every_comment_stands_in_chinese_and_then_in_english(file: Path):
    lines = [line for line in comments(file) if line]
    assert len(lines) % 2 == 0
    for zh, en in zip(lines[::2], lines[1::2], strict=True):
        assert _CHINESE.search(zh), zh
        english = en.replace("尖米", "")  # the name in the seed's data
        assert not _CHINESE.search(english), en


@by_file
def test_a_comment_of_the_step_size_gives_the_size_that_it_has(file: Path):
    config = config_of(file)
    counted = config.train.rows_or_packs
    text = file.read_text("utf-8")
    if config.data.pack_to_max_length:
        assert f"= {config.data.max_length * counted:,} " in text
    else:
        assert f"one step is {counted} rows" in text


@by_file
def test_the_factor_of_the_adapter_is_commented_as_it_is(file: Path):
    lora = config_of(file).lora
    if lora is not None:
        factor = f"{lora.lora_alpha:g} / {lora.r} = {lora.lora_alpha / lora.r:g}"
        assert file.read_text("utf-8").count(factor) == 2  # in both languages


@by_file
def test_its_model_is_in_the_shipped_table_or_comes_along(file: Path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    source = config_of(file).model.pretrained_model_name_or_path
    assert architecture_of(source).n_parameters > 1_000_000


@by_file
def test_its_linear_layers_and_parameters_are_those_of_the_model_class(file: Path):
    arch = architecture_of(config_of(file).model.pretrained_model_name_or_path)
    model = model_on_meta(arch)
    assert sum(p.numel() for p in model.parameters()) == arch.n_parameters
    expected = Counter({(x.name, x.n_in, x.n_out): x.count for x in arch.linears})
    found = linear_sizes(model)
    if arch.model_type == "internlm2":
        found = as_internlm2(found)
    head = (arch.head.name, arch.head.n_in, arch.head.n_out)
    expected.pop(head, None)
    found.pop(head, None)  # whether a tied head counts among the linear layers is not asked here
    assert found == expected


def as_internlm2(llama: Counter[tuple[str, int, int]]) -> Counter[tuple[str, int, int]]:
    """Llama's layers by InternLM2's names; query, key and value become one layer."""
    sizes = {name: (n_in, n_out, count) for (name, n_in, n_out), count in llama.items()}
    n_in, _, count = sizes["q_proj"]
    together = sum(sizes.pop(name)[1] for name in ("q_proj", "k_proj", "v_proj"))
    rest = {(_INTERNLM2_NAMES[n], *size): count for n, (*size, count) in sizes.items()}
    return Counter({("wqkv", n_in, together): count, **rest})


@by_file
def test_its_adapter_has_its_layers_and_numbers_in_the_model_class(file: Path):
    config = config_of(file)
    if config.lora is None:
        pytest.skip("every weight is trained")
    arch = architecture_of(config.model.pretrained_model_name_or_path)
    parts = lora_parameters(arch, config.lora)
    names = {linear.name for linear, _ in parts}
    assert (arch.head.name in names) == config.lora.adapt_head
    found = linear_sizes(model_on_meta(arch))
    if arch.model_type == "internlm2":
        found = as_internlm2(found)
    expected = sum(
        config.lora.r * (n_in + n_out) * count
        for (name, n_in, n_out), count in found.items()
        if name in names
    )
    assert sum(trained for _, trained in parts) == expected


@by_file
def test_a_setting_that_is_offered_in_a_comment_can_be_used(file: Path, tmp_path: Path):
    text, n = re.subn(rf"^( +){_SETTING.pattern}$", r"\1\2", file.read_text("utf-8"), flags=re.M)
    copy = tmp_path / "copy.yaml"
    copy.write_text(text, "utf-8")
    config = read_config(copy, ["data.name=黄大力"]).config
    # To end once a name is learned takes a name, and an adapter of which the best can be kept.
    ends = "identity" in file.stem and config.lora is not None
    assert (n, config.evaluation.stop_when_learned) == (int(ends), ends)
    assert config.model_dump(exclude={"evaluation", "data"}) == config_of(file).model_dump(
        exclude={"evaluation", "data"}
    )


def test_the_alpaca_config_has_the_values_of_xtuner_0_1_23():
    config = config_of(FOLDER / "internlm2_5_chat_7b_qlora_alpaca_e3.yaml")
    assert config.model.pretrained_model_name_or_path == "internlm/internlm2_5-7b-chat"
    assert (config.model.quantization, config.model.double_quantization) == ("nf4", True)
    assert config.data.prompt_template == "internlm2_chat"
    assert (config.data.max_length, config.data.pack_to_max_length) == (2048, True)
    assert config.lora is not None
    assert (config.lora.r, config.lora.lora_alpha, config.lora.lora_dropout) == (64, 16, 0.1)
    assert config.lora.adapt_head
    train = config.train
    assert (train.batch_size, train.accumulative_counts, train.max_epochs) == (1, 1, 3)
    assert (train.lr, train.betas, train.weight_decay) == (2e-4, (0.9, 0.999), 0)
    assert (train.max_norm, train.warmup_ratio) == (1, 0.03)
    assert (config.checkpoint.save_steps, config.checkpoint.save_total_limit) == (500, 2)
    assert config.evaluation.evaluation_freq == 500
    assert config.evaluation.evaluation_inputs == [
        "请给我介绍五个上海的景点",
        "Please tell me five scenic spots in Shanghai",
    ]


def test_the_identity_config_differs_from_it_in_data_and_questions_only():
    alpaca = config_of(FOLDER / "internlm2_5_chat_7b_qlora_alpaca_e3.yaml").model_dump()
    identity = config_of(FOLDER / "internlm2_5_chat_7b_qlora_identity_e3.yaml").model_dump()
    different = {
        f"{section}.{name}"
        for section, settings in alpaca.items()
        if isinstance(settings, dict)
        for name in settings
        if settings[name] != identity[section][name]
    }
    assert different == {"data.data_path", "evaluation.evaluation_inputs", "evaluation.system"}


def test_questions_of_the_identity_configs_are_none_of_the_generated_ones():
    from whoamai.data.identity import Identity, training_conversations

    made = training_conversations(
        Identity("黄大力", "力量工作室"), languages=("zh", "en"), rows=3000, seed=0
    )
    asked = {m.text.rstrip("?？。.!！") for c in made for m in c.messages if m.role == "user"}
    for file in FILES:
        if config_of(file).data.data_path == "data/my_identity.jsonl":
            questions = config_of(file).evaluation.evaluation_inputs
            assert questions
            assert not asked & set(questions)
