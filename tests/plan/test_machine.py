from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from whoamai.errors import SettingError
from whoamai.plan import machine as module
from whoamai.plan.machine import CARDS, GIB, this_machine


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """A function that makes torch see so many GPUs of a compute capability."""

    def see(count: int, capability: tuple[int, int] = (9, 0)) -> None:
        about = SimpleNamespace(name="A Card", major=capability[0], minor=capability[1])
        monkeypatch.setattr(module, "_has_nvidia_driver", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: about)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10 * GIB, 24 * GIB))

    return see


def test_without_a_gpu_the_processor_is_taken(gpus, tmp_path: Path):
    gpus(0)
    found = this_machine("auto", tmp_path)
    assert found.device_type == "cpu"
    assert 0 < found.free_bytes <= found.memory_bytes
    assert found.cores >= 1
    assert found.name
    assert found.disk_free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_a_gpu_is_taken_where_there_is_one(gpus):
    gpus(1)
    found = this_machine()
    assert (found.device_type, found.name) == ("cuda", "A Card")
    assert (found.free_bytes, found.memory_bytes) == (10 * GIB, 24 * GIB)


def test_the_processor_is_taken_where_it_is_asked_for(gpus):
    gpus(1)
    assert this_machine("cpu").device_type == "cpu"


@pytest.mark.parametrize(
    ("capability", "has_it"), [((7, 5), False), ((8, 0), True), ((12, 0), True)]
)
def test_bfloat16_is_there_since_ampere(gpus, capability: tuple[int, int], has_it: bool):
    gpus(1, capability)
    assert this_machine().bfloat16 is has_it


@pytest.mark.parametrize(
    ("count", "device"), [(0, "cuda"), (0, "cuda:0"), (1, "cuda:1"), (2, "cuda:7")]
)
def test_a_gpu_that_is_not_there_is_refused_by_name(gpus, count: int, device: str):
    gpus(count)
    with pytest.raises(SettingError) as caught:
        this_machine(device)
    assert device in str(caught.value)


def test_the_last_gpu_of_several_can_be_asked_for(gpus):
    gpus(2)
    assert this_machine("cuda:1").device_type == "cuda"


def test_an_apple_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SettingError, match="mps"):
        this_machine("mps")


def test_an_apple_gpu_shares_the_main_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    found = this_machine("mps")
    assert found.device_type == "mps"
    assert found.bfloat16
    assert found.memory_bytes > 0


@pytest.mark.skipif(module._has_nvidia_driver(), reason="an NVIDIA driver is visible here")
def test_torch_is_not_imported_where_no_driver_is_visible():
    code = (
        "import sys; from whoamai.plan.machine import this_machine; this_machine();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_that_does_not_exist_yet_has_its_parents_free_space(tmp_path: Path):
    found = this_machine("cpu", tmp_path / "work_dirs" / "run")
    assert found.disk_free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_a_containers_limit_goes_before_the_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = limits(tmp_path, limit=str(2 * GIB), used=str(GIB), stat="anon 5\ninactive_file 1000\n")
    monkeypatch.setattr(module, "_LIMITS", (files,))
    found = this_machine("cpu")
    assert found.memory_bytes == 2 * GIB
    assert found.free_bytes == GIB + 1000


def test_a_container_that_used_up_its_memory_has_none_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = limits(tmp_path, limit=str(GIB), used=str(GIB + 5), stat="")
    monkeypatch.setattr(module, "_LIMITS", (files,))
    assert this_machine("cpu").free_bytes == 0


@pytest.mark.parametrize("limit", ["max", "", "9223372036854771712"])
def test_a_container_without_a_limit_has_the_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
):
    import psutil

    files = limits(tmp_path, limit=limit, used="1", stat="")
    monkeypatch.setattr(module, "_LIMITS", (files,))
    assert this_machine("cpu").memory_bytes == psutil.virtual_memory().total


def test_the_cards_go_from_8_to_141_gib_and_the_t4_has_no_bfloat16():
    assert [card.gib for card in CARDS] == [8, 16, 24, 40, 80, 141]
    assert [card.name for card in CARDS if not card.bfloat16] == ["T4"]
    assert all(card.free_bytes < card.memory_bytes == card.gib * GIB for card in CARDS)
    assert all(card.device_type == "cuda" for card in CARDS)


def limits(folder: Path, *, limit: str, used: str, stat: str) -> tuple[str, str, str]:
    for name, text in (("max", limit), ("current", used), ("stat", stat)):
        (folder / name).write_text(text, "ascii")
    return str(folder / "max"), str(folder / "current"), str(folder / "stat")
