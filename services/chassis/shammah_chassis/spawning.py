"""Starting a child process that can't outlive us.

On Linux the kernel kills the child when its parent dies, however it dies (prctl PR_SET_PDEATHSIG). The signal belongs
to the *thread* that started the child: start children from the main thread only. Elsewhere it is an ordinary child.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shammah_chassis.errors import PreconditionError
from shammah_chassis.private import open_private_log

# What a part ends with whose settings are wrong (EX_CONFIG of sysexits.h): starting it again mends nothing.
EXIT_SETTINGS = 78
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def start_child(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log` (0600), tied to our life.

    The own session keeps a terminal's Ctrl-C from reaching it, so that we decide the order in which parts stop.
    `keep_open` are file descriptors that it inherits.

    Raises:
        PreconditionError: not called from the main thread, or the program can't be started.
    """
    if threading.current_thread() is not threading.main_thread():
        raise PreconditionError("children are started from the main thread only: the kernel ties them to the thread")
    with open_private_log(log) as output:
        try:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                start_new_session=True,
                pass_fds=tuple(keep_open),
                preexec_fn=_tie_to_parent(),  # noqa: PLW1509 - only calls prctl and getppid, takes no lock
            )
        except OSError as error:
            raise PreconditionError(f"{command[0]} can't be started: {error.strerror}") from error


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a child of `start_child` and to what it has started in its session."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _tie_to_parent() -> Callable[[], None] | None:
    """Return what the child does between fork and exec; the library is loaded here, before the fork."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # We may have died before the line above: then nobody will ever send that signal.
        if os.getppid() != parent:
            os._exit(1)

    return tie
