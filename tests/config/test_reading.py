"""From a YAML file and overrides to a config; and every way in which that can fail, told at once."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.config.wrong_configs import ALL, GOOD, Wrong
from whoamai.config import RunConfig
from whoamai.config.reading import LoadedConfig, read_config
from whoamai.errors import ConfigError, SettingError
from whoamai.messages import use_language


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str | bytes, *overrides: str) -> RunConfig:
    file = Path("config.yaml")
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return read_config(file, overrides).config


def told(text: str | bytes, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as failed:
        read(text, *overrides)
    return failed.value


# What the schema says of several values together names the way out itself.
CURE_IS_IN_THE_TEXT = {
    "checkpoint.save_total_limit",
    "evaluation.stop_when_learned",
    "lora.target_modules",
    "model.quantization",
    "train.betas",
    "train.sequence_parallel_size",
    "train.tokens_per_pass",
}

# ---- wrong configs -------------------------------------------------------------------------------


def test_there_are_more_than_60_wrong_configs_with_different_names():
    assert len({one.name for one in ALL}) == len(ALL) > 60


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_wrong_config_is_told_all_its_problems_with_lines_and_cures(one: Wrong):
    error = told(one.text, *one.overrides)
    left = list(error.problems)
    for where, *parts in one.problems:
        found = next((p for p in left if _fits(p, where, parts)), None)
        assert found, f"{where}: {parts} in none of\n{error}"
        left.remove(found)
    assert left == [], f"told without need:\n{error}"


def _fits(problem, where: int | str, parts: list[str]) -> bool:
    at = problem.place.line if isinstance(where, int) else problem.place.text
    return at == where and all(part in str(problem) for part in parts)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_problem_has_a_place_a_cure_and_no_words_of_a_library(one: Wrong, language: str):
    with use_language(language):
        error = told(one.text, *one.overrides)
    for problem in error.problems:
        assert problem.place.line or problem.place.text in one.overrides
        assert problem.cure or problem.key in CURE_IS_IN_THE_TEXT
        assert str(problem).startswith(str(problem.place))
    for word in ("Input should be", "pydantic", "Traceback", "unicode string", "mapping"):
        assert word not in str(error)
    assert re.findall(r"(?<!\{)\{[a-z]+\}", str(error)) == []  # nothing was left to be filled in


def test_problems_are_told_in_chinese():
    with use_language("zh"):
        error = told(GOOD + "train:\n  lrr: 1\n  lora：3\n")
    assert "没有这个设置" in str(error)
    assert "中文冒号" in str(error)


def test_one_problem_is_one_line():
    assert str(told("")).count("\n") == 0


def test_several_problems_begin_with_their_number():
    error = told(GOOD + "train:\n  lr: x\n  sed: 1\n")
    head, *rest = str(error).splitlines()
    assert head == "config.yaml has 2 problems:"
    assert [line.partition(": ")[0].strip() for line in rest] == ["config.yaml:4", "config.yaml:5"]


def test_a_file_that_is_wrong_throughout_does_not_flood_the_screen():
    error = told(GOOD + "".join(f"x{n}: 1\n" for n in range(500)))
    assert len(error.problems) == 500
    assert len(str(error).splitlines()) < 50
    assert "and 460 more" in str(error)


def test_what_cannot_be_printed_is_not_in_the_message():
    error = told(GOOD + 'train:\n  "l\\e[31mr": 1\n  lr: "\\e[31mred\\nnext"\n', "train.x=\x1b[31m")
    assert "\x1b" not in str(error)
    assert len(str(error).splitlines()) == 4


@pytest.mark.parametrize(
    "text",
    [
        "allow: " + "[" * 100_000,
        "allow: " + "[a," * 60_000,
        "{" * 100_000,
        "- " * 100_000,
        "a: &a [x]\n" + "".join(f"k{n}: &k{n} [*a,*a,*a,*a]\n" for n in range(1000)),
        "x: " + "1" * 200_000,
        'x: "' + "\\" * 100_001,
        "? " * 50_000,
        "x:\n\t\n" * 20_000,
        "x: [\n" * 20_000,
        "\x07\n" * 50_000,
    ],
    ids=range(11),
)
def test_a_file_made_to_keep_us_busy_is_refused_in_time(text: str):
    start = time.perf_counter()
    told(text)
    assert time.perf_counter() - start < 10


# ---- right configs -------------------------------------------------------------------------------


def test_a_file_with_data_alone_has_the_defaults():
    config = read(GOOD)
    assert config.data.files == ("a.jsonl",)
    assert config.train == RunConfig().train
    assert config.lora == RunConfig().lora


def test_numbers_are_read_as_yaml_1_2_reads_them():
    text = (
        "train:\n  lr: 2e-4\n  seed: 010\n  max_norm: 1\n  batch_size: 0x10\n  weight_decay: .5\n"
    )
    train = read(GOOD + text).train
    assert (train.lr, train.seed, train.max_norm) == (0.0002, 10, 1.0)
    assert (train.batch_size, train.weight_decay) == (16, 0.5)


@pytest.mark.parametrize(
    "text", ["on", "off", "yes", "no", "2024-01-01", "1:30", "1_000", "=", "0o9"]
)
def test_a_word_stays_the_text_that_it_is(text: str):
    assert read(f"data:\n  data_path: a\n  name: {text}\n").data.name == text


@pytest.mark.parametrize("text", ["~", "null", ""])
def test_null_is_nothing_where_nothing_is_allowed(text: str):
    assert read(f"data:\n  data_path: a\n  name: {text}\n").data.name is None


def test_none_in_words_is_a_choice_and_not_null():
    assert read(GOOD + "model:\n  quantization: none\n").model.quantization == "none"


def test_data_can_be_a_list_in_either_form():
    assert read("data: {data_path: [a, b]}").data.files == ("a", "b")
    assert read("data:\n  data_path:\n  - a\n  - b\n").data.files == ("a", "b")


def test_lora_null_trains_every_weight_and_an_empty_section_has_its_defaults():
    assert read(GOOD + "lora: null\n").method == "full"
    assert read(GOOD + "lora:\n").lora is None
    assert read(GOOD + "lora: {}\n").lora == RunConfig().lora


def test_a_byte_order_mark_and_windows_line_ends_are_accepted():
    text = (GOOD + "train:\n  sed: 1\n").replace("\n", "\r\n")
    assert told(b"\xef\xbb\xbf" + text.encode()).problems[0].place.line == 4
    assert read(b"\xef\xbb\xbf" + GOOD.encode()).data.files == ("a.jsonl",)


def test_one_line_of_three_dashes_at_the_top_is_accepted():
    assert read("---\n" + GOOD).data.files == ("a.jsonl",)


def test_texts_of_several_lines_are_kept():
    config = read("data:\n  data_path: a\n  system: |\n    一\n    \t二: 三\n")
    assert config.data.system == "一\n\t二: 三\n"


# ---- overrides -----------------------------------------------------------------------------------


def test_overrides_go_before_the_file_and_the_file_before_the_defaults():
    config = read(GOOD + "train:\n  lr: 1e-3\n  seed: 5\n", "train.lr=1e-5", "lora.r=8")
    assert (config.train.lr, config.train.seed, config.train.max_epochs) == (1e-5, 5, 3)
    assert config.lora
    assert config.lora.r == 8


def test_of_two_overrides_of_a_setting_the_last_one_counts():
    assert read(GOOD, "train.seed=1", "train.seed=2").train.seed == 2


def test_an_override_mends_a_wrong_value_of_the_file():
    assert read(GOOD + "train:\n  lr: x\n", "train.lr=1e-3").train.lr == 1e-3


def test_an_override_gives_data_to_a_file_without():
    assert read("", "data.data_path=[a.jsonl,b.jsonl]").data.files == ("a.jsonl", "b.jsonl")


@pytest.mark.parametrize(
    "text", ["*.jsonl", "a#5", "a #5", "x: y", "@x", "a=b", "你好：", "-a", "%x", "&x"]
)
def test_text_in_an_override_is_taken_as_it_stands(text: str):
    assert read(GOOD, f"data.name={text}").data.name == text


@pytest.mark.parametrize(
    ("text", "value"), [('"12"', "12"), ("'a: b'", "a: b"), ("null", None), ("", None)]
)
def test_quotes_and_null_in_an_override_are_those_of_the_file(text: str, value: str | None):
    assert read(GOOD, f"data.name={text}").data.name == value


def test_lora_null_takes_the_adapter_away_and_lora_r_brings_it_back():
    assert read(GOOD + "lora:\n  r: 8\n", "lora=null").lora is None
    config = read(GOOD + "lora: null\n", "lora.r=8")
    assert config.lora
    assert config.lora.r == 8
    assert read(GOOD, "lora.r=8", "lora=null").lora is None


def test_settings_outside_sections_are_overridden_by_their_name():
    assert read(GOOD, "work_dir=x y", "allow=[few-steps]").allow == ["few-steps"]


def test_bytes_of_the_shell_that_are_not_utf_8_are_refused():
    error = told(GOOD, "data.name=a\udcff")
    assert "not written in UTF-8" in str(error)
    str(error).encode("utf-8")


# ---- which file ----------------------------------------------------------------------------------


def loaded(source: str | Path, *overrides: str) -> LoadedConfig:
    return read_config(source, overrides)


def test_a_config_is_named_after_its_file_and_so_is_the_work_folder():
    Path("my.run.yaml").write_text(GOOD)
    one = loaded("my.run.yaml")
    assert (one.name, one.path, one.work_dir) == (
        "my.run",
        Path("my.run.yaml"),
        Path("work_dirs/my.run"),
    )


def test_work_dir_goes_before_the_name():
    Path("a.yaml").write_text(GOOD)
    assert loaded("a.yaml", "work_dir=there").work_dir == Path("there")


@pytest.mark.parametrize("name", ["mine", "mine.yaml"])
def test_a_config_that_comes_along_is_found_by_its_name(name: str, shipped_folder: Path):
    (shipped_folder / "mine.yaml").write_text(GOOD)
    one = loaded(name)
    assert (one.name, one.path.parent) == ("mine", shipped_folder)


def test_a_file_here_goes_before_one_that_comes_along(shipped_folder: Path):
    (shipped_folder / "mine.yaml").write_text(GOOD)
    Path("mine.yaml").write_text(GOOD + "train: {seed: 4}\n")
    assert loaded("mine.yaml").config.train.seed == 4


def refused(source: str | Path) -> str:
    with pytest.raises(SettingError) as failed:
        read_config(source)
    return str(failed.value)


def test_an_unknown_name_is_told_the_nearest_ones(shipped_folder: Path):
    (shipped_folder / "qwen_qlora.yaml").write_text(GOOD)
    Path("qwen_lora_copy.yaml").write_text(GOOD)
    message = refused("qwen_qlra")
    assert "qwen_qlora" in message
    assert "whoamai list-cfg" in message
    assert "qwen_lora_copy.yaml" in refused("qwen_lora_cpy.yaml")


def test_a_python_file_of_xtuner_is_told_how_to_convert_it():
    assert "whoamai convert xtuner_config" in refused("internlm2_5_chat_7b_qlora_alpaca_e3.py")


def test_a_folder_a_device_and_nothing_are_refused():
    Path("folder").mkdir()
    Path("folder/a.yaml").write_text(GOOD)
    assert "folder/a.yaml" in refused("folder")
    assert "not a file" in refused("/dev/null")
    assert "No config is given" in refused("  ")
    assert "no such file" in refused("a\0b")
    assert "no such file" in refused("x" * 5000)


def test_a_file_that_may_not_be_read_is_told_with_the_reason(monkeypatch):
    Path("a.yaml").write_text(GOOD)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    assert refused("a.yaml") == "a.yaml cannot be read: Permission denied"


# ---- whatever stands in the file -----------------------------------------------------------------

VALID = """\
# a comment
model:
  pretrained_model_name_or_path: internlm/internlm2_5-7b-chat
  quantization: nf4
