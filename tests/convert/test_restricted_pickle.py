from __future__ import annotations

import io
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from tests.convert.xtuner_files import adapter_state, config_text, save_pth, save_zero
from whoamai.convert.checkpoints import open_checkpoint
from whoamai.convert.restricted_pickle import Inert, PickledTensor, load_pickle
from whoamai.convert.torch_file import read_torch_file
from whoamai.errors import ModelError


class RunsSomething:
    """Pickled, it asks for os.system to be called when it is read."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self):
        return os.system, (f"touch '{self.touched}'",)


@pytest.fixture
def touched(tmp_path: Path) -> Path:
    return tmp_path / "touched"


def refused(path: Path, touched: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(path)
    assert not touched.exists()
    return str(caught.value)


@pytest.mark.parametrize("name", ["iter_1.pth", "adapter_model.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_asks_for_a_program_is_refused_by_name_and_nothing_runs(
    tmp_path: Path, touched: Path, name: str, zipped: bool
):
    content = {"state_dict": adapter_state(), "meta": RunsSomething(touched)}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    message = refused(tmp_path / name, touched)
    assert f"{os.system.__module__}.system" in message
    assert name in message


def test_an_optimizer_file_that_asks_for_a_program_is_refused_by_name(
    tmp_path: Path, touched: Path
):
    folder = save_zero(tmp_path / "iter_9.pth", adapter_state(), world=2)
    content = {"optimizer_state_dict": {"zero_stage": RunsSomething(touched)}}
    torch.save(content, folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt")
    assert f"{os.system.__module__}.system" in refused(folder, touched)


def test_a_plain_pickle_that_asks_for_a_program_is_refused_by_name(tmp_path: Path, touched: Path):
    (tmp_path / "iter_1.pth").write_bytes(pickle.dumps(RunsSomething(touched)))
    assert f"{os.system.__module__}.system" in refused(tmp_path / "iter_1.pth", touched)


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins __import__",
        "operator attrgetter",
        "torch load",
        "torch.storage _load_from_bytes",
        "functools partial",
        "collections OrderedDict.fromkeys",
        "numpy.testing._private.utils runstring",
        "mmengine.config.config Config",
    ],
)
def test_names_that_could_do_anything_are_refused(name: str):
    module, _, attribute = name.partition(" ")
    program = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"."
    with pytest.raises(ModelError, match=attribute):
        load_pickle(io.BytesIO(program), Path("x.pth"), None)  # type: ignore[arg-type]


def test_getattr_is_an_empty_shell():
    """mmengine's files name it; called on anything it gives an object that does nothing."""
    program = (
        b"\x80\x02c__builtin__\ngetattr\nccollections\nOrderedDict\nX\x08\x00\x00\x00fromkeys\x86R."
    )
    found = load_pickle(io.BytesIO(program), Path("x.pth"), None)  # type: ignore[arg-type]
    assert isinstance(found, Inert)


def test_attributes_set_on_what_is_admitted_do_not_last():
    """BUILD sets attributes of whatever a name stands for: that is made anew for each reading."""
    program = b"\x80\x02c_codecs\nencode\nN}X\x05\x00\x00\x00stateK\x07s\x86b."
    changed = load_pickle(io.BytesIO(program), Path("x.pth"), None)  # type: ignore[arg-type]
    assert changed.state == 7
    again = load_pickle(io.BytesIO(b"\x80\x02c_codecs\nencode\n."), Path("x.pth"), None)  # type: ignore[arg-type]
    assert not hasattr(again, "state")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_every_kind_are_read_as_torch_reads_them(tmp_path: Path, zipped: bool):
    whole = torch.arange(24.0).view(4, 6)
    content = {
        "part": whole[1:3, 2:],
        "turned": whole.t(),
        "bfloat16": torch.tensor([1.5, -2]).bfloat16(),
        "half": torch.tensor([[0.1]]).half(),
        "whole": torch.tensor([1, 2**40]),
        "bool": torch.tensor([True, False, True]),
        "byte": torch.tensor([255], dtype=torch.uint8),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_torch_file(tmp_path / "x.pth").content
    for name, tensor in content.items():
        assert isinstance(found[name], PickledTensor)
        assert found[name].shape == tuple(tensor.shape)
        assert torch.equal(found[name].load(), tensor.detach()), name
        assert found[name].load().dtype == tensor.dtype


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path):
    program = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
        b"K\x02K\x03\x85K\x01\x85\x89}tR."
    )
    with pytest.raises(ModelError, match="ends behind its storage"):
        load_pickle(io.BytesIO(program), Path("x.pth"), None)  # type: ignore[arg-type]


def test_a_real_checkpoint_s_objects_are_read_without_their_packages(tmp_path: Path):
    path = save_pth(tmp_path / "iter_17.pth", adapter_state(), config_text())
    content = read_torch_file(path).content
    assert content["meta"]["iter"] == 17
    assert isinstance(content["message_hub"]["log_scalars"]["loss"], Inert)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_was_cut_off_is_told_in_a_sentence(tmp_path: Path, keep: float, zipped: bool):
    path = tmp_path / "iter_1.pth"
    torch.save({"state_dict": adapter_state()}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ModelError, match=r"iter_1\.pth is damaged"):
        open_checkpoint(path)


def test_a_changed_number_is_found_by_its_checksum(tmp_path: Path):
    state = {"llm.x": torch.full((100,), 3.0)}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    place = data.index(torch.full((100,), 3.0).numpy().tobytes())
    (tmp_path / "x.pth").write_bytes(data[: place + 8] + b"\x01" + data[place + 9 :])
    found = read_torch_file(tmp_path / "x.pth").content["state_dict"]["llm.x"]
    with pytest.raises(ModelError, match="not as it was written"):
        found.load()


def test_the_file_itself_is_never_changed(tmp_path: Path):
    path = tmp_path / "x.pth"
    torch.save({"llm.x": torch.ones(4)}, path)
    before = path.read_bytes()
    read_torch_file(path).content["llm.x"].load().zero_()
    assert path.read_bytes() == before


def test_other_zip_archives_are_told(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in")
    with pytest.raises(ModelError, match=r"x\.zip is a zip archive, but none that torch\.save"):
        open_checkpoint(tmp_path / "x.zip")
