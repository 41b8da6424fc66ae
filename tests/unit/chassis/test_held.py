import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import ArtifactError, UnknownReleaseError
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.held import HeldVersions, HeldVersionState, HoldState, Loader
from shammah_chassis.manifest import MANIFEST_NAME, Manifest
from shammah_chassis.releases import Release, Wanted
from shammah_chassis.ulid import new_ulid
from support.artifacts import make_release, make_version
from support.services import publish, until


@dataclass(eq=False)
class Weights:
    """What the loader of these tests makes of a version."""

    content: bytes
    open: bool = True


@dataclass
class Bench:
    """A store, a loader that can be held up, and what it did."""

    folder: Path
    store: DirectoryStore
    loads: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    async def release(self, content: bytes, **changes: object) -> Release:
        folder = self.folder / content.decode()
        return await publish(self.store, folder, make_version(folder, content=content), **changes)

    def load(self, folder: Path, manifest: Manifest, release: Release) -> Weights:
        self.gate.wait(10)
        self.loads.append(manifest.version)
        content = (folder / "model.safetensors").read_bytes()
        if content == b"odd":
            raise KeyError("not what I expected")
        return Weights(content)

    def close(self, weights: Weights) -> None:
        weights.open = False

    def admit(self, release: Release) -> None:
        if release.precision != "int8":
            raise ArtifactError(f"precision {release.precision} is not served")


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path, DirectoryStore(tmp_path / "store"))
    made.gate.set()
    return made


@pytest.fixture
async def held(bench: Bench) -> AsyncIterator[HeldVersions[Weights]]:
    executor = BoundedExecutor(threads=1, queue_limit=100, name="loader")
    made = HeldVersions(
        "router",
        store=bench.store,
        loader=Loader(bench.load, bench.close, measure=lambda weights: len(weights.content), admit=bench.admit),
        cache_dir=bench.folder / "cache",
        executor=executor,
        retry_seconds=0.05,
    )
    yield made
    bench.gate.set()
    await made.close()
    executor.close()


def want(*releases: Release | str, candidate: str = "") -> Wanted:
    return Wanted(tuple(one if isinstance(one, str) else one.id for one in releases), candidate)


def state_of(held: HeldVersions[Weights], release: Release | str) -> HeldVersionState | None:
    name = release if isinstance(release, str) else release.id
    return next((state for state in held.snapshot() if state.release == name), None)


async def test_a_wanted_release_becomes_ready_and_can_be_leased(bench: Bench, held: HeldVersions[Weights]) -> None:
    release = await bench.release(b"one")
    assert not held.ready
    await held.reconcile(want(release))
    assert held.ready
    assert state_of(held, release) == HeldVersionState(release.id, release.router, HoldState.READY, "", "", 0, 3)
    with held.lease(release.id) as leased:
        assert (leased.value.content, leased.release, leased.version) == (b"one", release.id, release.router)
        assert [state.leases for state in held.snapshot()] == [1]


async def test_a_release_that_is_not_held_is_unknown_and_the_error_names_what_is(
    bench: Bench, held: HeldVersions[Weights]
) -> None:
    release = await bench.release(b"one")
    with pytest.raises(UnknownReleaseError, match="none"), held.lease(release.id):
        pass
    await held.reconcile(want(release))
    with pytest.raises(UnknownReleaseError, match=release.id), held.lease("other"):
        pass


async def test_releases_that_share_a_version_load_it_once_and_keep_it_until_the_last_one_leaves(
    bench: Bench, held: HeldVersions[Weights]
) -> None:
    first, second = await bench.release(b"one"), await bench.release(b"one")
    await held.reconcile(want(first, second))
    assert bench.loads == [first.router]
    assert held.resident_bytes == 3
    (weights,) = held.loaded
    await held.reconcile(want(second))
    assert weights.open
    with held.lease(second.id) as leased:
        assert leased.value is weights
    await held.reconcile(want())
    await until(lambda: not weights.open)


async def test_a_lease_keeps_an_old_version_open_until_it_ends(bench: Bench, held: HeldVersions[Weights]) -> None:
    old, new = await bench.release(b"old"), await bench.release(b"new")
    await held.reconcile(want(old))
    with held.lease(old.id) as leased:
        with held.lease(old.id):
            await held.reconcile(want(new))
            state = state_of(held, old)
            assert state is not None
            assert (state.state, state.leases) == (HoldState.LEAVING, 2)
        assert leased.value.open
        # A query that has begun with the old release may still ask for it.
        with held.lease(old.id):
            pass
        assert leased.value.open
    await until(lambda: not leased.value.open)
    assert state_of(held, old) is None
    with pytest.raises(UnknownReleaseError), held.lease(old.id):
        pass


async def test_a_leaving_release_that_is_wanted_again_stays(bench: Bench, held: HeldVersions[Weights]) -> None:
    old, new = await bench.release(b"old"), await bench.release(b"new")
    await held.reconcile(want(old))
    with held.lease(old.id) as leased:
        await held.reconcile(want(new))
        await held.reconcile(want(new, old))
    state = state_of(held, old)
    assert state is not None
    assert state.state is HoldState.READY
    assert leased.value.open
    assert bench.loads == [old.router, new.router]


