"""Run a Python program that nobody has read, without network, in bounded time, memory and disk.

One child process in its own session: `python -I -S`, empty environment, empty working directory, output capped. Inside,
`shammah_chassis.jail` cuts it off before the program starts; where the network cannot be cut (no Linux, no seccomp) it
refuses. It does not know tests or examples.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
# Appended, not put first: the standard library must not be shadowed by what is installed beside us.
_START = f"import sys; sys.path.append({_ROOT!r}); from shammah_chassis.jail.main import main; main()"
_KEPT_OUTPUT = 4_096
_KEPT_REPORT = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use: wall and CPU seconds, bytes of memory (address space), bytes of files."""

    seconds: float = 10.0
    memory_bytes: int = 512 * 1024 * 1024
    disk_bytes: int = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxResult:
    """How a run ended.

    `outcome` is `passed` (ran to its end), `failed`, `timeout` or `refused` (did not run: could not be
    cut off). `network` and `files` say how they were cut; `output` is the end of what the program
    printed.
    """

    outcome: str
    network: str
    files: str
    output: str


def run_program(sources: list[str], *, limits: Limits | None = None) -> SandboxResult:
    """Run the first of `sources` that compiles (variants of one program) and wait for its end.

    It passes when its last statement was reached: leaving early by `sys.exit` or `os._exit` is a
    failure. Blocks for up to `limits.seconds` and a little; safe from any thread.
    """
    limits = limits or Limits()
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="shammah-run-") as place:
        readable, writable = os.pipe()
        try:
            child = _start(place, writable)
        finally:
            os.close(writable)
        try:
            _send(child, _order(sources, token, writable, limits))
            on_time, output, report = _listen(child, readable, limits.seconds)
        finally:
            os.close(readable)
            _end(child)
    return _judge(report, token, on_time=on_time, output=output, code=child.returncode)


def _start(place: str, report: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", _START],
        cwd=place,
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(report,),
        start_new_session=True,
        bufsize=0,
    )


def _order(sources: list[str], token: str, report: int, limits: Limits) -> bytes:
    numbers = {
        # One more than the wall time, so that a plain endless loop is told as "timeout".
        "cpu_seconds": math.ceil(limits.seconds) + 1,
        "memory_bytes": limits.memory_bytes,
        "disk_bytes": limits.disk_bytes,
        "parent": os.getpid(),
    }
    order = {"sources": sources, "token": token, "report": report, "limits": numbers}
    return json.dumps(order).encode()


def _send(child: subprocess.Popen[bytes], order: bytes) -> None:
    assert child.stdin is not None
    view = memoryview(order)
    # A child that died at once is found by its missing report.
    with contextlib.suppress(BrokenPipeError):
        while view:
            view = view[child.stdin.write(view) :]
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()


def _listen(child: subprocess.Popen[bytes], report: int, seconds: float) -> tuple[bool, bytes, bytes]:
    """Read until both pipes end (True) or time is up (False); return the last output and the first report."""
    assert child.stdout is not None
    output, written = b"", b""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for source in (child.stdout.fileno(), report):
            selector.register(source, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return False, output, written
            for key, _ in selector.select(left):
                data = os.read(key.fd, 65_536)
                if not data:
                    selector.unregister(key.fd)
                elif key.fd == report:
                    written = (written + data)[:_KEPT_REPORT]
                else:
                    output = (output + data)[-_KEPT_OUTPUT:]
    return True, output, written


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child's process group and collect it."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _judge(report: bytes, token: str, *, on_time: bool, output: bytes, code: int) -> SandboxResult:
    first, _, rest = report.partition(b"\n")
    text = output.decode(errors="replace")
    try:
        done = json.loads(first)
    except ValueError:
        done = {"refused": f"the child did not start: {text.strip()[-300:]}"}
    if "refused" in done:
        return SandboxResult(outcome="refused", network="", files="", output=str(done["refused"]))
    outcome = "timeout"
    if on_time:
        outcome = "passed" if rest == token.encode() and code == 0 else "failed"
        if code < 0:
            text += f"\nkilled by {signal.Signals(-code).name}"
    return SandboxResult(outcome=outcome, network=done["network"], files=done["files"], output=text)
