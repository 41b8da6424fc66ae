"""One supervisor a data folder: a file lock that the children inherit.

The lock is free only when the supervisor *and* all its children are gone, so that two sets of processes never work on
the same data, however the first set ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

from shammah_local.errors import AlreadyRunningError

_POLL_SECONDS = 0.05
# Children of a killed supervisor are killed by the kernel; so long we wait for the last of them.
_ENDING_SECONDS = 10.0


class DataLock:
    """The held lock; `descriptor` is to be inherited by the children."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path) -> DataLock:
        """Take the lock and write our process id into it.

        Raises:
            AlreadyRunningError: another has it; the message names its process id.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + _ENDING_SECONDS
        while not _try_lock(descriptor):
            pid = read_holder(path)
            if is_alive(pid) or time.monotonic() >= end:
                os.close(descriptor)
                what = "is already up" if is_alive(pid) else "still has processes of an earlier start"
                raise AlreadyRunningError(f"{path.parent.parent} {what} (process {pid}); stop it first")
            time.sleep(_POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid()}).encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Give it up."""
        os.close(self.descriptor)


def is_locked(path: Path) -> bool:
    """Say whether anybody holds the lock, without taking it for longer than the look."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def read_holder(path: Path) -> int:
    """Return the process id in a lock file, 0 when it can't be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads(path.read_text("utf-8"))["pid"])
    return 0


def is_alive(pid: int) -> bool:
    """Say whether a process of this id exists."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
