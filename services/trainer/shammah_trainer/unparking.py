"""Examples that are parked come back to training, at places of the log that no round has covered.

It does not know why they were parked (`round_log`), nor what a round makes of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from shammah_chassis.bus import Bus
from shammah_chassis.errors import NotFoundError, ShammahError
from shammah_chassis.examples import Envelope, pack_envelopes

from shammah_trainer.ledger import Ledger

SOURCE = "unparked"
"""Source of the messages that send them again."""
_LOG = logging.getLogger(__name__)


def unpark_rows(ledger: Ledger, category: str = "") -> list[Envelope]:
    """Make train rows again of what is parked, of one category or all (""); return it as it may be sent again.

    Their places are those of the messages that come next. At the old ones a champion that has learned later rows, or a
    round that runs now, would count as having learned them too.

    Raises:
        NotFoundError: nothing is parked, or nothing of that category.
    """
    where, values = ("part = 'parked' AND category = ?", (category,)) if category else ("part = 'parked'", ())
    with ledger.transaction():
        envelopes = list(pack_envelopes(row.example for row in ledger.rows(where, values)))
        for place, envelope in enumerate(envelopes, start=ledger.read_meta("sequence") + 1):
            for example in envelope.examples:
                ledger.execute("UPDATE examples SET part = 'train', sequence = ? WHERE id = ?", (place, example.id))
    if not envelopes:
        raise NotFoundError(f"no example{f' of the category {category!r}' if category else ''} is parked")
    return envelopes


async def send_again(bus: Bus, envelopes: Sequence[Envelope]) -> None:
    """Send what `unpark_rows` returned, so that the log goes on past its places, which a round may cover then.

    Nothing is stored twice. If the bus is away, or knows the very same message from the last minutes, the next messages
    do it: until then a champion that has learned the rows seems to lack them.
    """
    try:
        for envelope in envelopes:
            await bus.publish_envelope(SOURCE, envelope)
    except ShammahError as error:
        _LOG.warning("the log does not go on by itself past what was parked: %s", error.message)
