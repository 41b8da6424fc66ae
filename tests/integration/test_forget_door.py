"""Forgetting a request through the gateway: memory, spool and trainer, and who may ask for it."""

from __future__ import annotations

import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah_chassis.errors import ForbiddenError, InvalidInputError, NotFoundError
from shammah_chassis.examples import Envelope
from support.example_values import make_example
from support.gateway_world import World, ask, call

KNOWN = "01KNOWNREQUEST"


async def test_what_memory_spool_and_trainer_have_of_a_request_goes(world: World) -> None:
    world.trainer.known_requests.add(KNOWN)
    spool = world.gateway.recorder
    await spool._spool.append("teacher", Envelope((make_example("a secret", request=KNOWN), make_example("another"))))
    reply = await call(world.stub.ForgetRequest(pb.ForgetRequestRequest(id=KNOWN)))
    assert (reply.spooled, reply.messages, reply.rollouts) == (1, 1, 2)
    assert list(reply.releases) == ["R1"]
    assert world.trainer.forgotten == [KNOWN]


async def test_an_answer_that_left_no_example_can_no_longer_be_rated(world: World) -> None:
    answer = await call(world.stub.Ask(ask("capital of France")))
    reply = await call(world.stub.ForgetRequest(pb.ForgetRequestRequest(id=answer.query_id)))
    assert reply.remembered
    with pytest.raises(NotFoundError):
        await call(world.stub.SendFeedback(pb.SendFeedbackRequest(query_id=answer.query_id, rating=1)))
    with pytest.raises(NotFoundError, match="nothing is known"):
        await call(world.stub.ForgetRequest(pb.ForgetRequestRequest(id=answer.query_id)))


@pytest.mark.parametrize("name", ["", "  ", "x" * 129])
async def test_an_id_that_can_be_none_is_named(world: World, name: str) -> None:
    with pytest.raises(InvalidInputError, match="1 to 128"):
        await call(world.stub.ForgetRequest(pb.ForgetRequestRequest(id=name)))


async def test_only_an_admin_may_forget(world: World) -> None:
    with pytest.raises(ForbiddenError, match="admin"):
        await call(world.guest.ForgetRequest(pb.ForgetRequestRequest(id=KNOWN)))
