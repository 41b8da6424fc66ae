"""The trainer's work: ledger, intake, triggers and rounds behind plain values. Knows neither grpc nor protos.

It starts in the background: connecting, the base models of a first start and the reading of the log take their time,
and calls that come before are refused with what it is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shammah_chassis.artifacts import ArtifactStore, open_store
from shammah_chassis.bus import Bus
from shammah_chassis.errors import NotFoundError, ShammahError, UnavailableError
from shammah_chassis.examples import Example
from shammah_chassis.lease import Lease
from shammah_chassis.settings import read_secret
from shammah_chassis.tasks import stop_tasks
from shammah_chassis.ulid import new_ulid

from shammah_trainer.base_models import find_models_dir, pull
from shammah_trainer.config import TrainerSettings
from shammah_trainer.device import choose_device
from shammah_trainer.forget import (
    Erasure,
    Forgotten,
    erase_from_ledger,
    erase_from_log,
    find_sources,
    is_stale,
    name_releases,
)
from shammah_trainer.ingest import Ingest, Outcome
from shammah_trainer.intake import Intake
from shammah_trainer.jobs import JobBook, TrainJob
from shammah_trainer.ledger import Ledger
from shammah_trainer.log_change import position_of
from shammah_trainer.problems import StoppedError
from shammah_trainer.publishing import publish, read_champion, read_wanted, write_first_champion
from shammah_trainer.readings import TrainerStatus, load_last_round, measure_resident_bytes
from shammah_trainer.release_zero import build_release_zero
from shammah_trainer.round_log import read_parked
from shammah_trainer.round_plan import count_due
from shammah_trainer.runner import Runner, RunnerParts
from shammah_trainer.samples import draw_samples
from shammah_trainer.triggers import Triggers
from shammah_trainer.unparking import send_again, unpark_rows

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 2.0
_SETTLE_SECONDS = 20.0
_CANDIDATE_SECONDS = 120.0
# How long a call that stops a round waits for the round's next step.
STOP_SECONDS = 20.0


class TrainerEngine:
    """One trainer. `start` returns at once; `ready` tells when calls are welcome."""

    def __init__(self, settings: TrainerSettings) -> None:
        """Nothing happens yet."""
        self._settings = settings
        self.device = choose_device(settings.device)
        self._jobs = JobBook()
        self._ledger_thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="round")
        self._triggers = Triggers(
            batch_size=settings.batch_size,
            max_wait_seconds=settings.max_wait_seconds,
            cooldown_seconds=settings.cooldown_seconds,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._round: asyncio.Task[None] | None = None
        self._stage = "starting"
        self._ready = False
        self._bus: Bus | None = None
        self._store: ArtifactStore | None = None
        self._ledger: Ledger | None = None
        self._ingest: Ingest | None = None
        self._intake: Intake | None = None
        self._runner: Runner | None = None
        self._position = 0
        self._stale = False  # whether the champion's index may hold what was forgotten
        self._candidate_since = 0.0

    @property
    def ready(self) -> bool:
        """Whether the start is over."""
        return self._ready

    def start(self) -> None:
        """Begin to start in the background."""
        self._tasks.append(asyncio.create_task(self._start_until_done()))

    async def close(self) -> None:
        """Stop the round at its next step, then everything else, the bus last."""
        self._ready = False
        if self._runner is not None:
            self._runner.stop()
        await stop_tasks(self._tasks)
        if self._round is not None:
            await asyncio.gather(self._round, return_exceptions=True)
        if self._intake is not None:
            await self._intake.close()
        self._ledger_thread.shutdown(wait=True)
        self._worker.shutdown(wait=True)
        if self._ledger is not None:
            self._ledger.close()
        if self._bus is not None:
            await self._bus.close()

    async def train(self, reason: str = "", request_id: str = "") -> TrainJob:
        """Start a round now, or return the job of the one that runs, or the one that this request began before.

        Raises:
            PreconditionError: nothing to train on.
            UnavailableError: the trainer still starts, or the bus is away.
        """
        runner = self._need(self._runner)
        known = self._jobs.find(request_id) or self._jobs.running
        if known is not None:
            return known
        job = TrainJob(new_ulid(), request_id=request_id)
        self._jobs.add(job)
        try:
            # Who sends examples and asks for a round at once means these examples.
            await self._need(self._intake).settle(_SETTLE_SECONDS)
            await runner.plan(job.id)
        except ShammahError as error:
            # No round has begun, so the same request may ask for one again.
            job.request_id = ""
            job.fail(error.code, error.message)
            raise
        except asyncio.CancelledError:
            # Who asked is gone: a job that never ends would keep every other round from starting.
            job.request_id = ""
            job.fail("unavailable", "the call that asked for this round was given up", cancelled=True)
            raise
        except Exception as error:
            job.request_id = ""
            job.fail("internal", f"{type(error).__name__}: {error}")
            raise
        _LOG.info("round %s starts: %s", job.id, reason or "asked for")
        self._round = asyncio.create_task(self._run(job, runner))
        return job

    async def stop_train(self, job_id: str, request_id: str = "", wait_seconds: float = STOP_SECONDS) -> TrainJob:
        """Stop a round at its next step and return its job, ended if it ends in time; its examples stay queued.

        One that has ended, or whose release is out already, stays as it is.

        Raises:
            NotFoundError: nobody knows the id, and no round was begun by this request.
        """
        job = self._jobs.find(request_id)
        if job is None or job_id:
            job = await self._jobs.get(job_id, 0.0)
        job.stop.set()
        return await self._jobs.get(job.id, wait_seconds)

    async def get_job(self, job_id: str, wait_seconds: float = 0.0) -> TrainJob:
        """Return a job, waiting up to 25 s for its end; NotFoundError when nobody knows the id."""
        return await self._jobs.get(job_id, wait_seconds)

    async def read_status(self) -> TrainerStatus:
        """Return the state of queue, ledger and rounds."""
        ledger = self._need(self._ledger)
        await self._refresh_position()
        counts = await self._in_ledger(lambda: ledger.count_rows(after=self._position))
        parked = await self._in_ledger(lambda: read_parked(ledger))
        return TrainerStatus(
            categories=counts,
            queue_size=sum(entry["new_train"] for entry in counts.values()),
            parked=parked,
            batch_size=self._settings.batch_size,
            ledger_sequence=ledger.read_meta("sequence"),
            acked_sequence=ledger.read_meta("acked"),
            dead_letters=ledger.read_meta("poison"),
            last_round=self._jobs.last,
            resident_bytes=measure_resident_bytes(),
            device=self.device,
        )

    async def sample(self, count: int, categories: Sequence[str], seed: int) -> list[Example]:
        """Draw dev examples, see `draw_samples`."""
        ledger = self._need(self._ledger)
        return await self._in_ledger(lambda: draw_samples(ledger, count, categories, seed))

    async def forget(self, name: str) -> Erasure:
        """Remove what a request (or an example) of that id left, and name the releases that learned from it.

        Raises:
            NotFoundError: no example is of that request, nor has that id.
            UnavailableError: the bus or the store is away; forgetting again goes on.
        """
        ledger, ingest = self._need(self._ledger), self._need(self._ingest)
        await self._need(self._intake).settle(_SETTLE_SECONDS)
        sources = await self._in_ledger(lambda: find_sources(ledger, name))
        if not sources:
            raise NotFoundError(f"no example of the request {name!r} is known, nor one of that id")
        messages = await erase_from_log(self._need(self._bus), sources, name)

        def erase() -> Forgotten:
            forgotten = erase_from_ledger(ledger, name, messages)
            ingest.rebuild_index()
            return forgotten

        forgotten = await self._in_ledger(erase)
        store = self._need(self._store)
        releases = [await store.get_release(release) for release in await store.list_releases()]
        return Erasure(forgotten, name_releases(forgotten, releases))

    async def unpark(self, category: str = "") -> list[Example]:
        """Queue what is parked again, see `unpark_rows`."""
        ledger, bus = self._need(self._ledger), self._need(self._bus)
        envelopes = await self._in_ledger(lambda: unpark_rows(ledger, category))
        await send_again(bus, envelopes)
        return [example for envelope in envelopes for example in envelope.examples]

    async def check(self, examples: Sequence[Example]) -> list[Outcome]:
        """Say what ingestion would do with each example, without doing it."""
        ingest = self._need(self._ingest)
        return await self._in_ledger(lambda: [ingest.check(example) for example in examples])

    async def _run(self, job: TrainJob, runner: Runner) -> None:
        loop = asyncio.get_running_loop()
        job.start()

        def report(stage: str, fraction: float) -> None:
            loop.call_soon_threadsafe(_note, job, stage, fraction)

        failed = True
        try:
            job.finish(await runner.run(job.id, report, job.stop))
            failed = False
        except ShammahError as error:
            _LOG.warning("round %s ended: %s: %s", job.id, error.code, error.message)
            job.fail(error.code, error.message, cancelled=isinstance(error, StoppedError))
        except Exception as error:  # the one place where a foreign error becomes a failed job
            _LOG.exception("round %s failed", job.id)
            job.fail("internal", f"{type(error).__name__}: {error}")
        self._triggers.note_end(failed=failed)

    async def _start_until_done(self) -> None:
        while not self._ready:
            try:
                await self._start_once()
            except (ShammahError, OSError) as error:
                # A full disk too: the start goes on once there is room, and says until then what it waits for.
                _LOG.warning("start: %s", error)
                with contextlib.suppress(OSError):
                    self._say(f"waiting: {error}")
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:  # a later start may find what this one did not
                _LOG.exception("start: failed while %s", self._stage)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _start_once(self) -> None:
        settings = self._settings
        self._say("connecting to the event bus")
        if self._bus is None:
            self._bus = await Bus.connect(settings.nats_url, token=read_secret(settings.nats_token_file))
        await self._bus.ensure(settings.log_max_bytes)
        self._store = store = open_store(settings.store_url, self._bus)
        if self._ledger is None:
            self._say("opening the ledger")
            self._ledger = ledger = Ledger(settings.data_dir / "ledger.sqlite")
            self._ingest = await self._in_ledger(lambda: Ingest(ledger, settings.policy()))
        if self._intake is None:
            self._intake = Intake(
                self._bus, self._ledger, self._need(self._ingest), self._ledger_thread, covered=lambda: self._position
            )
        lease = Lease(self._bus, holder=f"trainer-{new_ulid()}", ttl_seconds=settings.lease_seconds)
        self._runner = self._make_runner(self._bus, store, lease)
        await self._ensure_release_zero(self._bus, store, lease)
        self._say("finishing what was interrupted")
        await lease.acquire()
        try:
            await self._runner.recover()
        finally:
            await lease.release()
        earlier = load_last_round(self._need(self._ledger))
        if earlier is not None and self._jobs.last is None:
            self._jobs.add(earlier)
        await self._refresh_position()
        self._say("reading the example log")
        await self._intake.catch_up()
        await self._refresh_position()
        self._tasks.append(asyncio.create_task(self._intake.follow(lambda: None)))
        self._tasks.append(asyncio.create_task(self._follow_triggers()))
        self._ready = True
        self._say("ready")

    def _make_runner(self, bus: Bus, store: ArtifactStore, lease: Lease) -> Runner:
        settings = self._settings
        return Runner(
            RunnerParts(
                bus=bus,
                store=store,
                ledger=self._need(self._ledger),
                intake=self._need(self._intake),
                worker=self._worker,
                lease=lease,
                work=settings.data_dir / "work",
                cache=settings.cache_dir,
                limits=settings.plan_limits(),
                settings=settings.round_settings(self.device),
                lease_seconds=settings.lease_seconds,
            )
        )

    async def _ensure_release_zero(self, bus: Bus, store: ArtifactStore, lease: Lease) -> None:
        """At the very first start: pull the base models, build release 0, make it the champion."""
        if await read_champion(bus) is not None:
            return
        loop = asyncio.get_running_loop()
        fence = await lease.acquire()
        try:
            folder = self._settings.models_dir or find_models_dir()
            self._say("looking for the base models")
            base = await loop.run_in_executor(self._worker, lambda: pull(folder, progress=self._say))
            self._say("building release 0")
            work = self._settings.data_dir / "work" / "base"
            precision = self._settings.precision
            release, versions = await loop.run_in_executor(
                self._worker, lambda: build_release_zero(base, work, precision=precision, fence=fence)
            )
            self._say("publishing release 0")
            await lease.acquire()  # the pull may have outlived it
            await publish(store, release, versions, check_lease=lease.renew)
            await write_first_champion(bus, release.id)
        finally:
            await lease.release()

    async def _follow_triggers(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._settings.auto_train or self._jobs.running is not None:
                continue
            try:
                if await self._should_start():
                    await self.train("by itself")
            except ShammahError as error:
                _LOG.info("no round: %s", error.message)
            except Exception:  # a later look may find what this one did not
                _LOG.exception("looking whether a round is due failed")

    async def _should_start(self) -> bool:
        ledger = self._need(self._ledger)
        await self._refresh_position()
        rows = await self._in_ledger(lambda: count_due(ledger, champion_position=self._position, stale=self._stale))
        return self._triggers.should_start(rows) and not await self._has_young_candidate()

    async def _has_young_candidate(self) -> bool:
        """Say whether a candidate is about to be promoted: the next round should start from it."""
        wanted = await read_wanted(self._need(self._bus))
        if wanted is None or not wanted.candidate:
            self._candidate_since = 0.0
            return False
        self._candidate_since = self._candidate_since or time.monotonic()
        return time.monotonic() - self._candidate_since < _CANDIDATE_SECONDS

    async def _refresh_position(self) -> None:
        with contextlib.suppress(UnavailableError):  # the last known one will do for a status
            champion = await self._need(self._runner).read_champion_release()
            self._position = position_of(champion, self._need(self._ledger))
            self._stale = is_stale(self._need(self._ledger), champion)

    async def _in_ledger(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._ledger_thread, work)

    def _need(self, part: T | None) -> T:
        if part is None:
            raise UnavailableError(f"the trainer starts: {self._stage}", retry_after_seconds=1.0)
        return part

    def _say(self, stage: str) -> None:
        """Keep and write what the start is doing; called from the worker thread too."""
        self._stage = stage
        path = self._settings.progress_file
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{os.getpid()}")
            aside.write_text(stage + "\n", "utf-8")
            aside.replace(path)


def _note(job: TrainJob, stage: str, fraction: float) -> None:
    if not job.ended.is_set():
        job.stage, job.progress = stage, max(job.progress, fraction)
