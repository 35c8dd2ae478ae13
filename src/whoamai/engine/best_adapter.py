"""The adapter of the best probe so far: in memory, and beside the checkpoints.

    work_dir/best/step_000040.safetensors     every trained parameter by its name

A file's name says its step; which of them counts stands in the checkpoint. So a run killed between the
two goes on with the best one that its checkpoint knows.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whoamai.engine.durable import replace_file
from whoamai.errors import ModelError
from whoamai.messages import tr

if TYPE_CHECKING:
    import torch

_FOLDER = "best"


class BestAdapter:
    """What is trained in a model, as it was after `step`; None: nothing is kept yet."""

    def __init__(self, work_dir: Path) -> None:
        self.step: int | None = None
        self._folder = work_dir / _FOLDER
        self._tensors: dict[str, torch.Tensor] = {}

    def keep(self, model: Any, step: int) -> None:
        """The model as it is now, in the place of what was kept. Raises OSError."""
        from safetensors.torch import save

        self.step = step
        self._tensors = {name: p.detach().cpu().clone() for name, p in _trained(model)}
        self._write(save(self._tensors))

    def go_on(self, step: int | None, work_dir: Path | None = None) -> None:
        """With the one of `step`, from its file; `work_dir`: of the run that is gone on with elsewhere.

        Raises ModelError where the file cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        if step is None:
            return
        file = self._file(step) if work_dir is None else work_dir / _FOLDER / self._file(step).name
        try:
            content = file.read_bytes()
            self._tensors = load(content)
        except (OSError, SafetensorError) as error:
            text = tr(
                "The best adapter so far, {path}, is missing or damaged. Put it back, or start without "
                "--resume in another work folder."
            )
            raise ModelError(text.format(path=file)) from error
        self.step = step
        if not self._file(step).exists():
            self._write(content)

    def put_back(self, model: Any) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in _trained(model):
                parameter.copy_(self._tensors[name])

    def forget_others(self, wanted: Collection[int]) -> None:
        """Remove the files of all steps but these and the one that is kept."""
        files = {self._file(step) for step in (*wanted, *([self.step] if self.step else []))}
        for file in self._folder.glob("step_*.safetensors"):
            if file not in files:
                with suppress(OSError):
                    file.unlink()

    def remove_files(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, content: bytes) -> None:
        assert self.step is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._file(self.step), content)

    def _file(self, step: int) -> Path:
        return self._folder / f"step_{step:06d}.safetensors"


def _trained(model: Any) -> Iterable[tuple[str, torch.nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)
