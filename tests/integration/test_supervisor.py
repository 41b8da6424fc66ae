"""The local supervisor over the real nats-server and stand-in services: stop, kills, restarts, one at a time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.bus import Bus
from shammah_local.commands import up_detached
from shammah_local.layout import Layout
from shammah_local.lock import is_locked
from shammah_local.status import read_status

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS)}
BOUND_SECONDS = 60.0


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + BOUND_SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail(f"waited {BOUND_SECONDS:g} s for {what}")


def exists(pid: int) -> bool:
    """Whether a process lives; one that ended and was not yet collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Up:
    """A running `up` of the stand-in plan."""

    def __init__(self, root: Path, *options: str) -> None:
        self.layout = Layout(root)
        self.process = subprocess.Popen(
            self.command(root, *options), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.pids: list[int] = []

    @staticmethod
    def command(root: Path, *options: str) -> list[str]:
        return [sys.executable, "-m", "support.stand_ins", str(root), *options]

    def read(self) -> dict[str, Any]:
        return json.loads(self.layout.up_file.read_text("utf-8"))

    def wait_ready(self) -> dict[str, Any]:
        wait_for(lambda: self.layout.up_file.exists() or self.process.poll() is not None, "readiness")
        assert self.process.poll() is None, self.process.stdout.read()
        state = self.read()
        self.pids = [part["pid"] for part in state["parts"].values()]
        assert all(exists(pid) for pid in self.pids)
        return state

    def wait_gone(self) -> None:
        wait_for(lambda: not any(exists(pid) for pid in self.pids), f"the end of {self.pids}")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    running: list[Up] = []

    def begin(*options: str) -> Up:
        running.append(Up(tmp_path / "data", *options))
        return running[-1]

    yield begin
    for each in running:
        each.process.kill()
        each.process.wait()
        each.process.stdout.close()


def test_it_says_where_the_gateway_is_once_all_is_ready(start) -> None:
    up = start()
    state = up.wait_ready()
    assert state["pid"] == up.process.pid
    assert state["gateway"] == f"127.0.0.1:{state['parts']['gateway']['port']}"
    assert state["http"] == f"http://127.0.0.1:{state['parts']['gateway']['http_port']}"
    assert set(state["parts"]) == {"nats", "trainer", "router", "gateway"}
    assert all(part["state"] == "ready" for part in state["parts"].values())
    assert state["parts"]["router"]["admin_port"] == state["parts"]["router"]["port"]
    for name in ("owner.token", "internal.token", "nats.token", "tokens.json"):
        assert (up.layout.root / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_in_order_and_leaves_no_orphan(start, number: int) -> None:
    up = start()
    up.wait_ready()
    up.process.send_signal(number)
    output, _ = up.process.communicate(timeout=BOUND_SECONDS)
    assert up.process.returncode == 0, output
    assert (up.layout.run / "stops").read_text("utf-8").split() == ["gateway", "router", "trainer"]
    assert output.index("trainer: stopped") < output.index("nats: stopped")
    assert not any(exists(pid) for pid in up.pids)
    assert not up.layout.up_file.exists()
    assert not is_locked(up.layout.lock_file)


def test_a_part_that_does_not_stop_is_killed(start) -> None:
    up = start("stubborn")
    up.wait_ready()
    up.process.send_signal(signal.SIGINT)
    output, _ = up.process.communicate(timeout=BOUND_SECONDS)
    assert "router: did not stop in time and was killed" in output
    assert not any(exists(pid) for pid in up.pids)


def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_works(start) -> None:
    up = start()
    up.wait_ready()
    up.process.kill()
    up.process.wait()
    up.wait_gone()
    again = start()
    # The file of the killed one says another process until the new one has written its own.
    wait_for(lambda: again.layout.up_file.exists() and again.read()["pid"] == again.process.pid, "the next start")
    assert not set(again.wait_ready()["parts"]) - {"nats", "trainer", "router", "gateway"}


def test_a_killed_part_comes_back_on_its_port(start) -> None:
    up = start()
    before = up.wait_ready()["parts"]["router"]
    os.kill(before["pid"], signal.SIGKILL)

    def back() -> dict[str, Any] | None:
        part = up.read()["parts"]["router"]
        return part if part["pid"] not in (None, before["pid"]) and part["state"] == "ready" else None

    after = wait_for(back, "the router")
    assert after["port"] == before["port"]
    assert after["restarts"] == 1
    assert after["last_exit"] == -signal.SIGKILL
    with socket.create_connection(("127.0.0.1", after["port"]), timeout=5):
        pass
    state = read_status(up.layout)
    assert state is not None
    assert state["state"] == "ready"


async def test_a_killed_bus_comes_back_with_its_data_and_clients_go_on(start) -> None:
    up = start()
    before = up.wait_ready()["parts"]["nats"]
    token = up.layout.token_file("nats").read_text("utf-8").strip()
    bus = await Bus.connect(f"nats://127.0.0.1:{before['port']}", token=token)
    await bus.ensure()
    revision = await bus.kv_create("champion", "kept")
    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: up.read()["parts"]["nats"]["pid"] not in (None, before["pid"]), "nats")
    assert await bus.kv_update("champion", "later", revision) > revision
    await bus.close()


def test_a_second_up_is_refused_and_names_the_process(start) -> None:
    up = start()
    up.wait_ready()
    second = start()
    output, _ = second.process.communicate(timeout=BOUND_SECONDS)
    assert second.process.returncode == 1
    assert f"already up (process {up.process.pid})" in output
    assert up.process.poll() is None
    assert up.read()["pid"] == up.process.pid


def test_detached_it_returns_when_ready_and_down_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    assert up_detached(Layout(root), Up.command(root)) == 0
    assert "ready; the gateway is at 127.0.0.1:" in capfd.readouterr().out
    local = [sys.executable, "-m", "shammah_local"]
    shown = subprocess.run([*local, "status", "--json", "--data-dir", str(root)], capture_output=True, check=False)
    assert shown.returncode == 0
    state = json.loads(shown.stdout)
    assert state["running"]
    assert state["state"] == "ready"
    stopped = subprocess.run([*local, "down", "--data-dir", str(root)], capture_output=True, check=False)
    assert stopped.returncode == 0, stopped.stderr
    assert not any(exists(part["pid"]) for part in state["parts"].values())
    again = subprocess.run([*local, "down", "--data-dir", str(root)], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "nothing runs" in again.stderr
    shown = subprocess.run([*local, "status", "--json", "--data-dir", str(root)], capture_output=True, check=False)
    assert shown.returncode == 3
    assert json.loads(shown.stdout) == {"running": False}
