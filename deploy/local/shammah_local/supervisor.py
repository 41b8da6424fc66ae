"""Starts the parts of a plan in stages, keeps them running, and stops them in order.

It knows parts only by their plan: nothing of what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from shammah_chassis.atomic import write_atomic
from shammah_chassis.errors import StorageFullError

from shammah_local.errors import PartFailedError
from shammah_local.layout import Layout
from shammah_local.plan import Part
from shammah_local.processes import PartProcess, PartState

START_SECONDS = 1800.0
_TICK_SECONDS = 0.1
_CALM_TICK_SECONDS = 0.5

Say = Callable[[str], None]


class Supervisor:
    """Runs one plan over one data folder. `lock` is the descriptor that keeps the folder ours, for the children."""

    def __init__(
        self, layout: Layout, plan: Sequence[Part], *, lock: int | None, say: Say, start_seconds: float = START_SECONDS
    ) -> None:
        self._layout = layout
        self._parts = [PartProcess(part, log=layout.log_file(part.name), lock=lock) for part in plan]
        self._say_line = say
        self._start_seconds = start_seconds
        self._began = time.monotonic()
        self._started_at = time.time()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._phase = "starting"
        self._was_ready = False
        self._told: dict[str, object] = {}
        self._written: dict[str, Any] = {}

    async def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP, then stop every part; a second signal kills them at once.

        Raises:
            PartFailedError: a part died too often or the start took too long; everything is stopped then too.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._ask_to_stop)
        self._layout.up_file.unlink(missing_ok=True)
        try:
            await self._keep_running()
        finally:
            await self._stop_all()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _ask_to_stop(self) -> None:
        if self._stop.is_set():
            self._say("asked again: the rest is killed")
            self._hurry.set()
        self._stop.set()

    async def _keep_running(self) -> None:
        while not self._stop.is_set():
            self._start_stage()
            ports = {process.part.name: process.ports for process in self._parts if process.ports}
            results = await asyncio.gather(*(process.tick(ports) for process in self._parts), return_exceptions=True)
            self._report()
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            self._check_start()
            try:
                await asyncio.wait_for(self._stop.wait(), _CALM_TICK_SECONDS if self._calm() else _TICK_SECONDS)
            except TimeoutError:
                continue

    def _start_stage(self) -> None:
        """Start the first stage that still waits, once all before it accept calls."""
        for process in self._parts:
            before = [other for other in self._parts if other.part.stage < process.part.stage]
            if process.state is PartState.WAITING and all(other.accepting for other in before):
                process.start({other.part.name: other.ports for other in before})
                self._say(f"{process.part.name}: starting (process {process.pid})")

    def _check_start(self) -> None:
        if self._was_ready:
            return
        if all(process.state is PartState.READY for process in self._parts):
            self._was_ready = True
            self._phase = "ready"
            http = f", HTTP at {self._http()}" if self._http() else ""
            # Said first: who waits for the state files shows what was said until then, and goes.
            self._say(f"ready; the gateway is at {self._gateway()}{http}")
            self._report()
        elif time.monotonic() - self._began > self._start_seconds:
            late = [process for process in self._parts if process.state is not PartState.READY]
            names = ", ".join(f"{process.part.name} ({process.state.value})" for process in late)
            raise PartFailedError(
                f"not ready within {self._start_seconds:g} s: {names}; "
                f"the end of the log of {late[0].part.name}:\n{late[0].quote_log()}"
            )

    def _calm(self) -> bool:
        return all(process.state is PartState.READY for process in self._parts)

    def _report(self) -> None:
        """Say what changed, and write the state files when anything did."""
        for process in self._parts:
            name = process.part.name
            self._tell(name, (process.state, process.restarts), self._describe(process))
            self._tell(f"{name} problem", process.problem, f"{name}: {process.problem}")
            if process.state in (PartState.STARTING, PartState.UNREADY):
                self._tell(f"{name} progress", progress := _read_line(process), f"{name}: {progress}")
        state = {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "state": self._phase,
            "parts": {process.part.name: process.describe() for process in self._parts},
            "gateway": self._gateway(),
            "http": self._http(),
        }
        if state == self._written:
            return
        text = json.dumps(state, indent=1).encode()
        try:
            write_atomic(self._layout.status_file, text, mode=0o600)
            if self._phase == "ready":
                write_atomic(self._layout.up_file, text, mode=0o600)
        except (StorageFullError, OSError) as error:
            # The parts serve on a full disk too; what can not be written down now is tried again.
            self._tell("state files", str(error), f"the state files can't be written: {error}")
            return
        self._told.pop("state files", None)
        self._written = state

    def _tell(self, key: str, value: object, text: str) -> None:
        if value == self._told.get(key, ""):
            return
        self._told[key] = value
        if text and value != "":  # "" is told by silence, and what comes back after it is told again
            self._say(text)

    def _describe(self, process: PartProcess) -> str:
        name = process.part.name
        if process.state is PartState.RESTARTING:
            return f"{name}: died (exit {process.last_exit}); it starts again soon, see {self._layout.log_file(name)}"
        if process.state is PartState.READY:
            again = f" again (restart {process.restarts})" if process.restarts else ""
            return f"{name}: ready{again} on port {process.ports.get('port')}"
        if process.state is PartState.UNREADY:
            return f"{name}: accepts calls on port {process.ports.get('port')}, not ready yet"
        return ""

    def _gateway(self) -> str:
        port = self._gateway_ports().get("port")
        return f"127.0.0.1:{port}" if port else ""

    def _http(self) -> str:
        """Return what users put into ANTHROPIC_BASE_URL; "" without HTTP."""
        port = self._gateway_ports().get("http_port")
        return f"http://127.0.0.1:{port}" if port else ""

    def _gateway_ports(self) -> Mapping[str, int]:
        return next((process.ports for process in self._parts if process.part.name == "gateway"), {})

    async def _stop_all(self) -> None:
        self._phase = "stopping"
        self._layout.up_file.unlink(missing_ok=True)
        ordered = sorted(self._parts, key=lambda process: process.part.stop_rank)
        for _, group in groupby(ordered, key=lambda process: process.part.stop_rank):
            await asyncio.gather(*(self._stop_part(process) for process in group))
        self._phase = "stopped"
        self._report()
        self._say("stopped")

    async def _stop_part(self, process: PartProcess) -> None:
        if process.pid is None:
            await process.stop(self._hurry)
            return
        by_itself = await process.stop(self._hurry)
        how = f"stopped (exit {process.last_exit})" if by_itself else "did not stop in time and was killed"
        self._say(f"{process.part.name}: {how}")

    def _say(self, text: str) -> None:
        # Where it is said may be a file, and that on a disk that is full.
        with contextlib.suppress(OSError):
            self._say_line(f"[{time.monotonic() - self._began:7.1f} s] {text}")


def _read_line(process: PartProcess) -> str:
    path = process.part.progress_file
    if path is None:
        return ""
    try:
        return path.read_text("utf-8", "replace").strip().partition("\n")[0][:200]
    except OSError:
        return ""
