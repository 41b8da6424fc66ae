"""Forgetting a request everywhere: memory, spool, then log and ledger. What a model learned is named, not unlearned."""

from __future__ import annotations

from shammah.v1 import gateway_pb2
from shammah_chassis.errors import InvalidInputError, NotFoundError

from shammah_gateway.gateway import Gateway

MAX_ID_CHARS = 128


async def forget_request(gateway: Gateway, name: str) -> gateway_pb2.ForgetRequestResponse:
    """Remove what a request (or the example of that id) left behind. Repeating it finishes what a failure left.

    Raises:
        InvalidInputError: no id, or a longer one than any.
        NotFoundError: nobody knows anything of it.
        UnavailableError: the trainer or the bus is away; what could be reached is forgotten.
    """
    name = name.strip()
    if not 1 <= len(name) <= MAX_ID_CHARS:
        raise InvalidInputError(f"an id has 1 to {MAX_ID_CHARS} characters, this one {len(name)}")
    remembered = gateway.feedback.forget(name)
    # Before the log: what is spooled now would come to the log after it was cleared.
    spooled = await gateway.recorder.forget(name)
    reply = gateway_pb2.ForgetRequestResponse(remembered=remembered, spooled=spooled)
    try:
        erased = await gateway.trainer.forget(name)
    except NotFoundError:
        if not remembered and not spooled:
            raise NotFoundError(f"nothing is known of a request {name!r}, nor of an example of that id") from None
        return reply
    reply.examples.extend(erased.examples)
    reply.releases.extend(erased.releases)
    reply.messages, reply.rollouts = erased.messages, erased.rollouts
    return reply
