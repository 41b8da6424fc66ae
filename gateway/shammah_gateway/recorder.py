"""Examples on their way to the log: packed into envelopes, published, or spooled to disk while the bus is away.

It does not know what an example says. An example is safe (in the log or on disk) when `record` returns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from shammah_chassis.bus import Bus
from shammah_chassis.errors import ShammahError, StorageFullError, UnavailableError
from shammah_chassis.examples import Envelope, Example, pack_envelopes
from shammah_chassis.spool import Spool
from shammah_chassis.tasks import stop_tasks

from shammah_gateway.consent.consent import Consent
from shammah_gateway.ports import Recorded

DRAIN_SECONDS = 1.0
PUBLISH_SECONDS = 2.0
_log = logging.getLogger(__name__)


class Recorder:
    """The real `ports.ExampleSink`."""

    def __init__(self, bus: Bus, spool: Spool, consent: Consent | None = None) -> None:
        self._bus = bus
        self._spool = spool
        self._consent = consent
        self._task: asyncio.Task[None] | None = None
        # The bus is connected and takes nothing: nobody asks it but the drain until it has taken something.
        self._hangs = False
        self.warning = ""

    @property
    def spooled(self) -> int:
        """How many envelopes wait on disk."""
        return self._spool.pending()

    def start(self) -> None:
        """Begin to send what is spooled, whenever the bus is there."""
        self._task = asyncio.create_task(self._drain())

    async def close(self) -> None:
        """Stop sending; what is spooled stays on disk."""
        await stop_tasks([self._task])

    async def record(self, source: str, examples: Sequence[Example]) -> Recorded:
        """Queue examples.

        Raises:
            StorageFullError: neither the log nor the spool has room; the examples of the envelopes before are kept.
            TooLongError: one got too long by masking.
        """
        spooled = False
        if self._consent is not None:
            examples = await self._consent.admit(source, examples)
        for envelope in pack_envelopes(examples):
            spooled = await self._put(source, envelope) or spooled
        return Recorded(len(examples), spooled)

    async def forget(self, name: str) -> int:
        """Remove the examples of a request, or the example of that id, from what waits on disk; returns how many."""
        return await self._spool.take_out(lambda row: name in (row.request, row.id))

    async def _put(self, source: str, envelope: Envelope) -> bool:
        """Publish one envelope, or spool it; returns whether it was spooled."""
        # Only while something waits, since that is what the drain asks the bus with.
        if self._hangs and self._spool.pending():
            await self._spool.append(source, envelope)
            return True
        try:
            # The bus has more patience than a user: what it does not take soon is as safe on disk. If it took it
            # after all, the second copy has the same message id.
            async with asyncio.timeout(PUBLISH_SECONDS if self._bus.connected else 0.0):
                await self._publish(source, envelope)
        except asyncio.CancelledError:
            await self._keep_for(source, envelope)
            raise
        except (UnavailableError, StorageFullError, TimeoutError) as error:
            self._hangs = self._bus.connected and isinstance(error, TimeoutError)
            self.warning = f"examples are spooled: {error or 'the event bus is away'}"
            await self._spool.append(source, envelope)
            return True
        return False

    async def _publish(self, source: str, envelope: Envelope) -> None:
        await self._bus.publish_envelope(source, envelope)
        self._hangs = False

    async def _keep_for(self, source: str, envelope: Envelope) -> None:
        """Spool what a caller gave up (a deadline, the stop): the teacher's answer in it was paid for all the same."""
        try:
            await self._spool.append(source, envelope)
        except (ShammahError, OSError) as error:
            # The caller is owed the end of its cancellation, not this.
            _log.error("an envelope that was given up could not be kept: %s", error)

    async def _drain(self) -> None:
        while True:
            await asyncio.sleep(DRAIN_SECONDS)
            if not self._spool.pending():
                continue
            try:
                sent = await self._spool.drain(self._publish)
            except (ShammahError, OSError) as error:
                # A disk that can't be read keeps the drain from asking the bus: a user's example has to.
                self._hangs = self._hangs and not isinstance(error, OSError)
                self.warning = f"examples are spooled: {error}"
            else:
                self.warning = ""
                _log.info("the bus is back: %d spooled envelopes sent", sent)
