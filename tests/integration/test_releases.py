"""The release controller with a real event bus, a real store and real held versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.errors import ArtifactError, PreconditionError, UnavailableError, UnknownReleaseError
from shammah_chassis.manifest import ROLES
from shammah_chassis.releases import Champion, Release, Wanted, parse_champion, parse_wanted
from shammah_gateway import releases
from shammah_gateway.pods import Pods
from shammah_gateway.releases import ReleaseController
from shammah_gateway.retention import collect_garbage
from support.scripted_pods import Cluster, run_cluster
from support.services import until, until_async


@pytest.fixture
async def cluster(tmp_path: Path, bus: Bus, nats_server: Any) -> AsyncIterator[Cluster]:
    async with run_cluster(tmp_path, nats_server.url) as running:
        yield running


@asynccontextmanager
async def run_controller(cluster: Cluster, bus: Bus, *, hold_seconds: float = 20.0) -> AsyncIterator[ReleaseController]:
    pods = Pods(cluster.targets, token=cluster.tokens["internal"])
    controller = ReleaseController(bus, cluster.store, pods, hold_seconds=hold_seconds)
    pods.start()
    controller.start()
    try:
        yield controller
    finally:
        await controller.close()
        await pods.close()


async def begin(cluster: Cluster, bus: Bus) -> Release:
    """Release 0, as the trainer leaves it."""
    release = await cluster.publish_release(verdict="base")
    await bus.kv_create("wanted", Wanted((release.id,)).to_json())
    await bus.kv_create("champion", Champion(release.id).to_json())
    return release


async def propose(cluster: Cluster, bus: Bus, after: Release, **changes: Any) -> Release:
    release = await cluster.publish_release(**{"parent": after.id, **changes})
    entry = await bus.kv_get("wanted")
    assert entry is not None
    names = (*parse_wanted(entry.value).releases, release.id)
    await bus.kv_update("wanted", Wanted(names, release.id).to_json(), entry.revision)
    return release


async def read_champion(bus: Bus) -> Champion:
    entry = await bus.kv_get("champion")
    assert entry is not None
    return parse_champion(entry.value)


async def read_wanted(bus: Bus) -> Wanted:
    entry = await bus.kv_get("wanted")
    assert entry is not None
    return parse_wanted(entry.value)


def serves(controller: ReleaseController, release: Release) -> bool:
    current = controller.champion()
    return current is not None and current.id == release.id


async def test_nothing_serves_before_release_0_and_then_it_does(cluster: Cluster, bus: Bus) -> None:
    async with run_controller(cluster, bus) as controller:
        assert controller.champion() is None
        with pytest.raises(PreconditionError):
            await controller.rollback()
        first = await begin(cluster, bus)
        await until(lambda: serves(controller, first))


async def test_a_candidate_is_promoted_once_every_pod_holds_it(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        second = await propose(cluster, bus, first)
        await until(lambda: serves(controller, second))
        champion = await read_champion(bus)
        assert (champion.release, champion.previous) == (second.id, (first.id,))

        async def settled() -> bool:
            return await read_wanted(bus) == Wanted((second.id, first.id))

        await until_async(settled)


async def test_a_candidate_that_one_role_cannot_load_never_serves(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        bad = await cluster.publish_release(parent=first.id)
        cluster.script.refuse.add(("validator", bad.id))
        await bus.kv_update("wanted", Wanted((first.id, bad.id), bad.id).to_json(), await revision(bus))
        await until(lambda: "can't be loaded" in controller.warning)
        assert serves(controller, first)
        assert (await read_champion(bus)).release == first.id


async def revision(bus: Bus) -> int:
    entry = await bus.kv_get("wanted")
    assert entry is not None
    return entry.revision


@pytest.mark.parametrize("verdict", ["held", "undecided"])
async def test_a_candidate_that_the_gate_did_not_promote_is_dropped(cluster: Cluster, bus: Bus, verdict: str) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        held = await propose(cluster, bus, first, verdict=verdict)

        async def dropped() -> bool:
            return await read_wanted(bus) == Wanted((first.id,))

        await until_async(dropped)
        assert (await read_champion(bus)).release == first.id
        with pytest.raises(PreconditionError, match="force"):
            await controller.promote(held.id)
        assert await controller.promote(held.id, force=True) == (held.id, first.id)
        assert serves(controller, held)


async def test_a_candidate_that_was_judged_against_another_champion_is_dropped(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        stale = await propose(cluster, bus, first, parent="01ARZ3NDEKTSV4RRFFQ69G5FAV")
        await until(lambda: "judged against" in controller.warning)
        assert serves(controller, first)
        await until(lambda: stale.id not in controller.wanted.releases)


async def test_rollback_goes_back_at_once_and_a_second_one_further(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        second = await propose(cluster, bus, first)
        await until(lambda: serves(controller, second))
        third = await propose(cluster, bus, second)
        await until(lambda: serves(controller, third))
        assert await controller.rollback() == (second.id, third.id)
        assert serves(controller, second)
        # Not held any more: it is fetched again first.
        assert await controller.rollback() == (first.id, second.id)
        assert serves(controller, first)
        with pytest.raises(PreconditionError, match=second.id):
            await controller.rollback()
        assert await controller.rollback(third.id) == (third.id, first.id)


async def test_rollback_of_what_never_served_or_does_not_exist_is_refused(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        stranger = await cluster.publish_release()
        with pytest.raises(PreconditionError):
            await controller.rollback(stranger.id)
        with pytest.raises(UnknownReleaseError):
            await controller.rollback("01ARZ3NDEKTSV4RRFFQ69G5FAV")
        with pytest.raises(UnknownReleaseError):
            await controller.promote("01ARZ3NDEKTSV4RRFFQ69G5FAV")


async def test_an_order_that_cannot_be_done_leaves_the_champion(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        bad = await cluster.publish_release()
        cluster.script.refuse.add(("generator", bad.id))
        with pytest.raises(ArtifactError):
            await controller.promote(bad.id)
        assert serves(controller, first) and await read_wanted(bus) == Wanted((first.id,))


async def test_an_order_is_given_up_when_a_role_has_no_pod(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus, hold_seconds=0.5) as controller:
        await until(lambda: serves(controller, first))
        await cluster.services["validator"][0].stop()
        target = await cluster.publish_release()
        with pytest.raises(UnavailableError):
            await controller.promote(target.id)
        assert (await read_champion(bus)).release == first.id


async def test_what_nobody_waits_for_any_more_is_not_held(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        await cluster.services["validator"][0].stop()
        target = await cluster.publish_release()
        order = asyncio.create_task(controller.promote(target.id))
        await asyncio.sleep(0.3)
        order.cancel()
        with pytest.raises(asyncio.CancelledError):
            await order
        await controller.reconcile()
        assert target.id not in controller.wanted.releases


async def test_an_order_whose_caller_leaves_twice_is_let_go_all_the_same(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        await cluster.services["validator"][0].stop()
        target = await cluster.publish_release()
        order = asyncio.create_task(controller.promote(target.id))
        await until(lambda: target.id in controller.wanted.releases)
        order.cancel()
        await asyncio.sleep(0)  # it is on its way out now
        order.cancel()
        with pytest.raises(asyncio.CancelledError):
            await order
    # The stop of the gateway waits for it.
    assert await read_wanted(bus) == Wanted((first.id,))


async def test_an_order_that_the_bus_cuts_short_is_let_go(
    cluster: Cluster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        target = await cluster.publish_release()

        async def cut(_: object) -> Champion:
            raise UnavailableError("the bus is away")

        monkeypatch.setattr(controller._keys, "change_champion", cut)
        with pytest.raises(UnavailableError, match="the bus is away"):
            await controller.promote(target.id)
        assert await read_wanted(bus) == Wanted((first.id,))


async def test_what_a_killed_gateway_had_pods_hold_is_let_go_when_no_order_can_wait_for_it(
    cluster: Cluster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "HOLD_TURN_SECONDS", 0.1)
    monkeypatch.setattr(releases, "RECONCILE_SECONDS", 0.1)
    first = await begin(cluster, bus)
    left = await cluster.publish_release()
    await bus.kv_update("wanted", Wanted((first.id, left.id)).to_json(), await revision(bus))
    async with run_controller(cluster, bus) as patient, run_controller(cluster, bus, hold_seconds=0.1) as controller:
        await until(lambda: serves(controller, first) and serves(patient, first))
        await until(lambda: controller.wanted == Wanted((first.id,)))
        assert await read_wanted(bus) == Wanted((first.id,))


async def test_a_gateway_leaves_what_another_one_waits_for(
    cluster: Cluster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "RECONCILE_SECONDS", 0.02)
    first = await begin(cluster, bus)
    other = await cluster.publish_release()
    await bus.kv_update("wanted", Wanted((first.id, other.id)).to_json(), await revision(bus))
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        for _ in range(5):
            await controller.reconcile()
        assert other.id in (await read_wanted(bus)).releases


async def test_the_releases_are_followed_whatever_fails(
    cluster: Cluster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "RECONCILE_SECONDS", 0.02)
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        failed: list[str] = []

        def fail(key: str) -> Any:
            failed.append(key)
            raise ValueError("whatever it was")

        async def fail_too() -> Champion:
            return fail("reconcile")

        with monkeypatch.context() as broken:
            broken.setattr(controller._keys, "read_champion", fail_too)
            # Both watches are opened again, and fail.
            broken.setattr(controller._keys, "watch", fail)
            for task in controller._tasks[:2]:
                task.cancel()
            await asyncio.wait(controller._tasks[:2])
            controller._tasks[:2] = [asyncio.create_task(controller._watch(key)) for key in ("champion", "wanted")]
            await until(lambda: all(failed.count(key) >= 2 for key in ("champion", "wanted", "reconcile")))
        assert not any(task.done() for task in controller._tasks)
        second = await propose(cluster, bus, first)
        await until(lambda: serves(controller, second))


async def test_two_gateways_agree_and_an_order_is_done_once(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with run_controller(cluster, bus) as one, run_controller(cluster, bus) as other:
        await until(lambda: serves(one, first) and serves(other, first))
        second = await propose(cluster, bus, first)
        await until(lambda: serves(one, second) and serves(other, second))
        assert (await read_champion(bus)).previous == (first.id,)
        await asyncio.gather(one.rollback(), other.rollback(first.id))
        await until(lambda: serves(one, first) and serves(other, first))
        champion = await read_champion(bus)
        assert (champion.release, champion.previous) == (first.id, (second.id,))


async def test_a_switch_that_stopped_midway_is_finished_by_the_next_gateway(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    second = await propose(cluster, bus, first)
    entry = await bus.kv_get("champion")
    assert entry is not None
    # The champion was changed, and the gateway killed before it changed `wanted`.
    await bus.kv_update("champion", Champion(second.id, (first.id,)).to_json(), entry.revision)
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, second))
        await until(lambda: controller.wanted == Wanted((second.id, first.id)))


async def test_a_pin_keeps_a_release_wanted_and_a_candidate_stays_on_trial(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    pinned = await cluster.publish_release()
    async with run_controller(cluster, bus) as controller:
        await until(lambda: serves(controller, first))
        await controller.pin(pinned.id, pinned=True)
        assert await read_wanted(bus) == Wanted((first.id, pinned.id))
        assert await controller.rollback(pinned.id) == (pinned.id, first.id)
        await controller.pin(pinned.id, pinned=False)
        assert (await read_champion(bus)).pinned == ()


async def test_a_pod_that_joins_must_hold_the_candidate_too(cluster: Cluster, bus: Bus) -> None:
    first = await begin(cluster, bus)
    async with AsyncExitStack() as stack:
        second_pod = await cluster.start_pod("router", "router-late")
        stack.push_async_callback(second_pod.stop)
        async with run_controller(cluster, bus) as controller:
            await until(lambda: serves(controller, first))
            second = await propose(cluster, bus, first)
            await until(lambda: serves(controller, second))
            assert all(
                len(controller._pods.holding(role, second.id)) == (2 if role == "router" else 1) for role in ROLES
            )


async def test_the_store_keeps_five_that_served_pins_and_shared_versions(cluster: Cluster, bus: Bus) -> None:
    made = [await cluster.publish_release() for _ in range(8)]
    shared = await cluster.publish_release(router=made[0].router)
    champion = Champion(shared.id, tuple(release.id for release in reversed(made[2:7])), (made[7].id,))
    gone = await collect_garbage(cluster.store, champion, Wanted((shared.id,)))
    assert set(gone) == {made[0].id, made[1].id}
    assert set(await cluster.store.list_releases()) == {release.id for release in (*made[2:], shared)}
    assert (cluster.folder / "store" / "router" / made[0].router).is_dir()
    assert not (cluster.folder / "store" / "generator" / made[0].generator).exists()
    assert not (cluster.folder / "store" / "router" / made[1].router).exists()
