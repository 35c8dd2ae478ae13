"""What every test starts from: English messages, no hub, no colours, one thread."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ["WHOAMAI_LANG"] = "en"
os.environ["OMP_NUM_THREADS"] = "1"  # also of programs that tests start: several tests run at once

import pytest
import torch
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[2] / "shared"

torch.set_num_threads(1)
# A shell starts its background jobs with Ctrl-C ignored, and so would be every program tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("whoamai", deadline=None, max_examples=60)
settings.load_profile("whoamai")


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same language and width wherever the tests run."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WHOAMAI_LANG", "en")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture
def shared_data() -> Path:
    """The seed's data files, where this checkout has them beside it."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"the seed's data files are not at {folder}")
    return folder
