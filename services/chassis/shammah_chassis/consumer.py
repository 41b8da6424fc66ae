"""The trainer's reading position in the example log: a durable pull consumer with one acknowledgement for many.

At least once: what was not acknowledged comes again after `ack_wait_seconds`, or after a restart. Who reads must know
by example id what it has seen. It does not decode envelopes.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors
from nats.js import api

from shammah_chassis.bus import Bus, LogMessage
from shammah_chassis.errors import InvalidInputError, UnavailableError
from shammah_chassis.streams import EXAMPLE_SUBJECTS, EXAMPLES

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

DURABLE = "trainer"


class ExampleConsumer:
    """The durable consumer `trainer`. Its position lives in NATS; one object reads at a time."""

    def __init__(self, bus: Bus, *, ack_wait_seconds: float = 60.0, durable: str = DURABLE) -> None:
        self._bus = bus
        self._ack_wait = ack_wait_seconds
        self._durable = durable
        self._subscription: JetStreamContext.PullSubscription | None = None
        # Where to acknowledge each message; the data are not kept: a round may wait for long.
        self._held: dict[int, str] = {}

    async def fetch(self, limit: int, timeout: float) -> list[LogMessage]:
        """Return up to `limit` messages in log order, waiting at most `timeout` seconds for the first.

        An empty list means that nothing new came.

        Raises:
            UnavailableError: NATS is away.
        """
        if limit < 1 or timeout <= 0:
            raise InvalidInputError(f"fetch({limit}, {timeout}): both must be above zero")
        subscription = await self._bind()
        try:
            messages = await subscription.fetch(limit, timeout=timeout)
        except TimeoutError:
            if not self._bus.connected:
                raise UnavailableError("fetch: NATS is away", retry_after_seconds=1.0) from None
            return []
        except (nats.errors.Error, OSError) as error:
            # The consumer was lost with the server's disk, or the connection ended: bind anew next time.
            self._subscription = None
            raise UnavailableError(f"fetch: {error}", retry_after_seconds=1.0) from error
        for message in messages:
            self._held[_sequence(message)] = message.reply
        found = {_sequence(message): LogMessage(_sequence(message), message.data) for message in messages}
        return [found[sequence] for sequence in sorted(found)]

    async def ack_through(self, sequence: int) -> None:
        """Acknowledge every message up to `sequence`, and wait until the server has noted it.

        Only messages that this object has fetched can be acknowledged: after a restart fetch first, then acknowledge
        what is known already. With none up to `sequence` nothing happens.

        Raises:
            UnavailableError: not confirmed; those messages may come again.
        """
        known = [held for held in self._held if held <= sequence]
        if not known:
            return
        reply = self._held[max(known)]
        # msg.ack_sync() may be called once only, so the confirmed form is sent by hand and can be repeated.
        await self._bus.call(lambda: self._bus.client.request(reply, b"+ACK", timeout=1.0), f"ack through {sequence}")
        for held in known:
            del self._held[held]

    async def in_progress(self) -> None:
        """Ask the server for another `ack_wait_seconds` for all that was fetched and not acknowledged."""
        for reply in list(self._held.values()):
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._bus.client.publish(reply, b"+WPI")

    async def close(self) -> None:
        """Stop reading; the position stays in NATS."""
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                await self._subscription.unsubscribe()
            self._subscription = None

    async def _bind(self) -> JetStreamContext.PullSubscription:
        if self._subscription is None:
            config = api.ConsumerConfig(
                durable_name=self._durable,
                filter_subject=EXAMPLE_SUBJECTS,
                deliver_policy=api.DeliverPolicy.ALL,
                ack_policy=api.AckPolicy.ALL,
                ack_wait=self._ack_wait,
                max_deliver=-1,
                # A whole round may be out at once; the default of 1,000 would stall it.
                max_ack_pending=-1,
            )
            js = self._bus.jetstream
            await self._bus.call(lambda: js.add_consumer(EXAMPLES, config), "make consumer")
            self._subscription = await self._bus.call(
                lambda: js.pull_subscribe_bind(consumer=self._durable, stream=EXAMPLES), "bind consumer"
            )
        return self._subscription


def _sequence(message: Msg) -> int:
    return int(message.metadata.sequence.stream)
