"""A real Shammah for a benchmark: started in a folder of its own, stopped at the end; and how results are written."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from shammah_gateway.cli import local
from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.paths import find_connection

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data/workload"
RESULTS = Path(__file__).parent / "results"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure, named as the issue names it."""

    id: str
    value: float
    unit: str
    note: str = ""
    peer: str = ""
    peer_value: float | None = None


def machine() -> str:
    """Describe this machine in one line."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Python {platform.python_version()}"


def write_results(name: str, command: str, figures: Sequence[Figure]) -> None:
    """Write `results/NAME.json`; unset peers and notes are left out."""
    body = {
        "command": command,
        "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": [
            {key: value for key, value in asdict(figure).items() if value not in ("", None)} for figure in figures
        ],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    print(f"wrote {path}")


@contextmanager
def running(settings: Sequence[str], *, kept: Path | None = None) -> Iterator[Path]:
    """Start every part in a fresh folder, or in one that an earlier run kept; stop and delete it at the end."""
    folder = kept or Path(tempfile.mkdtemp(prefix="shammah-bench-"))
    try:
        if local.start(folder, detach=True, settings=list(settings)):
            for log in sorted((folder / "run").glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}", file=sys.stderr)
            raise SystemExit("the parts did not start")
        yield folder
    finally:
        local.stop(folder)
        if os.environ.get("SHAMMAH_BENCH_KEEP"):
            print(f"kept {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def with_client(folder: Path, work: Callable[[GatewayClient], Awaitable[T]]) -> T:
    """Run a coroutine with a client of the running gateway."""

    async def inner() -> T:
        async with GatewayClient(find_connection(folder)) as client:
            return await work(client)

    return asyncio.run(inner())


def need_data(*names: str) -> list[Path]:
    """Return the paths of workload files; ends the benchmark with a clear line where they are absent."""
    paths = [DATA / name for name in names]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise SystemExit(f"this benchmark needs {', '.join(missing)}")
    return paths


def pull_models() -> None:
    """Make sure the base models are there."""
    subprocess.run([sys.executable, "-m", "shammah_trainer.pull"], check=True)
