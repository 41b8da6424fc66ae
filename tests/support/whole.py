"""A whole Shammah with tiny random-weight base models, started and stopped as a user does."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from shammah.v1 import gateway_pb2, trainer_pb2, trainer_pb2_grpc, types_pb2
from shammah_chassis.channels import channel
from shammah_chassis.errors import ShammahError
from shammah_gateway.cli.client import GatewayClient, run
from shammah_gateway.cli.paths import Connection, find_connection

T = TypeVar("T")
CONTEXT = 256
# What each tiny category always answers: a random-weight model learns that in seconds.
ANSWERS = {"colour": "blue", "animal": "cat"}
WORDS = ("hall", "car", "roof", "tree", "sea", "book", "lamp", "door", "hat", "cup", "wall", "boat", "moon", "path")
MANNERS = ("please", "now", "again", "today", "quickly", "once", "for me", "if you can")


def make_rows(category: str, count: int, *, offset: int = 0) -> list[dict[str, object]]:
    """Return workload rows of one tiny category; rows with different offsets have different queries."""
    rows: list[dict[str, object]] = []
    for number in range(offset, offset + count):
        word, other = WORDS[number % len(WORDS)], WORDS[(number // len(WORDS) + number) % len(WORDS)]
        manner = MANNERS[number % len(MANNERS)]
        query = f"{category} of {word} {number} and {other} {number * 7 % 101} {manner}"
        rows.append(
            {
                "id": f"{category}-{number}",
                "source": "test",
                "license": "Apache-2.0",
                "category": category,
                "query": query,
                "reference": ANSWERS[category],
                "metadata": {"family": category, "metric": "label", "split": "train"},
            }
        )
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    """Write rows as a gzip-compressed workload file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as target:
        target.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def wait_until(probe: Callable[[], T | None], *, seconds: float = 60.0, what: str = "it") -> T:
    """Poll until the probe gives a value; fails after the bound."""
    limit = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > limit:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Whole:
    """A running system: its data folder and the workload files it was made with."""

    folder: Path
    teach: Path
    exam: Path
    test: Path

    @property
    def connection(self) -> Connection:
        """Address and owner token of the gateway."""
        return find_connection(self.folder)

    def shammah(self, *arguments: str, check: bool = True, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run the command line against this system."""
        command = [sys.executable, "-m", "shammah_gateway.cli", "--data-dir", str(self.folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}\n{self.logs()}"
        return done

    def json(self, *arguments: str) -> dict[str, object]:
        """Run a command that prints JSON."""
        found = json.loads(self.shammah(*arguments).stdout)
        assert isinstance(found, dict)
        return found

    def status(self) -> gateway_pb2.GetStatusResponse:
        """Return the state of the whole, straight from the gateway."""

        async def fetch(client: GatewayClient) -> gateway_pb2.GetStatusResponse:
            found = await client.call(client.stub.GetStatus, gateway_pb2.GetStatusRequest(), timeout=20)
            assert isinstance(found, gateway_pb2.GetStatusResponse)
            return found

        return run(self.connection, fetch)

    def champion(self) -> str:
        """Return the release that serves."""
        return self.status().champion

    def stage(self) -> str:
        """Return what the trainer's round is doing now, straight from the trainer; "" when none runs."""

        async def fetch() -> str:
            ports = json.loads((self.folder / "run/trainer.ready.json").read_text("utf-8"))
            token = (self.folder / "internal.token").read_text("utf-8").strip()
            async with channel(f"127.0.0.1:{ports['port']}", token) as opened:
                stub = trainer_pb2_grpc.TrainerServiceStub(opened)
                job = (await stub.Status(trainer_pb2.StatusRequest(), timeout=10)).last_round
                return job.stage if job.state == types_pb2.JOB_STATE_RUNNING else ""

        return asyncio.run(fetch())

    def pid(self, part: str) -> int:
        """Return the process id of a part now."""
        state = json.loads((self.folder / "run/status.json").read_text("utf-8"))
        return int(state["parts"][part]["pid"])

    def kill(self, part: str) -> int:
        """kill -9 a part; returns the pid that died."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_return(self, part: str, *, dead: int) -> None:
        """Wait until a killed part runs again and everything is ready."""

        def back() -> bool:
            status = json.loads((self.folder / "run/status.json").read_text("utf-8"))
            return status["parts"][part].get("pid") not in (None, dead)

        wait_until(back, what=f"{part} to come back")
        wait_until(self.is_ready, what=f"all parts after {part} came back")

    def is_ready(self) -> bool:
        """Say whether every part answers."""
        try:
            return all(part.ready for part in self.status().parts)
        except ShammahError:
            return False

    def logs(self) -> str:
        """Return the tails of all logs, for a failure's message."""
        logs = sorted((self.folder / "run").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text('utf-8', 'replace')[-1500:]}" for log in logs)


def start_whole(root: Path, *, settings: Sequence[str] = ()) -> Whole:
    """Make tiny base models and a workload under `root`, start everything, wait until it is ready."""
    from support.tiny import make_tiny_encoder, make_tiny_generator  # here: it imports torch

    make_tiny_generator(root / "base/generator", max_positions=CONTEXT)
    make_tiny_encoder(root / "base/encoder")
    teach = write_rows(root / "teach.jsonl.gz", [row for name in ANSWERS for row in make_rows(name, 90)])
    exam = write_rows(root / "exam.jsonl.gz", [row for name in ANSWERS for row in make_rows(name, 60, offset=1000)])
    test = write_rows(root / "test.jsonl.gz", [row for name in ANSWERS for row in make_rows(name, 30, offset=2000)])
    tiny = [
        f"SHAMMAH_BASE_GENERATOR={root / 'base/generator'}",
        f"SHAMMAH_BASE_ENCODER={root / 'base/encoder'}",
        f"SHAMMAH_TRAINER_MODELS_DIR={root / 'cache'}",
        f"SHAMMAH_TRAINER_CONTEXT={CONTEXT}",
        f"SHAMMAH_GENERATOR_CONTEXT={CONTEXT}",
        "SHAMMAH_TRAINER_SFT_LEARNING_RATE=0.01",
        "SHAMMAH_TRAINER_SFT_EPOCHS=4",
    ]
    return start(Whole(root / "data", teach, exam, test), [*tiny, *settings])


def start(whole: Whole, settings: Sequence[str]) -> Whole:
    """Start everything with the recorded teacher, no coins and rounds only when asked; wait until it is ready."""
    given = [
        "SHAMMAH_TRAINER_AUTO_TRAIN=false",
        "SHAMMAH_TRAINER_ALPHA=0.2",
        "SHAMMAH_GATEWAY_AUDIT_RATE=0",
        "SHAMMAH_GATEWAY_EXPLORE_RATE=0",
        "SHAMMAH_GATEWAY_ROLE_TIMEOUT_SECONDS=60",
        f"SHAMMAH_GATEWAY_RECORDED_FILES={whole.teach},{whole.exam},{whole.test}",
        "SHAMMAH_GATEWAY_TEACHER=recorded",
        *settings,
    ]
    whole.shammah("up", "--detach", *(word for text in given for word in ("--set", text)), timeout=300)
    return whole