data:
  data_path: [a.jsonl, "b.jsonl#500"]
  system: |
    你是{{name}}。
  old_names:
    - 尖米
lora:
  r: 64
train:
  lr: 2e-4
  betas: [0.9, 0.999]
evaluation:
  evaluation_inputs:
    - '你是谁: 你好'
work_dir: null
"""
PIECES = [
    *":{}[]&*!|>%@`\"'#-?,\n\t \x07\ud83d：",
    ": ",
    "- ",
    "\n  ",
    "<<: ",
    "*a",
    "&a ",
    "null",
    "1e9",
]
PIECES += [
    "...",
    "---",
    "\\U",
    "\\x",
    "%YAML 1.",
    "\u2028",
    "\x85",
    "\ufeff",
    "!!",
    "0x",
    "9" * 5000,
    "\r",
]


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_a_config_changed_at_random_is_read_or_told_why_not(seed: int, changes: int):
    draw = random.Random(seed)
    text = list(VALID)
    for _ in range(changes):
        at = draw.randrange(len(text))
        text[at : at + draw.choice((0, 0, 1, 1, 5, 40))] = draw.choice(PIECES)
    raw = "".join(text).encode("utf-8", "surrogatepass")
    _read_or_told(raw)


@given(st.text(st.sampled_from("ab:,[]{}&*!|>%@`\"'#-? \n\t\\x0.e~<=")))
@example("%YAML 9.9.9\n---")
@example('"\\U00110000"')
def test_any_text_is_read_or_told_why_not(text: str):
    _read_or_told(text.encode())


@given(st.binary())
def test_any_bytes_are_read_or_told_why_not(raw: bytes):
    _read_or_told(raw)


@given(st.text())
def test_any_override_is_read_or_told_why_not(text: str):
    for override in (text, f"data.name={text}", f"train.lr={text}", f"data.data_path=[{text}"):
        _read_or_told(GOOD.encode(), override)


def _read_or_told(raw: bytes, *overrides: str) -> None:
    file = Path("any.yaml")
    file.write_bytes(raw)
    try:
        assert isinstance(read_config(file, overrides).config, RunConfig)
        return
    except ConfigError as failed:
        error = failed
    assert error.problems
    str(error).encode("utf-8")
    line_ends = sum(raw.decode("utf-8", "replace").count(c) for c in "\n\r\x85\u2028\u2029")
    assert all(1 <= (problem.place.line or 1) <= line_ends + 1 for problem in error.problems)
