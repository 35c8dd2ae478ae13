"""Everything doctor asks the world outside: processes, files, versions, the network.

Each question is a field of Probes, so that a test can answer it in another way.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, Generic, TypeVar

from packaging.utils import canonicalize_name

import whoamai
from whoamai.messages import language, tr
from whoamai.plan.doctor_child import read_facts

# What is tried takes some seconds on a quiet machine; a busy one is not to be called broken.
_TRY_SECONDS = 240
_ANSWER_SECONDS = 2.0
_LAST_WORDS = 300  # characters of what a process printed before it died

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tried:
    """What a try in a process of its own found: values and errors by name; how it died, if it did."""

    values: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    death: str | None = None

    def why_not(self, name: str) -> str | None:
        """Why there is no value of this name; None where there is one."""
        if name in self.values:
            return None
        return self.errors.get(name) or self.death or next(iter(self.errors.values()), "")


class Later(Generic[T]):
    """The result of a function that is at work in a thread of its own.

    The thread ends with the program: a network that never answers holds nothing up.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._result: list[T] = []
        self._error: list[Exception] = []
        run = copy_context().run  # the language of messages is the caller's
        self._thread = Thread(target=run, args=(self._run, work), daemon=True)
        self._thread.start()

    def result(self, seconds: float | None = None) -> T:
        """What the function gave or raised; TimeoutError after so many seconds."""
        self._thread.join(seconds)
        if self._error:
            raise self._error[0]
        if not self._result:
            raise TimeoutError(tr("no answer in {seconds:g} seconds").format(seconds=seconds))
        return self._result[0]

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._result.append(work())
        except Exception as error:
            self._error.append(error)


def attempt(environ: Mapping[str, str] | None = None) -> Tried:
    """Run doctor_child; whatever happens in it, it comes back as a Tried."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "facts.jsonl"
            # -P: a file of the current folder that is called as a library does not stand in for it.
            command = [sys.executable, "-P", "-m", "whoamai.plan.doctor_child", str(file)]
            death = _run(command, _child_environment(os.environ if environ is None else environ))
            facts = list(read_facts(file))
    except OSError as error:  # a full disk, no more processes
        return Tried(death=str(error))
    values = {name: value for name, value, error in facts if error is None}
    errors = {name: error for name, _, error in facts if error is not None}
    return Tried(values, errors, death)


def _child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The same with this whoamai first, and with nothing loaded from a network."""
    package = str(Path(whoamai.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, environ.get("PYTHONPATH"))))
    added = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "WHOAMAI_LANG": language()}
    return {**environ, **added}


def _run(command: list[str], environ: dict[str, str]) -> str | None:
    """How the process died; None where it came to its end. What it prints is kept from the screen."""
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TRY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return tr("no answer in {seconds:g} seconds").format(seconds=_TRY_SECONDS)
    if done.returncode == 0:
        return None
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    said = lines[-1].strip()[:_LAST_WORDS] if lines else ""
    text = tr("its process ended with code {code}: {said}")
    return text.format(code=done.returncode, said=said or "–")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """The version of NVIDIA's driver; None where there is no such driver."""
    if not (program := shutil.which("nvidia-smi")):
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None


def _answers(url: str) -> str | None:
    """Why `url` does not answer; None if it does, be it with "not found"."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, method="HEAD"), timeout=_ANSWER_SECONDS
        ):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code < 500 else f"HTTP {error.code}"
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            return reason.verify_message
        return str(getattr(reason, "strerror", None) or reason)
    except (OSError, ValueError) as error:
        return str(error)


def _free(folder: Path) -> int:
    """Bytes free where `folder` is or would be made."""
    folder = folder.absolute()
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


def _has_compiler() -> bool:
    """Triton compiles a little C for each kernel: it needs a compiler and Python's headers."""
    import sysconfig

    header = Path(sysconfig.get_path("include")) / "Python.h"
    compiler = os.environ.get("CC") or any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return bool(compiler) and header.is_file()


def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("whoamai") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source alone
        return []


def _tested() -> dict[str, str]:
    """The versions the tests ran with: constraints.txt, which a wheel carries along."""
    beside = Path(str(resources.files("whoamai.assets").joinpath("constraints.txt")))
    places = (beside, Path(__file__).resolve().parents[3] / "constraints.txt")
    file = next((place for place in places if place.is_file()), None)
    lines = file.read_text("utf-8").splitlines() if file else []
    pins = (line.partition("==") for line in lines if not line.startswith("#"))
    return {
        canonicalize_name(name.strip()): version.strip() for name, _, version in pins if version
    }


def _encoding() -> str:
    return sys.stdout.encoding or sys.getfilesystemencoding()


@dataclass(frozen=True, slots=True)
class Probes:
    """The world as it is, unless told otherwise.

    version, is_installed: of a distribution, of a module. requirements: those of whoamai, as pip knows
    them; tested: the versions its tests ran with. attempt: what doctor_child finds. driver: NVIDIA's
    version. answers: why a URL does not, None if it does. free: bytes where a folder is. has_compiler:
    can Triton build its launchers?
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    folder: Path = field(default_factory=Path.cwd)
    home: Path = field(default_factory=Path.home)
    user: Callable[[], str] = getpass.getuser
    python: str = field(default_factory=platform.python_version)
    encoding: Callable[[], str] = _encoding
    version: Callable[[str], str | None] = _version
    is_installed: Callable[[str], bool] = _is_installed
    requirements: Callable[[], list[str]] = _requirements
    tested: Callable[[], Mapping[str, str]] = _tested
    attempt: Callable[[], Tried] = attempt
    driver: Callable[[], str | None] = _driver
    answers: Callable[[str], str | None] = _answers
    free: Callable[[Path], int] = _free
    has_compiler: Callable[[], bool] = _has_compiler
