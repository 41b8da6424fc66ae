"""Parked examples through the gateway: queued again by the trainer, noted in the audit log, by an admin alone."""

from __future__ import annotations

import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah_chassis.errors import ForbiddenError, NotFoundError
from shammah_gateway.consent.chain import read_tail
from support.gateway_world import World, call


async def test_those_of_a_category_or_all_are_queued_again(world: World) -> None:
    world.trainer.parked = {"capitals": 3, "poems": 4, "tickets": 5}
    reply = await call(world.stub.UnparkExamples(pb.GatewayServiceUnparkExamplesRequest(category="poems")))
    assert (reply.examples, list(reply.categories)) == (4, ["poems"])
    reply = await call(world.stub.UnparkExamples(pb.GatewayServiceUnparkExamplesRequest()))
    assert (reply.examples, list(reply.categories)) == (8, ["capitals", "tickets"])
    with pytest.raises(NotFoundError, match="parked"):
        await call(world.stub.UnparkExamples(pb.GatewayServiceUnparkExamplesRequest()))
    # Lines are written in order: what was noted before this one is there.
    await world.gateway.consent.log.note("mark", caller="", what={})
    rows = [row for row in read_tail(world.gateway.settings.own_dir, 100) if row["what"].get("name") == "unpark"]
    assert [row["event"] for row in rows] == ["order", "order_done"] * 3


async def test_only_an_admin_may(world: World) -> None:
    world.trainer.parked = {"poems": 4}
    for stub in (world.guest, world.maker):
        with pytest.raises(ForbiddenError, match="admin"):
            await call(stub.UnparkExamples(pb.GatewayServiceUnparkExamplesRequest()))
    assert world.trainer.parked == {"poems": 4}
