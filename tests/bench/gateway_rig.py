"""The processes of the gateway's benchmark: upstream, load generator, peers, and the gateway itself.

It starts and stops them and talks with them; what is measured is the caller's affair.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shammah_chassis.nats_server import NatsServer
from shammah_chassis.token_book import write_tokens

PEERS = Path(__file__).with_name("peers")
BENCH = Path(__file__).parents[2] / ".bench"
LITELLM = Path(os.environ.get("SHAMMAH_BENCH_LITELLM", BENCH / "litellm"))
TENSORZERO = Path(os.environ.get("SHAMMAH_BENCH_TENSORZERO", BENCH / "tensorzero"))
MODEL = "claude-sonnet-5-5"
_START_SECONDS = 120.0
Row = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """An address, its headers and the bodies that are sent to it by turns; what each reply must have."""

    url: str
    headers: Mapping[str, str]
    bodies: Sequence[Mapping[str, Any]]
    expected: Sequence[str] = ()
    events: int = 0


class Talker:
    """A child that reads commands and prints results, a JSON object a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **command: object) -> list[Row]:
        """Send a command and return the rows of its result; ends the benchmark when there is none."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command, default=_to_json) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            # TensorZero logs on standard output too.
            if line.startswith("{"):
                result = json.loads(line)
                if "error" in result:
                    raise SystemExit(result["error"])
                rows: list[Row] = result["rows"]
                return rows
        raise SystemExit(f"{self._process.args!r} ended")


def _to_json(value: object) -> object:
    if isinstance(value, Target):
        return {name: getattr(value, name) for name in value.__slots__}
    raise TypeError(f"no JSON: {value!r}")


@contextmanager
def child(command: Sequence[str | Path], *, log: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process while the block runs; it may end by the end of its standard input, else it is terminated."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHAMMAH_", "ANTHROPIC_"))}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**kept, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if "peers/gateway_" in str(command[1]) else errors,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def run_upstream(folder: Path) -> Iterator[str]:
    """Serve the stub; yields its address."""
    with child([sys.executable, PEERS / "gateway_upstream.py"], log=folder / "upstream.log") as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


@contextmanager
def run_load(folder: Path) -> Iterator[Talker]:
    """Start the load generator."""
    with child([sys.executable, PEERS / "gateway_load.py"], log=folder / "load.log") as process:
        yield Talker(process)


@contextmanager
def run_tensorzero(folder: Path, upstream: str) -> Iterator[Talker]:
    """Start the process that embeds TensorZero."""
    python = need_peer(TENSORZERO / "bin/python")
    command: list[str | Path] = [python, PEERS / "gateway_tensorzero.py", upstream, folder]
    with child(command, log=folder / "tensorzero.log") as process:
        yield Talker(process)


def need_peer(path: Path) -> Path:
    """Return a program of a peer's environment; ends the benchmark where it is absent."""
    if not path.exists():
        raise SystemExit(f"{path} is not there: run `make bench-gateway-peers` once")
    return path


class Litellm:
    """A running LiteLLM proxy. Its idle work takes a share of a core, so it is stopped while others are measured."""

    def __init__(self, process: subprocess.Popen[str], url: str, key: str) -> None:
        self._process = process
        self.url = url
        self.key = key

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run while the block runs."""
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)


@contextmanager
def run_litellm(folder: Path, upstream: str) -> Iterator[Litellm]:
    """Start LiteLLM's proxy: one worker, no database, its settings for production."""
    program = need_peer(LITELLM / "bin/litellm")
    key, port = f"sk-bench-{secrets.token_hex(24)}", _free_port()
    params = {"model": f"anthropic/{MODEL}", "api_base": upstream, "api_key": "sk-ant-bench"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": params}],
        "general_settings": {"master_key": key},
        "litellm_settings": {"telemetry": False, "set_verbose": False},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config), "utf-8")
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "ANTHROPIC_API_BASE": upstream,
        "ANTHROPIC_API_KEY": "sk-ant-bench",
    }
    command: list[str | Path] = [
        program,
        "--config",
        path,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    with child(command, log=folder / "litellm.log", **environment) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_served(process, f"{url}/health/liveliness", log=folder / "litellm.log")
        litellm = Litellm(process, url, key)
        with litellm.awake():
            pass
        try:
            yield litellm
        finally:
            process.send_signal(signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway of ours."""

    url: str
    token: str
    process: subprocess.Popen[str]


@contextmanager
def run_gateway(
    folder: Path, upstream: str, *, bus: NatsServer, tokens: Mapping[str, str], **settings: object
) -> Iterator[Gateway]:
    """Start `python -m shammah_gateway` before the upstream, with booking on and no caps; the rest as its defaults."""
    own = folder / f"gateway-{secrets.token_hex(3)}"
    own.mkdir()
    (own / "anthropic.key").write_text("sk-ant-bench")
    given = {
        "tokens_file": folder / "tokens.json",
        "nats_url": bus.url,
        "data_dir": own,
        "store_url": f"dir:{folder / 'store'}",
        "ready_file": own / "ready.json",
        "teacher": "anthropic",
        "anthropic_base_url": upstream,
        "anthropic_key_file": own / "anthropic.key",
        "http_port": 0,
        "log_level": "WARNING",
        **settings,
    }
    with run_part("gateway", given, log=own / "gateway.log") as (process, ports):
        yield Gateway(f"http://127.0.0.1:{ports['http_port']}", tokens["owner"], process)


@contextmanager
def run_part(
    name: str, settings: Mapping[str, object], *, log: Path
) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """Run a part of Shammah as a process of its own; yields it and its ports once it is ready."""
    environment = {f"SHAMMAH_{name.upper()}_{key.upper()}": str(value) for key, value in settings.items()}
    ready = Path(str(settings["ready_file"]))
    with child([sys.executable, "-m", f"shammah_{name}"], log=log, **environment) as process:
        limit = time.monotonic() + _START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"the {name} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield process, json.loads(ready.read_text("utf-8"))


@contextmanager
def run_bus(folder: Path) -> Iterator[tuple[NatsServer, dict[str, str]]]:
    """Start the event bus and write the tokens."""
    grants = {"owner": ["ask", "audit", "admin", "analyze"], "internal": ["serve"]}
    tokens = write_tokens(folder / "tokens.json", grants)
    (folder / "internal.token").write_text(tokens["internal"])
    with ExitStack() as stack:
        bus = NatsServer.start(folder / "nats")
        stack.callback(bus.stop)
        yield bus, tokens


def wait_until_served(process: subprocess.Popen[str], url: str, *, log: Path) -> None:
    """Wait until an address answers."""
    limit = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"{url} is not served: {error}\n{log.read_text()[-3000:]}") from error
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
