from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.convert.test_xtuner_config import convert as write_xtuner_config
from tests.convert.xtuner_files import adapter_state, config_text, save_pth
from whoamai.cli_convert import convert_app
from whoamai.config.reading import read_config
from whoamai.errors import OutputError, SettingError

runner = CliRunner()


def run(*arguments: object):
    result = runner.invoke(convert_app, [str(one) for one in arguments], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_checkpoint_is_converted_with_and_without_its_config(tmp_path: Path):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text())
    result = run("pth_to_hf", path, tmp_path / "hf")
    assert "8 tensors in float16" in result.output
    assert "whoamai convert merge models/tiny-internlm2" in result.output, "as of the hub"
    (tmp_path / "x.py").write_text(config_text())
    result = run("pth_to_hf", tmp_path / "x.py", path, tmp_path / "hf32", "--fp32", "--bin")
    assert "8 tensors in float32" in result.output
    assert (tmp_path / "hf32" / "adapter_model.bin").is_file()


@pytest.mark.parametrize("arguments", [("a",), ("a", "b", "c", "d")])
def test_too_few_or_too_many_arguments_are_told(arguments: tuple[str, ...]):
    with pytest.raises(SettingError, match=r"\[CONFIG\] PTH OUT"):
        run("pth_to_hf", *arguments)


def test_an_xtuner_config_is_written_as_one_of_ours_and_what_differs_is_listed(tmp_path: Path):
    expected, notes = write_xtuner_config(tmp_path)
    result = run("xtuner_config", tmp_path / "mine.py", tmp_path / "mine.yaml")
    assert read_config(tmp_path / "mine.yaml").config == expected
    assert all(note in result.output for note in notes)
    with pytest.raises(OutputError, match="exists already"):
        run("xtuner_config", tmp_path / "mine.py", tmp_path / "mine.yaml")
    run("xtuner_config", tmp_path / "mine.py", tmp_path / "mine.yaml", "--overwrite")


def test_a_config_is_written_to_yaml_files_only(tmp_path: Path):
    write_xtuner_config(tmp_path)
    with pytest.raises(SettingError, match="YAML"):
        run("xtuner_config", tmp_path / "mine.py", tmp_path / "mine.py")


def test_a_config_of_ours_needs_no_conversion(tmp_path: Path):
    with pytest.raises(SettingError, match="needs no conversion"):
        run("xtuner_config", tmp_path / "mine.yaml", tmp_path / "other.yaml")


@pytest.mark.parametrize(
    ("base", "named", "explained"),
    [
        ("internlm/internlm2_5-7b-chat", True, False),
        ("models/gone/internlm2", False, True),
        (".", True, False),
    ],
)
def test_the_next_command_names_the_model_where_it_can_be_had(
    tmp_path: Path, base: str, named: bool, explained: bool
):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text(base=base))
    output = run("pth_to_hf", path, tmp_path / "hf").output
    assert (f"whoamai convert merge {base} " in output) == named
    assert (f"LLM is where the model {base} is now" in output) == explained
