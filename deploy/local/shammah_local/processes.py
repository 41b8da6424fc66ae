"""One part as a process: its start, its states, its restart with back-off on the same port, its stop.

It does not know the other parts or their order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from shammah_chassis.errors import StorageFullError
from shammah_chassis.spawning import EXIT_SETTINGS, signal_group, start_child

from shammah_local.errors import PartFailedError
from shammah_local.logs import LOOK_SECONDS, bound_log
from shammah_local.plan import Part, Ports
from shammah_local.ports import probe_ready

MOST_DEATHS = 5
DEATH_WINDOW_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 30.0
_LOG_TAIL_LINES = 12
_POLL_SECONDS = 0.05


class PartState(Enum):
    """Life of a part."""

    WAITING = "waiting"  # its stage has not come
    STARTING = "starting"  # the process runs and accepts no calls yet
    UNREADY = "unready"  # accepts calls and says that it is not ready
    READY = "ready"
    RESTARTING = "restarting"  # died; it starts again after a pause
    STOPPED = "stopped"


class PartProcess:
    """A part and its current process."""

    def __init__(self, part: Part, *, log: Path, lock: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.part = part
        self.state = PartState.WAITING
        self.ports: Mapping[str, int] = {}
        self.restarts = 0
        self.last_exit: int | None = None
        self.problem = ""
        self._log = log
        self._lock = lock
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: deque[float] = deque(maxlen=MOST_DEATHS)
        self._quick_deaths = 0
        self._started_at = 0.0
        self._due = 0.0
        self._next_look = 0.0

    @property
    def accepting(self) -> bool:
        """Whether its ports are known and it runs."""
        return self.state in (PartState.UNREADY, PartState.READY)

    @property
    def pid(self) -> int | None:
        """The id of its process, None when there is none."""
        return self._process.pid if self._process is not None else None

    def describe(self) -> dict[str, Any]:
        """Return its state for status files."""
        return {
            "state": self.state.value,
            "pid": self.pid,
            **self.ports,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "problem": self.problem,
        }

    def start(self, ports: Ports) -> None:
        """Start the process; main thread only (see `shammah_chassis.spawning`)."""
        launch = self.part.launch(ports)
        self._process = start_child(
            launch.command,
            log=self._log,
            environment={**os.environ, "PYTHONUNBUFFERED": "1", **launch.environment},
            keep_open=[] if self._lock is None else [self._lock],
        )
        self._started_at = self._clock()
        self.state = PartState.STARTING

    async def tick(self, ports: Ports) -> None:
        """Look at the process and move to the next state; start it again when its pause is over; keep its log bounded.

        Raises:
            PartFailedError: it died too often, or of its settings.
        """
        if self._clock() >= self._next_look:
            self._next_look = self._clock() + LOOK_SECONDS
            await asyncio.to_thread(bound_log, self._log)
        if self.state is PartState.RESTARTING and self._clock() >= self._due:
            self._start_again(ports)
        elif self._process is not None and self._process.poll() is not None:
            self._bury(self._process)
        if self._process is None:
            return
        if self.state is PartState.STARTING:
            found = self.part.read_ports(self._process.pid)
            if found is not None:
                self.ports = found
                self.state = PartState.UNREADY
        if self.accepting:
            admin = self.ports.get("admin_port")
            ready = admin is None or await probe_ready(admin)
            self.state = PartState.READY if ready else PartState.UNREADY

    def _start_again(self, ports: Ports) -> None:
        try:
            self.start(ports)
        except (StorageFullError, OSError) as error:
            # Its files can't be written now: the others serve on, and this one is tried again.
            self.problem = f"can't be started now: {error}"
            self._due = self._clock() + LONGEST_PAUSE_SECONDS
            return
        self.problem = ""
        self.restarts += 1

    async def stop(self, hurry: asyncio.Event) -> bool:
        """Ask it to end, wait at most `stop_seconds` (not at all once `hurry` is set), then kill it.

        Returns whether it ended by itself.
        """
        process, self._process = self._process, None
        self.state = PartState.STOPPED
        if process is None:
            return True
        process.terminate()
        end = self._clock() + self.part.stop_seconds
        # The end of a process is no event of the loop, hence the polling.
        while process.poll() is None and self._clock() < end and not hurry.is_set():  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        by_itself = process.poll() is not None
        # Also what it has started and left behind.
        signal_group(process, signal.SIGKILL)
        self.last_exit = process.wait()
        return by_itself

    def quote_log(self) -> str:
        """Return the end of its log, for error messages."""
        try:
            lines = self._log.read_text("utf-8", "replace").splitlines()[-_LOG_TAIL_LINES:]
        except OSError:
            return ""
        return "\n".join(f"  {line}" for line in lines)

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        now = self._clock()
        signal_group(process, signal.SIGKILL)
        self.last_exit = process.returncode
        self._process = None
        if process.returncode == EXIT_SETTINGS:
            raise PartFailedError(
                f"{self.part.name} can't start with the settings and files that it has; "
                f"the end of {self._log}:\n{self.quote_log()}"
            )
        if now - self._started_at >= DEATH_WINDOW_SECONDS:
            self._quick_deaths = 0
        self._quick_deaths += 1
        self._deaths.append(now)
        if len(self._deaths) == MOST_DEATHS and now - self._deaths[0] <= DEATH_WINDOW_SECONDS:
            raise PartFailedError(
                f"{self.part.name} died {MOST_DEATHS} times within {DEATH_WINDOW_SECONDS:.0f} s "
                f"(last exit {self.last_exit}); the end of {self._log}:\n{self.quote_log()}"
            )
        self._due = now + min(LONGEST_PAUSE_SECONDS, 2.0 ** (self._quick_deaths - 1))
        self.state = PartState.RESTARTING