async def test_a_new_version_loads_beside_the_traffic(bench: Bench, held: HeldVersions[Weights]) -> None:
    old, new = await bench.release(b"old"), await bench.release(b"new")
    await held.reconcile(want(old))
    bench.gate.clear()
    loading = asyncio.create_task(held.reconcile(want(old, new)))
    await until(lambda: (state := state_of(held, new)) is not None and state.state is HoldState.LOADING)
    with held.lease(old.id) as leased:
        assert leased.value.content == b"old"
    with pytest.raises(UnknownReleaseError), held.lease(new.id):
        pass
    bench.gate.set()
    await loading
    with held.lease(new.id):
        pass


async def test_a_release_that_is_dismissed_while_it_loads_is_closed_when_loaded(
    bench: Bench, held: HeldVersions[Weights]
) -> None:
    champion, slow = await bench.release(b"one"), await bench.release(b"slow")
    await held.reconcile(want(champion))
    bench.gate.clear()
    loading = asyncio.create_task(held.reconcile(want(champion, slow)))
    await until(lambda: (state := state_of(held, slow)) is not None and state.state is HoldState.LOADING)
    await held.reconcile(want(champion))
    assert state_of(held, slow) is None
    bench.gate.set()
    await loading
    await held.close()
    assert held.loaded == []
    assert bench.loads == [champion.router, slow.router]


async def corrupt(bench: Bench, release: Release) -> None:
    path = bench.store.root / "router" / release.router / "model.safetensors"
    path.write_bytes(b"onf")


async def disguise(bench: Bench, release: Release) -> None:
    path = bench.store.root / "router" / release.router / MANIFEST_NAME
    path.write_text(path.read_text().replace('"role": "router"', '"role": "validator"'))


async def age(bench: Bench, release: Release) -> None:
    path = bench.store.root / "router" / release.router / MANIFEST_NAME
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))


async def lose(bench: Bench, release: Release) -> None:
    await bench.store.delete_version("router", release.router)


@pytest.mark.parametrize(
    ("harm", "code", "words"),
    [
        (corrupt, "bad_artifact", "model.safetensors"),
        (disguise, "bad_artifact", "made for role validator"),
        (age, "bad_artifact", "format 99"),
        (lose, "not_found", "not in the store"),
    ],
)
async def test_an_unusable_version_is_refused_by_name_and_the_champion_goes_on_serving(
    bench: Bench, held: HeldVersions[Weights], harm: object, code: str, words: str
) -> None:
    champion, broken = await bench.release(b"one"), await bench.release(b"two")
    await held.reconcile(want(champion))
    await harm(bench, broken)  # type: ignore[operator]
    await held.reconcile(want(champion, broken, candidate=broken.id))
    state = state_of(held, broken)
    assert state is not None
    assert (state.state, state.error_code) == (HoldState.FAILED, code)
    assert words in state.error_message
    assert held.ready
    with held.lease(champion.id) as leased:
        assert leased.value.open
    assert bench.loads == [champion.router]


async def test_a_foreign_exception_of_a_loader_is_a_failed_state_too(bench: Bench, held: HeldVersions[Weights]) -> None:
    champion, odd = await bench.release(b"one"), await bench.release(b"odd")
    await held.reconcile(want(champion, odd))
    state = state_of(held, odd)
    assert state is not None
    assert (state.state, state.error_code) == (HoldState.FAILED, "bad_artifact")
    assert "KeyError" in state.error_message


async def test_a_release_that_is_not_admitted_is_never_fetched(bench: Bench, held: HeldVersions[Weights]) -> None:
    release = await bench.release(b"one", precision="fp32")
    await held.reconcile(want(release))
    state = state_of(held, release)
    assert state is not None
    assert "fp32" in state.error_message
    assert bench.loads == []


async def test_a_failed_release_is_tried_again_until_it_is_there(bench: Bench, held: HeldVersions[Weights]) -> None:
    folder = bench.folder / "late"
    manifest = make_version(folder, content=b"late")
    release = make_release(router=manifest.version)
    await held.reconcile(want(release))
    state = state_of(held, release)
    assert state is not None
    assert (state.state, state.error_code) == (HoldState.FAILED, "unknown_release")
    await bench.store.publish_version(folder, manifest)
    await bench.store.publish_release(release)
    await until(lambda: held.ready)
    with held.lease(release.id):
        pass


async def test_a_pod_is_ready_when_all_but_the_candidate_are_held_and_stays_so(
    bench: Bench, held: HeldVersions[Weights]
) -> None:
    champion, missing = await bench.release(b"one"), new_ulid()
    await held.reconcile(want(champion, missing))
    assert not held.ready
    await held.reconcile(want(champion, missing, candidate=missing))
    assert held.ready
    await held.reconcile(want(champion, missing))
    assert held.ready
    await held.reconcile(want(missing))
    assert not held.ready


async def test_changes_wake_those_who_wait(bench: Bench, held: HeldVersions[Weights]) -> None:
    release = await bench.release(b"one")
    seen = await held.wait_change(-1)
    waiting = asyncio.create_task(held.wait_change(seen))
    await held.reconcile(want(release))
    assert await waiting > seen


async def test_after_close_nothing_is_held_or_taken(bench: Bench, held: HeldVersions[Weights]) -> None:
    release = await bench.release(b"one")
    await held.reconcile(want(release))
    (weights,) = held.loaded
    await held.close()
    assert not weights.open
    assert (held.loaded, held.snapshot(), held.ready) == ([], [], False)
    await held.reconcile(want(release))
    assert held.snapshot() == []
