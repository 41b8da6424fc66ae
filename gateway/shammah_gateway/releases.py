"""The release controller: which release serves, and how traffic moves to another one and back.

Desired state in two keys (`champion`, `wanted`), each transition an idempotent compare-and-set: any number of gateways
may run this at once, the loser of a transition reads again. It knows neither queries nor training.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from shammah_chassis.artifacts import ArtifactStore
from shammah_chassis.bus import Bus
from shammah_chassis.errors import (
    ArtifactError,
    NotFoundError,
    PreconditionError,
    ShammahError,
    UnavailableError,
)
from shammah_chassis.releases import Champion, Release, Wanted
from shammah_chassis.tasks import stop_tasks

from shammah_gateway.changes import Changes
from shammah_gateway.consent.audit import AuditLog
from shammah_gateway.keys import CHAMPION, WANTED, DesiredKeys
from shammah_gateway.pods import Pods
from shammah_gateway.transitions import default_rollback, promoted, settled

# News come by the watches; this is only for what they can miss (a watch that is being opened again).
RECONCILE_SECONDS = 2.0
HOLD_TURN_SECONDS = 5.0
# A bus that answers takes far less for what is left of an order at the stop.
LET_GO_SECONDS = 5.0
_log = logging.getLogger(__name__)


class ReleaseController:
    """Follows the desired state, promotes candidates, and does what people order; `changed` rings at each switch."""

    def __init__(self, bus: Bus, store: ArtifactStore, pods: Pods, *, hold_seconds: float = 300.0) -> None:
        self._keys = DesiredKeys(bus)
        self._store = store
        self._pods = pods
        self._hold_seconds = hold_seconds
        self._known: dict[str, Release] = {}
        self._current: Release | None = None
        self._desired: Champion | None = None
        self._wanted = Wanted(())
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._spare: dict[str, float] = {}
        self.changed = Changes()
        self.switched_at: dict[str, float] = {}
        self.warning = ""
        self.log: AuditLog | None = None

    # -- what the cascade reads

    def champion(self) -> Release | None:
        """Return the release that serves now; None until all roles hold one."""
        return self._current

    async def find(self, release: str) -> Release:
        """Return a release of the store, cached as it never changes; raises UnknownReleaseError."""
        if release not in self._known:
            self._known[release] = await self._store.get_release(release)
        return self._known[release]

    @property
    def desired(self) -> Champion | None:
        """The champion as last read: it may not serve yet."""
        return self._desired

    @property
    def wanted(self) -> Wanted:
        """What the pods should hold, as last read."""
        return self._wanted

    # -- the loop

    def start(self) -> None:
        """Follow both keys and the pods until `close`."""
        self._tasks = [
            asyncio.create_task(self._watch(CHAMPION)),
            asyncio.create_task(self._watch(WANTED)),
            asyncio.create_task(self._run()),
        ]

    async def close(self) -> None:
        """Stop following; an order that was cut short is first let go."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=LET_GO_SECONDS)
        await stop_tasks((*self._tasks, *self._ending))

    async def reconcile(self) -> None:
        """One step: serve the champion if it is held; promote or drop the candidate; mend `wanted`."""
        champion = await self._keys.read_champion()
        if champion is None:
            return
        await self._serve(champion)
        self._wanted = await self._keys.read_wanted()
        if self._wanted.candidate and self._wanted.candidate != champion.release:
            await self._try_candidate(champion, self._wanted.candidate)
        elif self._wanted.candidate or not set(settled(champion, "").releases) <= set(self._wanted.releases):
            # A crash between the two compare-and-sets of a switch left it so.
            await self._settle(champion, drop="")
        await self._drop_spare(self._desired or champion)

    # -- orders of people

    async def promote(self, release: str, *, force: bool = False) -> tuple[str, str]:
        """Make a release the champion once all pods hold it; returns (champion, the one before).

        Raises:
            UnknownReleaseError: the store does not have it.
            PreconditionError: the gate did not promote it, and no `force`.
            UnavailableError, ArtifactError: it is not held in time, or can't be loaded; the champion stays.
        """
        target = await self.find(release)
        if target.verdict not in ("promote", "base") and not force:
            reasons = "; ".join(target.reasons) or "no reason was kept"
            raise PreconditionError(
                f"release {release} is {target.verdict} ({reasons}); force promotes it all the same"
            )
        return await self._order(target, "promoted by hand")

    async def rollback(self, release: str = "") -> tuple[str, str]:
        """Go back to an earlier release ("" the one before the champion); as `promote`.

        Raises:
            PreconditionError: there is none before, or it is not among the last five or the pinned.
        """
        champion = await self._keys.require_champion()
        target = release or default_rollback(champion)
        if not target:
            listed = ", ".join((*champion.previous, *champion.pinned)) or "none"
            raise PreconditionError(f"no release before {champion.release} is kept; name one to go to: {listed}")
        found = await self.find(target)
        if target not in (champion.release, *champion.previous, *champion.pinned):
            listed = ", ".join((*champion.previous, *champion.pinned)) or "none"
            raise PreconditionError(f"release {target} never served or is too old; rollback goes to: {listed}")
        return await self._order(found, "rolled back")

    async def pin(self, release: str, *, pinned: bool) -> Release:
        """Keep a release for good, or stop keeping it; raises UnknownReleaseError."""
        found = await self.find(release)

        def change(champion: Champion) -> Champion:
            others = tuple(name for name in champion.pinned if name != release)
            return replace(champion, pinned=(*others, release) if pinned else others)

        self._desired = await self._keys.change_champion(change)
        await self._settle(self._desired, drop="")
        return found

    async def list_releases(self) -> list[Release]:
        """All releases of the store, newest first; one that can't be read is left out and warned of."""
        found = []
        for name in await self._store.list_releases():
            try:
                found.append(await self.find(name))
            except (ArtifactError, NotFoundError) as error:
                self.warning = f"release {name}: {error.message}"
        return found

    # -- steps

    async def _order(self, target: Release, reason: str) -> tuple[str, str]:
        before = await self._keys.require_champion()
        if before.release == target.id and self._current is not None and self._current.id == target.id:
            return target.id, before.previous[0] if before.previous else ""
        drop = ""
        try:
            await self._hold(target)
            champion = await self._keys.change_champion(lambda now: promoted(now, target.id, time.time(), reason))
            # An order ends the trial of a candidate: it was judged against the champion that has just been left.
            drop = self._wanted.candidate
            await self._serve(champion)
        finally:
            # However it ended, and though its caller may have left, for good: no pod need hold what does not serve.
            ending = asyncio.create_task(self._end_order(drop))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await asyncio.shield(ending)
        return champion.release, before.release

    async def _end_order(self, drop: str) -> None:
        """Want what the champion of now implies; what the bus does not take is left to `_drop_spare`."""
        try:
            await self._settle(await self._keys.require_champion(), drop=drop)
        except ShammahError as error:
            _log.warning("what an order had pods hold is let go later: %s", error.message)

    async def _hold(self, target: Release) -> None:
        """Have every pod hold a release; `_order` lets it go again."""

        def done() -> bool:
            return self._pods.held_by_all(target.id) or bool(self._pods.failures(target.id))

        end = time.monotonic() + self._hold_seconds
        while not done() and (left := end - time.monotonic()) > 0:
            # Again at each turn: another gateway that settles meanwhile does not know of this order.
            await self._keys.change_wanted(lambda now: replace(now, releases=_distinct((*now.releases, target.id))))
            await self._pods.changed.wait_until(done, min(left, HOLD_TURN_SECONDS))
        if self._pods.held_by_all(target.id):
            return
        if failures := self._pods.failures(target.id):
            raise ArtifactError(f"release {target.id} can't be loaded: {'; '.join(failures)}; the champion stays")
        raise UnavailableError(
            f"release {target.id} is not held by every pod within {self._hold_seconds:.0f} s; the champion stays"
        )

    async def _try_candidate(self, champion: Champion, name: str) -> None:
        candidate = await self.find(name)
        if candidate.verdict != "promote":
            _log.info("candidate %s is %s; it is not served", name, candidate.verdict)
            await self._settle(champion, drop=name)
        elif candidate.parent and candidate.parent != champion.release:
            # Its gate compared it with another champion: serving it would undo what was ordered since.
            self.warning = f"candidate {name} was judged against {candidate.parent}, the champion is {champion.release}"
            _log.warning("%s", self.warning)
            await self._settle(champion, drop=name)
        elif self._pods.held_by_all(name):
            await self._promote_candidate(champion, name)
        elif failures := self._pods.failures(name):
            self.warning = f"candidate {name} can't be loaded: {'; '.join(failures)}"

    async def _promote_candidate(self, champion: Champion, name: str) -> None:
        def change(now: Champion) -> Champion:
            # Somebody else was first, with this or another release: leave it.
            return promoted(now, name, time.time(), "gate") if now.release == champion.release else now

        now = await self._keys.change_champion(change)
        self.warning = ""
        await self._serve(now)
        await self._settle(now, drop=name)

    async def _serve(self, champion: Champion) -> None:
        """Let new queries be served by the champion, if every role holds it."""
        self._desired = champion
        if self._current is not None and self._current.id == champion.release:
            return
        if not self._pods.held_by_all(champion.release):
            return
        release = await self.find(champion.release)
        self._current = release
        self.switched_at[release.id] = time.time()
        _log.info("release %s serves now (%s)", release.id, champion.reason)
        if self.log is not None:
            self.log.jot("release_serves", caller="", what={"release": release.id, "reason": champion.reason})
        self.changed.notify()

    async def _settle(self, champion: Champion, *, drop: str) -> None:
        """Want what the champion implies and nothing else; a candidate other than `drop` stays on trial."""

        def change(now: Wanted) -> Wanted:
            return settled(champion, now.candidate if now.candidate not in (drop, champion.release) else "")

        self._wanted = await self._keys.change_wanted(change)

    async def _drop_spare(self, champion: Champion) -> None:
        """Let go what nothing implies for longer than an order may take: its gateway was killed, or had no bus."""
        now, implied = time.monotonic(), settled(champion, self._wanted.candidate).releases
        spare = (name for name in self._wanted.releases if name not in implied)
        self._spare = {name: self._spare.get(name, now) for name in spare}
        limit = self._hold_seconds + 2 * HOLD_TURN_SECONDS
        if gone := {name for name, since in self._spare.items() if now - since > limit}:
            _log.info("no order waits for them any more: %s", ", ".join(sorted(gone)))
            self._wanted = await self._keys.change_wanted(
                # Of what has become the candidate since, nothing is taken.
                lambda wanted: replace(
                    wanted, releases=tuple(one for one in wanted.releases if one not in gone - {wanted.candidate})
                )
            )

    # -- the loop's tasks

    async def _watch(self, key: str) -> None:
        while True:
            try:
                async for _ in self._keys.watch(key):
                    self._pods.changed.notify()
            except ShammahError as error:
                self.warning = f"watch of {key}: {error.message}"
            except Exception as error:  # the news after this one must be heard too
                self.warning = f"watch of {key}: {error}"
                _log.exception("the watch of %s failed", key)
            await asyncio.sleep(RECONCILE_SECONDS)

    async def _run(self) -> None:
        while True:
            try:
                await self.reconcile()
            except ShammahError as error:
                self.warning = f"releases: {error.message}"
                _log.warning("%s", self.warning)
            except Exception as error:  # the releases after this one must be followed too
                self.warning = f"releases: {error}"
                _log.exception("following the releases failed")
            await self._pods.changed.wait(RECONCILE_SECONDS)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
