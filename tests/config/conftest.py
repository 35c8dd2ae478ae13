"""A folder in the place of the configs that come along."""

from __future__ import annotations

from pathlib import Path

import pytest

from whoamai.config import files


@pytest.fixture
def shipped_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configs written here are the ones that come along."""
    folder = tmp_path / "whoamai" / "configs"
    folder.mkdir(parents=True)
    monkeypatch.setattr(files.resources, "files", lambda _: tmp_path / "whoamai")
    return folder
