"""A folder's lock: held by the operating system for as long as a process lives, so a killed one is in
nobody's way. What is written in it names the holder.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from whoamai.messages import tr

LOCK = ".lock"

# So long a lock is asked for before it counts as taken: used_by() holds it for a moment, and who takes
# it needs one to write down who that is.
_PATIENCE_SECONDS = 0.5
_LOCKED = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS_HERE = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a work folder; all but the text may be unknown (0, "")."""

    pid: int = 0
    host: str = ""
    started: str = ""
    config: str = ""
    command: str = ""

    @property
    def is_this_process(self) -> bool:
        return (self.pid, self.host) == (os.getpid(), socket.gethostname())

    def __str__(self) -> str:
        if not self.pid:
            return tr("another run")
        text = tr("the run of {config}, process {pid} on {host}, since {started}")
        return text.format(config=self.config, pid=self.pid, host=self.host, started=self.started)


class InUseError(Exception):
    """The lock is taken, by `holder`."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(str(holder))
        self.holder = holder


class Lock:
    """A lock that is held until release(), or until the process and all it forked have ended.

    `works` is False where the disk knows no locks: then nothing keeps others out.
    """

    def __init__(self, handle: int, *, works: bool) -> None:
        self.works = works
        self._handle = handle

    def release(self) -> None:
        with suppress(OSError):  # full, or without locks
            os.ftruncate(self._handle, 0)
        with suppress(OSError):
            _unlock(self._handle)
        os.close(self._handle)


def take_lock(folder: Path, label: str) -> Lock:
    """Take the lock of `folder` and write into it who has it: this process, with the config `label`.

    Raises InUseError where another process, or this one, has it; OSError where the disk refuses.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        works = _wait_for_lock(handle)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        me = Holder(os.getpid(), socket.gethostname(), now, label, shlex.join(sys.argv))
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(asdict(me), ensure_ascii=False).encode("utf-8"))
    except BaseException:
        os.close(handle)
        raise
    return Lock(handle, works=works)


def used_by(folder: Path) -> Holder | None:
    """Who holds `folder` now, None if nobody does. Changes nothing."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except OSError:  # no folder or no lock; what may not be written to cannot be claimed either
        return None
    try:
        if _wait_for_lock(handle):
            _unlock(handle)
    except InUseError as error:
        return error.holder
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def _wait_for_lock(handle: int) -> bool:
    """Lock; False where there are no locks. Raises InUseError, in case of others after a moment."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            _lock(handle)
            return True
        except OSError as error:
            if error.errno in _NO_LOCKS_HERE:
                return False
            if error.errno not in _LOCKED:
                raise
            holder = _holder(handle)
            if holder.is_this_process or time.monotonic() > until:
                raise InUseError(holder) from None
            time.sleep(_PATIENCE_SECONDS / 20)


def _holder(handle: int) -> Holder:
    """What the lock's file says of who holds it."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        return Holder(**json.loads(os.read(handle, 1 << 16)))
    except (OSError, ValueError, TypeError):
        return Holder()


if sys.platform == "win32":
    import msvcrt

    # Far behind the content, which others are to read.
    _LOCKED_BYTE = 1 << 30

    def _lock(handle: int) -> None:
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)

    def _unlock(handle: int) -> None:
        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
