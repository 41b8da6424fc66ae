"""The releases that a serving pod holds: loaded beside the traffic, leased by each call, closed after the last lease.

`reconcile` is told which releases are wanted and makes it so. Releases that share a version share one loaded object.
A release that can't be loaded is FAILED by name while the others serve. All state lives on the event loop; fetching is
the store's, loading happens in a thread. It does not know what a version is made of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from shammah_chassis.errors import ArtifactError, ShammahError, UnknownReleaseError
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.manifest import Manifest, Role, read_manifest
from shammah_chassis.releases import Release, Wanted
from shammah_chassis.slots import SharedSlots, Slot, settle

logger = logging.getLogger(__name__)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
RETRY_SECONDS = 30.0


class VersionSource(Protocol):
    """What is needed of an artifact store."""

    async def get_release(self, release_id: str, /) -> Release:
        """Return a release; UnknownReleaseError when the store has none of that id."""

    async def fetch_version(self, role: Role, version: str, cache_dir: Path, /) -> Path:
        """Return a local folder of the version whose digests have been checked; ArtifactError otherwise."""


@dataclass(frozen=True, slots=True)
class Loader(Generic[T]):
    """How a role's versions become objects.

    `load(folder, manifest, release)` blocks: it builds, warms and tests the object, and raises to refuse it. `close`
    blocks too. `measure` returns resident bytes. `admit` raises to refuse a release as such (e.g. one certified for a
    precision that this pod does not serve).
    """

    load: Callable[[Path, Manifest, Release], T]
    close: Callable[[T], None]
    measure: Callable[[T], int] = lambda _: 0
    admit: Callable[[Release], None] = lambda _: None


class HoldState(Enum):
    """Life of a held release."""

    FETCHING = "fetching"
    LOADING = "loading"
    READY = "ready"
    LEAVING = "leaving"
    FAILED = "failed"


_USABLE = (HoldState.READY, HoldState.LEAVING)


@dataclass(frozen=True, slots=True)
class HeldVersionState:
    """What a pod says of one release.

    `leases` is the number of calls that use it now; `error_code` and `error_message` are set when FAILED.
    """

    release: str
    version: str
    state: HoldState
    error_code: str
    error_message: str
    leases: int
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Leased(Generic[T_co]):
    """A loaded version that stays open as long as the lease."""

    release: str
    version: str
    value: T_co


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    """One release that is, or is about to be, held; `work` brings it to READY or FAILED."""

    release: str
    state: HoldState = HoldState.FETCHING
    version: str = ""
    slot: Slot[T] | None = None
    error: ShammahError | None = None
    leases: int = 0
    work: asyncio.Task[None] | None = None


class HeldVersions(Generic[T]):
    """The releases of one role; see the module. While one is FAILED all are tried again each `retry_seconds`."""

    def __init__(
        self,
        role: Role,
        *,
        store: VersionSource,
        loader: Loader[T],
        cache_dir: Path,
        executor: BoundedExecutor,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.role = role
        self._store = store
        self._loader = loader
        self._cache_dir = cache_dir
        self._executor = executor
        self._retry_seconds = retry_seconds
        self._slots: SharedSlots[T] = SharedSlots(lambda value: executor.run(loader.close, value))
        self._entries: dict[str, _Entry[T]] = {}
        self._wanted = Wanted(())
        self._retry: asyncio.TimerHandle | None = None
        self._again: asyncio.Task[None] | None = None
        self._was_ready = False
        self._closed = False
        self._changes = 0
        self._changed = asyncio.Event()

    def snapshot(self) -> list[HeldVersionState]:
        """Return the state of each release, in the order they were first wanted."""
        return [self._describe(entry) for entry in self._entries.values()]

    @property
    def loaded(self) -> list[T]:
        """The loaded objects, each once."""
        return self._slots.list_loaded()

    @property
    def resident_bytes(self) -> int:
        """Memory of all loaded objects; a shared one counts once."""
        return sum(self._loader.measure(value) for value in self.loaded)

    @property
    def ready(self) -> bool:
        """Whether calls are welcome.

        True from the moment when every wanted release but the candidate is READY, as long as any is: a candidate on
        trial, or a later release that can't be loaded, must not take a pod that serves its champion out of traffic.
        """
        return self._was_ready and any(entry.state is HoldState.READY for entry in self._entries.values())

    @property
    def closed(self) -> bool:
        """Whether this pod is on its way out: who follows the changes should leave."""
        return self._closed

    async def wait_change(self, seen: int) -> int:
        """Wait until the number of changes is not `seen`, and return it; -1 returns at once."""
        while self._changes == seen:
            await self._changed.wait()
        return self._changes

    @contextmanager
    def lease(self, release: str) -> Iterator[Leased[T]]:
        """Keep a release open while the block runs, and yield it. For the event loop's thread only.

        Raises:
            UnknownReleaseError: not held; the message names what is.
        """
        entry = self._entries.get(release)
        if entry is None or entry.slot is None or entry.state not in _USABLE:
            held = sorted(name for name, other in self._entries.items() if other.state is HoldState.READY)
            raise UnknownReleaseError(
                f"{self.role} does not hold release {release!r}; it holds: {', '.join(held) or 'none'}"
            )
        entry.leases += 1
        try:
            yield Leased(release, entry.version, entry.slot.value)
        finally:
            entry.leases -= 1
            if entry.state is HoldState.LEAVING and not entry.leases:
                self._drop(entry)

    async def reconcile(self, wanted: Wanted) -> None:
        """Hold exactly the wanted releases; return when each is READY or FAILED.

        The marks are set at once; a call does not wait for an earlier one, and what it no longer wants is closed as
        soon as it has loaded. Failures are states, not exceptions. After `close` nothing happens.
        """
        if self._closed:
            return
        self._wanted = wanted
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for entry in list(self._entries.values()):
            if entry.release not in wanted.releases:
                self._dismiss(entry)
        for release in dict.fromkeys(wanted.releases):
            self._want(release)
        self._note_change()
        work = [entry.work for entry in self._entries.values() if entry.work is not None]
        if work:
            await asyncio.wait(work)
        self._plan_retry()

    def end_watches(self) -> None:
        """Begin to leave: take no more wishes, and send those who follow the changes away. Leases stay open."""
        self._closed = True
        self._note_change()

    async def close(self) -> None:
        """Let everything go; return when all that is not leased has been closed."""
        self._closed = True
        for waiting in (self._retry, self._again):
            if waiting is not None:
                waiting.cancel()
        for entry in list(self._entries.values()):
            self._dismiss(entry)
        self._note_change()
        await self._slots.wait_closed()

    def _want(self, release: str) -> None:
        """See to it that a release is held, or about to be."""
        entry = self._entries.get(release)
        if entry is not None and entry.state is HoldState.LEAVING:
            entry.state = HoldState.READY
        if entry is None or entry.state is HoldState.FAILED:
            entry = self._entries[release] = _Entry(release)
            entry.work = asyncio.create_task(self._hold(entry))

    async def _hold(self, entry: _Entry[T]) -> None:
        error = await settle(self._load_entry(entry))
        if not self._is_current(entry):
            # Dismissed meanwhile: `_drop` has given back what it had.
            return
        if error is None:
            entry.state = HoldState.READY
            logger.info("%s holds release %s (version %s)", self.role, entry.release, entry.version)
        else:
            entry.state, entry.error = HoldState.FAILED, error
            self._give_back(entry)
            logger.error("%s can't hold release %s: %s", self.role, entry.release, error.message)
        self._note_change()

    async def _load_entry(self, entry: _Entry[T]) -> None:
        release = await self._store.get_release(entry.release)
        self._loader.admit(release)
        if not self._is_current(entry):
            return
        entry.version = release.version_of(self.role)
        entry.slot = self._slots.take(entry.version, lambda: self._load_version(release))
        # Shielded: the object is shared, and the thread that makes it can't be stopped anyway.
        await asyncio.shield(entry.slot.loading)

    async def _load_version(self, release: Release) -> T:
        version = release.version_of(self.role)
        folder = await self._store.fetch_version(self.role, version, self._cache_dir)
        for entry in self._entries.values():
            if entry.version == version and entry.state is HoldState.FETCHING:
                entry.state = HoldState.LOADING
        self._note_change()
        manifest = await self._executor.run(read_manifest, folder)
        if manifest.role != self.role:
            raise ArtifactError(f"version {version} was made for role {manifest.role}, this pod serves {self.role}")
        if manifest.version != version:
            raise ArtifactError(f"version {version}: its manifest is of version {manifest.version}")
        return await self._executor.run(self._loader.load, folder, manifest, release)

    def _dismiss(self, entry: _Entry[T]) -> None:
        """Let a release go: at once, or with its last lease."""
        if entry.leases:
            entry.state = HoldState.LEAVING
        else:
            self._drop(entry)

    def _drop(self, entry: _Entry[T]) -> None:
        del self._entries[entry.release]
        self._give_back(entry)
        self._note_change()

    def _give_back(self, entry: _Entry[T]) -> None:
        slot, entry.slot = entry.slot, None
        if slot is not None:
            self._slots.give_back(slot)

    def _is_current(self, entry: _Entry[T]) -> bool:
        return self._entries.get(entry.release) is entry

    def _note_change(self) -> None:
        needed = [release for release in self._wanted.releases if release != self._wanted.candidate]
        states = [self._entries[release].state for release in needed if release in self._entries]
        if needed and states == [HoldState.READY] * len(needed):
            self._was_ready = True
        self._changes += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _plan_retry(self) -> None:
        failed = any(entry.state is HoldState.FAILED for entry in self._entries.values())
        if failed and not self._closed and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._retry_seconds, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._again = asyncio.create_task(self.reconcile(self._wanted))

    def _describe(self, entry: _Entry[T]) -> HeldVersionState:
        loaded = entry.slot is not None and entry.slot.loaded
        return HeldVersionState(
            release=entry.release,
            version=entry.version,
            state=entry.state,
            error_code=entry.error.code if entry.error else "",
            error_message=entry.error.message if entry.error else "",
            leases=entry.leases,
            resident_bytes=self._loader.measure(entry.slot.value) if loaded and entry.slot else 0,
        )
