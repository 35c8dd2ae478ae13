from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.convert.xtuner_files import adapter_state, config_text, real_files, save_zero
from whoamai.convert.checkpoints import open_checkpoint
from whoamai.convert.zero_checkpoint import read_zero_checkpoint
from whoamai.errors import ModelError


def same(found, state) -> bool:
    assert found.keys() == state.keys()
    return all(torch.equal(found[name].load(), tensor) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("world", "short"), [(1, False), (2, False), (11, False), (11, True)])
@pytest.mark.parametrize("stage", [1, 2])
def test_shards_are_put_together_in_numeric_order_of_their_ranks(
    tmp_path: Path, stage: int, world: int, short: bool, dtype: torch.dtype
):
    state = adapter_state()
    total = sum(t.numel() for t in state.values())
    assert total % 22, "the last of eleven shards is to be short"
    folder = save_zero(
        tmp_path / "iter_9.pth", state, world=world, stage=stage, dtype=dtype, short=short
    )
    assert same(read_zero_checkpoint(folder).weights, state)


@pytest.mark.parametrize("world", [1, 3, 11])
def test_shards_of_stage_3_are_put_together_parameter_by_parameter(tmp_path: Path, world: int):
    state = adapter_state()
    folder = save_zero(tmp_path / "iter_9.pth", state, world=world, stage=3)
    assert same(read_zero_checkpoint(folder).weights, state)


def test_the_config_and_the_ranks_are_told(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=3, cfg=config_text())
    found = read_zero_checkpoint(folder)
    assert found.config == config_text()
    assert "3 ranks" in found.what


def shard(folder: Path, rank: int) -> Path:
    return folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"


def test_missing_ranks_are_named(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=4)
    shard(folder, 1).unlink()
    shard(folder, 3).unlink()
    with pytest.raises(ModelError, match=r"of 4 ranks, and the files of these are missing: 1, 3\."):
        open_checkpoint(folder)


def test_files_of_more_ranks_than_there_were_are_told(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=2)
    shard(folder, 1).rename(tmp_path / "kept")
    (tmp_path / "kept").rename(shard(folder, 1))
    shard(folder, 2).write_bytes(shard(folder, 1).read_bytes())
    with pytest.raises(ModelError, match="files of other ranks too: 2"):
        open_checkpoint(folder)


def test_files_of_another_world_are_told(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=2)
    other = save_zero(tmp_path / "y", adapter_state(), world=3)
    shard(folder, 1).write_bytes(shard(other, 1).read_bytes())
    with pytest.raises(ModelError, match="are of different checkpoints"):
        open_checkpoint(folder)


def test_shards_in_another_order_are_found_by_the_weights_beside_them(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=2)
    first, second = shard(folder, 0).read_bytes(), shard(folder, 1).read_bytes()
    shard(folder, 0).write_bytes(second)
    shard(folder, 1).write_bytes(first)
    found = read_zero_checkpoint(folder)
    with pytest.raises(ModelError, match="not those of the weights beside them"):
        next(iter(found.weights.values())).load()


def test_shards_of_a_smaller_model_are_told(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=2)
    other = save_zero(tmp_path / "y", adapter_state(layers=1), world=2)
    for rank in range(2):
        shard(folder, rank).write_bytes(shard(other, rank).read_bytes())
    with pytest.raises(ModelError, match="its shards hold"):
        open_checkpoint(folder)


def test_the_model_s_file_alone_is_not_enough(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=2)
    for rank in range(2):
        shard(folder, rank).unlink()
    with pytest.raises(ModelError, match=r"none of the optimizer's"):
        open_checkpoint(folder)


def test_the_optimizer_s_files_alone_are_not_enough(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=2)
    (folder / "mp_rank_00_model_states.pt").unlink()
    with pytest.raises(ModelError, match=r"none of the model"):
        open_checkpoint(folder)


def test_one_file_of_the_folder_is_answered_with_the_folder(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=2)
    with pytest.raises(ModelError, match="one rank's part of the optimizer") as caught:
        open_checkpoint(shard(folder, 0))
    assert str(folder) in str(caught.value)
    with pytest.raises(ModelError, match="the model's part"):
        open_checkpoint(folder / "mp_rank_00_model_states.pt")


def test_an_empty_shard_is_told(tmp_path: Path):
    folder = save_zero(tmp_path / "x", adapter_state(), world=2)
    shard(folder, 1).write_bytes(b"")
    with pytest.raises(ModelError, match=r"rank_1_mp_rank_00_optim_states\.pt is empty"):
        open_checkpoint(folder)


def test_what_deepspeed_wrote_gives_what_xtuner_made_of_it():
    folder = real_files() / "zero2_bf16_world2"
    found = read_zero_checkpoint(folder / "iter_9.pth").weights
    expected = torch.load(folder / "hf" / "adapter_model.bin", weights_only=True)
    assert len(found) == len(expected)
    for name, weight in found.items():
        short = name.removeprefix("llm.").replace(".default.", ".")
        assert torch.equal(weight.load().half(), expected[short]), name
