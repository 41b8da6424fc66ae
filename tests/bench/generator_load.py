"""A new version: how soon it answers, and what its loading costs the streams of the version that serves."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from generator_pod import make_release, write_version
from generator_runs import NEW_TOKENS, PROMPT_TOKENS, Plan, RecordedModel, Stream, describe, opened, random_prompts
from shammah_chassis.held import Loader
from shammah_chassis.manifest import Manifest
from shammah_generator.config import GeneratorSettings
from shammah_generator.engine import Engine
from shammah_generator.loading import GeneratorVersions, HeldGenerator
from shammah_generator.requests import Handle, Request
from shammah_generator.sampling import Sampling
from system import Figure

IDS = ("swap_s", "decode_during_load")
STREAMS = 8
_CONTEXT = 2048
_CALM_SECONDS = 3.0
_ANSWER = 8


@dataclass(frozen=True, slots=True)
class _NewVersion:
    """A version on disk that no cache knows, and the loader of a pod that would fetch it."""

    folder: Path
    manifest: Manifest
    loader: Loader[HeldGenerator]

    def load(self) -> HeldGenerator:
        """Load it as a pod does: weights, session, engine, self-test with two prompts."""
        return self.loader.load(self.folder, self.manifest, make_release(self.manifest.version, "int8"))


def measure(wanted: Sequence[str], plan: Plan) -> Iterator[Figure]:
    """Yield the wanted figures."""
    with tempfile.TemporaryDirectory(prefix="shammah-bench-") as name:
        if "swap_s" in wanted:
            yield measure_swap(Path(name), plan)
        if "decode_during_load" in wanted:
            yield measure_company(Path(name), plan)


def _make_version(root: Path, number: int, plan: Plan) -> _NewVersion:
    shutil.rmtree(root, ignore_errors=True)
    settings = GeneratorSettings(
        data_dir=root / f"pod-{number}", cache_dir=root / f"pod-{number}/cache", threads=plan.threads
    )
    manifest = write_version(root / "version", seed=number + 1)
    # Else the system writes it to the disk while the load is timed.
    with (root / "version/model.safetensors").open("rb+") as file:
        os.fsync(file.fileno())
    return _NewVersion(root / "version", manifest, GeneratorVersions(settings).make_loader())


def measure_swap(root: Path, plan: Plan) -> Figure:
    """Time from a new version's files on disk to its first answer, by the loader of the pod."""
    loading, answering = [], []
    for number in range(plan.repetitions):
        version = _make_version(root, number, plan)
        begun = time.perf_counter()
        held = version.load()
        ready = time.perf_counter()
        prompt = random_prompts(1, seed=number)[0]
        request = Request(prompt_ids=tuple(prompt), sampling=Sampling(max_tokens=_ANSWER))
        answer = held.engine.generate_batch([request])[0]
        if answer.error is not None:
            raise SystemExit(f"the new version does not answer: {answer.error.message}")
        answering.append(time.perf_counter() - begun)
        loading.append(ready - begun)
        version.loader.close(held)
    note = (
        f"{describe(answering, ' s')}; of this {describe(loading, ' s')} until loaded and self-tested with 2 prompts, "
        f"then an answer of up to {_ANSWER} tokens to a prompt of {PROMPT_TOKENS}; int8 made from the float32 file "
        "(538 MB, in the page cache), digest known from the manifest; its check while fetching is not part of it"
    )
    return Figure("swap_s", statistics.median(answering), "s", note)


def measure_company(root: Path, plan: Plan) -> Figure:
    """Compare the rate of 8 streams while another version loads with the rate before and after."""
    ratios, normal, loaded, seconds = [], [], [], []
    with opened("int8", slots=STREAMS, threads=plan.threads, context=_CONTEXT) as (model, engine):
        for number in range(plan.repetitions):
            version = _make_version(root, number, plan)
            handles = _start_streams(model, engine, seed=number)
            calm = 1.0 if plan.quick else _CALM_SECONDS
            marks = [time.perf_counter()]
            time.sleep(calm)
            marks.append(time.perf_counter())
            held = version.load()
            marks.append(time.perf_counter())
            time.sleep(calm)
            marks.append(time.perf_counter())
            before, during, after = (_rate(model, *pair) for pair in pairwise(marks))
            _stop_streams(handles)
            version.loader.close(held)
            normal.append((before + after) / 2)
            loaded.append(during)
            ratios.append(during / normal[-1])
            seconds.append(marks[2] - marks[1])
    note = (
        f"ratio {describe(ratios)}; {STREAMS} streams, normal {describe(normal, ' tokens/s')} (mean of {calm:g} s "
        f"before and after), while a version loads {describe(loaded, ' tokens/s')}; loading beside them takes "
        f"{describe(seconds, ' s')}"
    )
    peer = "normal, tokens/s"
    return Figure("decode_during_load", statistics.median(ratios), "ratio", note, peer, statistics.median(normal))


def _start_streams(model: RecordedModel, engine: Engine, *, seed: int) -> list[tuple[Handle, Stream]]:
    """Start endless streams; returns when all decode."""
    sampling = Sampling(max_tokens=_CONTEXT - PROMPT_TOKENS)
    started = []
    for prompt in random_prompts(STREAMS, seed=seed):
        stream = Stream()
        started.append((engine.submit(Request(prompt_ids=tuple(prompt), sampling=sampling), stream.take), stream))
    model.steps.clear()
    limit = time.monotonic() + NEW_TOKENS
    while not (model.steps and model.steps[-1].rows == STREAMS):
        if time.monotonic() > limit:
            raise SystemExit("the streams did not start")
        time.sleep(0.01)
    return started


def _stop_streams(started: Sequence[tuple[Handle, Stream]]) -> None:
    for handle, _ in started:
        handle.cancel()
    for _, stream in started:
        stream.wait()


def _rate(model: RecordedModel, begun: float, ended: float) -> float:
    """Return tokens/s of the steps that ended in a span; SystemExit when a stream had ended by itself."""
    rows = [step.rows for step in model.steps if begun < step.ended <= ended]
    if not rows or min(rows) < STREAMS:
        raise SystemExit("a stream ended before the measurement did")
    return sum(rows) / (ended - begun)
