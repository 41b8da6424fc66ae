"""A checkpoint on demand: what serves now, with its counters, noted in the audit log, for an admin alone."""

from __future__ import annotations

import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah_chassis.errors import ForbiddenError, PreconditionError
from shammah_chassis.ulid import is_ulid
from shammah_gateway.consent.chain import read_tail
from support.gateway_world import World, call


async def test_a_checkpoint_of_now_is_in_the_store_and_in_the_audit_log(world: World) -> None:
    for number in range(3):
        await call(world.stub.Ask(pb.AskRequest(messages=[{"role": "user", "content": f"Where is Rome {number}?"}])))
    reply = await call(world.stub.TakeCheckpoint(pb.TakeCheckpointRequest()))
    assert is_ulid(reply.id) and reply.release == world.first.id
    (kept,) = await world.cluster.store.list_checkpoints()
    assert (kept.id, kept.release, kept.position) == (reply.id, world.first.id, world.first.position)
    assert (kept.queries, kept.reason) == (3, "on demand")
    assert kept.metrics["local"] + kept.metrics["forwarded"] == 3
    second = await call(world.stub.TakeCheckpoint(pb.TakeCheckpointRequest()))
    assert {one.id for one in await world.cluster.store.list_checkpoints()} == {reply.id, second.id}
    # Lines are written in order: what was noted before this one is there.
    await world.gateway.consent.log.note("mark", caller="", what={})
    rows = [row for row in read_tail(world.gateway.settings.own_dir, 100) if row["what"].get("name") == "checkpoint"]
    assert [row["event"] for row in rows] == ["order", "order_done"] * 2


async def test_while_nothing_serves_it_says_so_and_keeps_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.gateway.releases, "champion", lambda: None)
    with pytest.raises(PreconditionError, match="no release serves"):
        await call(world.stub.TakeCheckpoint(pb.TakeCheckpointRequest()))
    assert await world.cluster.store.list_checkpoints() == []


async def test_only_an_admin_may(world: World) -> None:
    for stub in (world.guest, world.maker):
        with pytest.raises(ForbiddenError, match="admin"):
            await call(stub.TakeCheckpoint(pb.TakeCheckpointRequest()))
    assert await world.cluster.store.list_checkpoints() == []
