"""Another log under the same ledger: a stream that was made anew or lost its end counts from where the ledger has been.

It knows positions and the ledger; not the event bus, nor what a message holds.
"""

from __future__ import annotations

import time

from shammah_chassis.releases import Release

from shammah_trainer.ledger import Ledger

_MADE = "log_made"  # when the stream was made that the ledger follows, Unix microseconds
_BEGAN = "log_began"  # since when its numbers are those of this stream, Unix microseconds; 0 when always


def follow_log(ledger: Ledger, *, made: int, last_sequence: int, covered: int) -> bool:
    """Note which log the ledger follows; return whether it is another one, to be read from its first message.

    `made`: when the stream was made (Unix microseconds); `covered`: the champion's position in the log of before. Rows
    stay, and are known again by their ids. What the champion has not learned of them comes at the first place of the
    new log, the rest before it; nothing of the new log is acknowledged by rounds of the old one.
    """
    before, sequence = ledger.read_meta(_MADE), ledger.read_meta("sequence")
    if before in (0, made) and last_sequence >= sequence:
        if not before:
            ledger.write_meta(_MADE, made)
        return False
    with ledger.transaction():
        ledger.execute("UPDATE examples SET sequence = (sequence > ?)", (covered,))
        # Place 0 is nowhere: forgetting must not erase what stands at the same place of another log.
        ledger.execute("UPDATE OR IGNORE sources SET sequence = 0")
        ledger.execute("DELETE FROM sources WHERE sequence > 0")
        ledger.execute("UPDATE rounds SET position = 0")
        for name, value in ((_MADE, made), (_BEGAN, time.time_ns() // 1000), ("sequence", 0), ("acked", 0)):
            ledger.write_meta(name, value)
    return True


def position_of(release: Release, ledger: Ledger) -> int:
    """Return the position of a release in the log that the ledger follows: 0 where it learned from another one."""
    return release.position if release.created_at * 1e6 >= ledger.read_meta(_BEGAN) else 0
