"""A round from the lease to the acknowledgement: the only place where training meets bus and store.

Order of writing: versions, release, ledger, KV `wanted`, ack. A crash between any two is finished or repeated by
`recover`, and trains nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from shammah_chassis.artifacts import ArtifactStore
from shammah_chassis.bus import Bus
from shammah_chassis.errors import (
    ConflictError,
    PreconditionError,
    ShammahError,
    StorageFullError,
    UnavailableError,
    UnknownReleaseError,
)
from shammah_chassis.lease import Lease
from shammah_chassis.manifest import ROLES, Role, read_manifest
from shammah_chassis.releases import Release
from shammah_chassis.tasks import stop_tasks
from shammah_chassis.withdrawn import read_withdrawn

from shammah_trainer.forget import is_stale
from shammah_trainer.intake import Intake
from shammah_trainer.ledger import Ledger
from shammah_trainer.leftovers import clear_rollouts, clear_versions, read_releases
from shammah_trainer.log_change import position_of
from shammah_trainer.phases import Phases, Report
from shammah_trainer.problems import DeviceMemoryError, DivergedError, StoppedError
from shammah_trainer.publishing import (
    Version,
    has_release,
    propose_candidate,
    publish,
    publish_checkpoint,
    read_champion,
)
from shammah_trainer.round import PHASES, Round, RoundInputs, RoundProduct, RoundSettings
from shammah_trainer.round_log import (
    INTERRUPTED,
    begin_round,
    close_round,
    mark_published,
    open_rounds,
    park_rows,
    read_parked,
)
from shammah_trainer.round_plan import PlanLimits, RoundPlan, count_due, has_new_evidence, make_plan, seed_of

_LOG = logging.getLogger(__name__)
# What ends a round again and again as long as the same rows are in it.
_OF_ROWS = (DivergedError, DeviceMemoryError)
# Longer than the bus takes to give up.
_ASK_SECONDS = 15.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerParts:
    """What a runner works with. `worker` has one thread: rounds are computed there and nowhere else."""

    bus: Bus
    store: ArtifactStore
    ledger: Ledger
    intake: Intake
    worker: Executor
    lease: Lease
    work: Path
    cache: Path
    limits: PlanLimits
    settings: RoundSettings
    lease_seconds: float


class Runner:
    """Runs rounds, one at a time."""

    def __init__(self, parts: RunnerParts) -> None:
        """Nothing happens yet."""
        self._parts = parts
        self._stop = threading.Event()
        self._closing = False

    def stop(self) -> None:
        """Ask a running round to end at its next step, and let no other begin; its examples stay queued."""
        self._closing = True
        self._stop.set()

    async def read_champion_release(self) -> Release:
        """Return the release that serves; UnavailableError before the first start."""
        champion = await read_champion(self._parts.bus)
        if champion is None:
            raise UnavailableError("there is no champion yet; the trainer makes release 0 at its first start")
        return await self._parts.store.get_release(champion.release)

    async def plan(self, round_id: str) -> tuple[Release, RoundPlan]:
        """Choose the rows of the next round.

        Raises:
            PreconditionError: the champion has learned from every train row, and no evidence came since; or there are
                neither train nor dev rows.
        """
        champion = await self.read_champion_release()
        ledger = self._parts.ledger
        position = position_of(champion, ledger)
        plan = await self._in_worker(
            lambda: make_plan(ledger, champion_position=position, limits=self._parts.limits, seed=seed_of(round_id))
        )
        # An index that must be made anew needs neither new nor dev rows.
        due = count_due(ledger, champion_position=position, stale=is_stale(ledger, champion))
        if not plan.train and not plan.dev and not due:
            raise PreconditionError(
                "nothing to train on: there are no train and no dev examples, only exam rows or none"
                + _tell_parked(ledger)
            )
        evidence = plan.exam and has_new_evidence(ledger, champion_position=position)
        if not plan.new and not evidence and not due:
            raise PreconditionError(
                f"nothing to train on: the champion has learned from every train example there is{_tell_parked(ledger)}"
            )
        return champion, plan

    async def run(self, round_id: str, report: Report, stop: threading.Event | None = None) -> dict[str, Any]:
        """Run one round and return its result; setting `stop` ends it at its next step.

        Raises:
            ShammahError: by name what went wrong; the champion stays, the examples stay queued.
        """
        # Each round has its own mark: one that came late for the round before must not end this one.
        self._stop = stop or threading.Event()
        if self._closing:
            raise StoppedError("the trainer shuts down; the examples stay queued")
        fence = await self._parts.lease.acquire()
        try:
            if self._closing or self._stop.is_set():  # the stop came while the lease was taken
                raise StoppedError("the round was stopped before it began; the examples stay queued")
            await self.recover()
            await self._clear_versions()
            champion, plan = await self.plan(round_id)
            await publish_checkpoint(
                self._parts.store, champion, metrics={"train_rows": len(plan.train)}, reason="before a round"
            )
            rows = [row.id for row in plan.train]
            begin_round(self._parts.ledger, round_id, position=plan.position, rows=rows, champion=champion.id)
            try:
                return await self._run_begun(round_id, champion, plan, fence, report)
            except BaseException as error:
                await self._give_up(round_id, error)
                raise
        finally:
            shutil.rmtree(self._parts.work / round_id, ignore_errors=True)
            with contextlib.suppress(ShammahError):
                await self._parts.lease.release()

    async def recover(self) -> None:
        """Finish what a crash left: a release in the store is marked and proposed, anything else is given up."""
        for entry in open_rounds(self._parts.ledger):
            if entry.state == "running" and not await has_release(self._parts.store, entry.id):
                _close_interrupted(self._parts.ledger, entry.id)
                continue
            try:
                release = await self._parts.store.get_release(entry.id)
            except UnknownReleaseError:
                # It served or was refused, and was cleared since: nothing is left to finish.
                close_round(self._parts.ledger, entry.id, state="done")
                continue
            mark_published(self._parts.ledger, entry.id, {"release": entry.id, "verdict": release.verdict})
            await self._finish(release)
        shutil.rmtree(self._parts.work, ignore_errors=True)

    async def _run_begun(
        self, round_id: str, champion: Release, plan: RoundPlan, fence: int, report: Report
    ) -> dict[str, Any]:
        phases = Phases(PHASES, report, self._stop)
        inputs = RoundInputs(
            id=round_id,
            work=self._parts.work / round_id,
            champion=champion,
            parents=await self._fetch(champion),
            plan=plan,
            fence=fence,
            erases=is_stale(self._parts.ledger, champion),
            read_withdrawn=self._ask_withdrawn(champion),
        )
        inputs.work.mkdir(parents=True, exist_ok=True)
        product = await self._compute(inputs, phases)
        with phases.run("publish", "publishing the release"):
            await publish(self._parts.store, product.release, product.versions, check_lease=self._hold_lease)
        product.result["phase_seconds"] = dict(phases.seconds)
        mark_published(self._parts.ledger, round_id, product.result)
        await self._finish(product.release)
        await self._clear_rollouts(product.release)
        return product.result

    async def _compute(self, inputs: RoundInputs, phases: Phases) -> RoundProduct:
        """Compute in the worker while the lease is renewed; losing the lease stops the round."""
        made = Round(self._parts.ledger, inputs, self._parts.settings, phases)
        renewing = asyncio.create_task(self._keep_lease())
        try:
            return await self._in_worker(made.compute)
        except (OSError, SafetensorError) as error:
            raise _name_disk_error(error) from error
        finally:
            await stop_tasks([renewing])

    def _ask_withdrawn(self, champion: Release) -> Callable[[], frozenset[str]]:
        """Return what asks the bus, from the worker, which of the champion's categories are withdrawn at that moment.

        None where nobody can say: that can hold a candidate, and promotes none.
        """
        loop = asyncio.get_running_loop()

        def ask() -> frozenset[str]:
            asked = asyncio.run_coroutine_threadsafe(read_withdrawn(self._parts.bus, champion.id), loop)
            try:
                return asked.result(_ASK_SECONDS)
            except (ShammahError, TimeoutError) as error:
                asked.cancel()
                _LOG.warning("what audits have withdrawn can't be read: %s", error)
                return frozenset()

        return ask

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._parts.lease_seconds / 3)
            try:
                await self._hold_lease()
            except ConflictError:
                self._stop.set()
                return
            except ShammahError:
                continue  # the bus is away; the check before publishing decides

    async def _hold_lease(self) -> None:
        """Renew the lease; ConflictError when another holds it.

        A renewal that was stored but not confirmed makes the next one lose against itself; taking the lease again by
        our own name mends that, and is refused when it is another's.
        """
        try:
            await self._parts.lease.renew()
        except ConflictError:
            await self._parts.lease.acquire()

    async def _fetch(self, release: Release) -> dict[Role, Version]:
        found: dict[Role, Version] = {}
        for role in ROLES:
            folder = await self._parts.store.fetch_version(role, release.version_of(role), self._parts.cache)
            found[role] = Version(folder, read_manifest(folder))
        return found

    async def _finish(self, release: Release) -> None:
        """Propose what may serve, close the round, acknowledge. Each step may be repeated."""
        if release.verdict in ("promote", "undecided"):
            champion = await read_champion(self._parts.bus)
            # A round that a crash left may be overtaken; what serves already needs no proposal.
            if champion is not None and champion.release == release.parent:
                await propose_candidate(self._parts.bus, release.id)
        close_round(self._parts.ledger, release.id, state="done")
        with contextlib.suppress(UnavailableError):
            # Not lost: the next message that comes acknowledges the same position.
            await self._parts.intake.acknowledge()

    async def _clear_versions(self) -> None:
        """Make room for what this round will publish; what can't be cleared now ends no round."""
        try:
            await clear_versions(self._parts.store, self._parts.bus, hold_lease=self._hold_lease)
        except (ShammahError, OSError) as error:
            _LOG.warning("versions that no release names stay in the store: %s", error)

    async def _clear_rollouts(self, made: Release) -> None:
        ledger = self._parts.ledger
        try:
            releases = [made, *await read_releases(self._parts.store)]
            await self._in_worker(lambda: clear_rollouts(ledger, {release.generator for release in releases}))
        except ShammahError as error:
            _LOG.warning("rollouts of generators that are gone stay in the ledger: %s", error)

    async def _give_up(self, round_id: str, error: BaseException) -> None:
        """Close a failed round, unless its release is out already: then the next start finishes it."""
        published = False
        with contextlib.suppress(ShammahError):
            published = await has_release(self._parts.store, round_id)
        if published:
            return
        # A disk that is still full must not hide what ended the round; the next start closes it.
        with contextlib.suppress(ShammahError):
            if not isinstance(error, Exception):
                _close_interrupted(self._parts.ledger, round_id)
                return
            code = error.code if isinstance(error, ShammahError) else ShammahError.code
            text = f"{type(error).__name__}: {error}"
            close_round(self._parts.ledger, round_id, state="failed", error=text, code=code)
            if isinstance(error, _OF_ROWS) and (parked := park_rows(self._parts.ledger, type(error).__name__)):
                _LOG.warning("%d examples are parked, two rounds in a row ended on them: %s", parked, error)

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._parts.worker, work)


def _close_interrupted(ledger: Ledger, round_id: str) -> None:
    close_round(ledger, round_id, state="failed", error="interrupted; it will be repeated", code=INTERRUPTED)


def _tell_parked(ledger: Ledger) -> str:
    parked = read_parked(ledger)
    return f"; {parked.rows} are parked: {parked.reason}" if parked.rows else ""


def _name_disk_error(error: OSError | SafetensorError) -> ShammahError:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in str(error):
        return StorageFullError(f"the disk is full: {error}; nothing was published, the examples stay queued")
    return UnavailableError(f"the disk failed: {error}; nothing was published, the examples stay queued")
