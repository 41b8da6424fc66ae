"""What audits withdraw of a release comes from a gateway over the bus to the other gateways and the trainer's gate."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah_chassis.bus import Bus
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import ArtifactError, UnavailableError
from shammah_chassis.releases import Release
from shammah_chassis.withdrawn import add_withdrawn, read_withdrawn
from shammah_gateway import housekeeping
from shammah_gateway.promise.book import PromiseBook
from shammah_gateway.promise.telling import WithdrawalTeller
from shammah_gateway.promise.watch import PromiseWatch
from shammah_trainer.engine import TrainerEngine
from support.gateway import make_release
from support.gateway_world import World, call
from support.rounds import EXAM, TAUGHT, promote, teach
from support.services import until_async
from support.trainer import make_switch_rows, run_round

KEY = "withdrawn."


def break_promise(watch: PromiseWatch, release: Release, category: str) -> None:
    watch.note_query(release, category)
    for _ in range(20):
        watch.note_audit(release.id, category, False)


async def test_what_several_gateways_add_is_joined_and_is_of_one_release(bus: Bus) -> None:
    assert await read_withdrawn(bus, "R1") == frozenset()
    names = [f"category {number}" for number in range(6)]
    await asyncio.gather(*(add_withdrawn(bus, "R1", {name}) for name in names))
    assert await read_withdrawn(bus, "R1") == set(names)
    assert await read_withdrawn(bus, "R2") == frozenset()
    entry = await bus.kv_get(f"{KEY}R1")
    await add_withdrawn(bus, "R1", {names[0]})
    assert await bus.kv_get(f"{KEY}R1") == entry


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"categories": "spam"}', '{"categories": [1]}'])
async def test_a_key_that_cannot_be_read_is_refused_and_written_anew(bus: Bus, text: str) -> None:
    await bus.kv_create(f"{KEY}R", text)
    with pytest.raises(ArtifactError):
        await read_withdrawn(bus, "R")
    await add_withdrawn(bus, "R", {"spam"})
    assert await read_withdrawn(bus, "R") == {"spam"}


async def test_a_gateway_tells_what_it_withdrew_also_what_it_knew_before_its_restart(bus: Bus, tmp_path: Path) -> None:
    release, other = make_release(), make_release()
    watch = PromiseWatch(PromiseBook(tmp_path / "promise.json"))
    await WithdrawalTeller(bus, watch).tell(release)
    assert await bus.kv_get(KEY + release.id) is None
    break_promise(watch, release, "capitals")
    # It ends before it could tell.
    teller = WithdrawalTeller(bus, PromiseWatch(PromiseBook(tmp_path / "promise.json")))
    await teller.tell(release)
    assert await read_withdrawn(bus, release.id) == {"capitals"}
    await teller.tell(other)
    assert await read_withdrawn(bus, other.id) == frozenset()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "LOOK_SECONDS", 0.05)


async def test_a_promise_that_breaks_in_a_running_gateway_is_told(quick: None, world: World) -> None:
    break_promise(world.gateway.watch, world.first, "capitals")

    async def is_told() -> bool:
        return await read_withdrawn(world.bus, world.first.id) == {"capitals"}

    await until_async(is_told)


async def test_what_another_gateway_withdrew_is_forwarded_by_a_running_one(quick: None, world: World) -> None:
    certified = next(name for name, policy in world.first.categories.items() if policy.threshold is not None)
    assert world.gateway.watch.threshold(world.first, certified) is not None
    await add_withdrawn(world.bus, world.first.id, {certified})

    async def is_forwarded() -> bool:
        return world.gateway.watch.reason(world.first, certified) == "withdrawn"

    await until_async(is_forwarded)
    status = await call(world.stub.GetStatus(pb.GetStatusRequest()))
    assert any("another gateway" in warning and certified in warning for warning in status.warnings)
    assert {row.category: row.state for row in status.categories}[certified] == "withdrawn"


async def test_a_key_that_is_broken_or_gone_and_a_bus_that_is_away_take_nothing_back(bus: Bus, tmp_path: Path) -> None:
    release = make_release()
    watch = PromiseWatch(PromiseBook(tmp_path / "promise.json"))
    teller, certified = WithdrawalTeller(bus, watch), "capitals"
    await teller.hear(release)
    assert watch.threshold(release, certified) is not None
    await add_withdrawn(bus, release.id, {certified})
    await teller.hear(release)
    assert watch.threshold(release, certified) is None
    entry = await bus.kv_get(KEY + release.id)
    assert entry is not None
    revision = await bus.kv_update(KEY + release.id, "no JSON", entry.revision)
    with pytest.raises(ArtifactError):
        await teller.hear(release)
    assert watch.threshold(release, certified) is None
    await bus.kv_update(KEY + release.id, '{"categories": []}', revision)
    await teller.hear(release)
    assert watch.threshold(release, certified) is None
    await bus.close()
    with pytest.raises(UnavailableError):
        await teller.hear(release)
    assert watch.threshold(release, certified) is None


@pytest.mark.parametrize("told", [True, False])
async def test_the_gate_counts_what_was_withdrawn_as_forwarded_and_an_unreadable_key_as_none(
    engine: TrainerEngine, bus: Bus, tmp_path: Path, told: bool
) -> None:
    await teach(bus, engine, EXAM, TAUGHT)
    first = await run_round(engine)
    assert first.result["exam"]["after"]["switch"]["certified"]
    await promote(bus, first.id)
    await bus.kv_create(KEY + first.id, "not to be read")
    if told:
        await add_withdrawn(bus, first.id, {"switch", "unknown"})
    await teach(bus, engine, make_switch_rows(30, seed=4))
    second = await run_round(engine)
    assert second.state == "done", second.error_message
    before = second.result["exam"]["before"]["switch"]
    assert before["certified"] is not told
    assert (before["local_share"] == 0.0) is told
    assert any("audits" in reason and "switch" in reason for reason in second.result["reasons"]) is told
    report = (await DirectoryStore(tmp_path / "store").get_release(second.id)).report
    assert (report["local_share_before"] == 0.0) is told
    # As good as the champion, and the exam certifies it as it did the champion: nothing that speaks for a swap.
    assert second.result["verdict"] in ("undecided", "held")
