"""Keep the libraries' own talk away from the user's terminal while a model is loaded."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside the block transformers shows no progress bar and logs errors only; then as it was."""
    from transformers.utils import logging as library

    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()


@contextmanager
def swallowed(logger: str) -> Iterator[None]:
    """Inside the block nothing is printed by Python code, nor logged under the name `logger`."""
    log, nowhere = logging.getLogger(logger), io.StringIO()
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        log.setLevel(level)
