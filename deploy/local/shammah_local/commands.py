"""What a user asks of the supervisor: up, down, status. Each returns the exit code of the program."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from shammah_chassis.private import make_private, open_private_log

from shammah_local.errors import NotRunningError, PartFailedError
from shammah_local.layout import Layout
from shammah_local.lock import DataLock, is_alive, is_locked, read_holder
from shammah_local.logs import bound_log
from shammah_local.plan import Part, PlanSettings, count_cpus, embedded_plan, parse_overrides
from shammah_local.status import read_status
from shammah_local.supervisor import START_SECONDS, Supervisor
from shammah_local.tokens import ensure_tokens

NOT_RUNNING = 3
_POLL_SECONDS = 0.1
# Longer than all patience of an ordered stop together (4 ranks of at most 20 s).
_STOP_SECONDS = 90.0
_KILL_SECONDS = 10.0

MakePlan = Callable[[Layout], Sequence[Part]]


def make_embedded_plan(layout: Layout, settings: Sequence[str]) -> list[Part]:
    """Return the plan of the whole of Shammah; makes the tokens at the first start."""
    overrides = parse_overrides(settings)
    nats_token = ensure_tokens(layout)
    return embedded_plan(PlanSettings(layout=layout, nats_token=nats_token, overrides=overrides, cpus=count_cpus()))


def up(layout: Layout, make_plan: MakePlan, *, start_seconds: float = START_SECONDS) -> int:
    """Start everything and stay until a signal; the plan is made when the data folder is ours.

    Raises:
        AlreadyRunningError: the data folder is in use.
        PartFailedError: a part can't be kept running; everything is stopped then.
    """
    make_private(layout.root)
    lock = DataLock.acquire(layout.lock_file)
    try:
        for path in layout.run.glob("*.progress"):
            path.unlink()
        plan = make_plan(layout)

        async def run() -> None:
            def say(text: str) -> None:
                print(text, flush=True)
                # In the background that goes into this file.
                bound_log(layout.supervisor_log)

            await Supervisor(layout, plan, lock=lock.descriptor, say=say, start_seconds=start_seconds).run()

        asyncio.run(run())
    finally:
        lock.release()
    return 0


def up_detached(layout: Layout, command: Sequence[str]) -> int:
    """Run `command`, an `up` of this data folder, in the background; show what it says until it is ready; return 0.

    Raises:
        PartFailedError: it ended before it was ready; what it said was shown.
    """
    make_private(layout.root)
    bound_log(layout.supervisor_log)
    with open_private_log(layout.supervisor_log) as output:
        shown = output.tell()
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while True:
            ended = process.poll() is not None
            shown = _show_from(layout, shown)
            if ended:
                raise PartFailedError(f"it ended (exit {process.returncode}) before it was ready")
            if (state := read_status(layout)) is not None and (state["pid"], state["state"]) == (process.pid, "ready"):
                _show_from(layout, shown)
                return 0
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        _show_from(layout, shown)
        return 130


def down(layout: Layout) -> int:
    """Stop what runs on the data folder and wait until the last process is gone.

    Raises:
        NotRunningError: nothing runs there.
        PartFailedError: it can't be stopped.
    """
    if not is_locked(layout.lock_file):
        raise NotRunningError(f"nothing runs on {layout.root}")
    pid = read_holder(layout.lock_file)
    for number, patience in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        if is_alive(pid):
            os.kill(pid, number)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if not is_locked(layout.lock_file):
                print(f"stopped what ran on {layout.root}")
                return 0
            time.sleep(_POLL_SECONDS)
    raise PartFailedError(f"process {pid} or a child of it does not end")


def _show_from(layout: Layout, position: int) -> int:
    with layout.supervisor_log.open("rb") as log:
        log.seek(position)
        text = log.read()
    if text:
        sys.stdout.write(text.decode("utf-8", "replace"))
        sys.stdout.flush()
    return position + len(text)
