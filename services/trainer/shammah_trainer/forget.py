"""Forgetting a request or an example by its id: out of log, dead letters, ledger, rollouts and near-duplicate index.

What a model has learned stays in its weights: the releases that learned it are named, so that somebody can decide. The
nearest examples that a validator keeps are rebuilt without the row by the next round, which a forgotten row makes due.
It does not know the gateway's spool and memory: the gateway clears those first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from shammah_chassis.bus import Bus
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Envelope, Example
from shammah_chassis.log_erase import erase_dead_letters, erase_message, read_message
from shammah_chassis.releases import Release
from shammah_chassis.text import normalise_query
from shammah_chassis.ulid import read_milliseconds

from shammah_trainer.ledger import Ledger

STALE = "index_stale"
"""Ledger mark: when a row was last forgotten that validators may hold in their indexes, Unix milliseconds; 0: never."""
KEPT = "kept"
"""Source of the examples that shared a message with a forgotten one."""
_TRAIN_PLACE = "SELECT sequence FROM examples WHERE id = ? AND part = 'train'"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed. `rounds` learned from the row or may have indexed it, `generators` were graded on it."""

    examples: tuple[str, ...]
    messages: int
    rollouts: int
    rounds: tuple[str, ...]
    generators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was removed, and the ids of the releases that learned from it or were judged by it."""

    forgotten: Forgotten
    releases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """One place of the log where an example stands."""

    example: str
    sequence: int


def find_sources(ledger: Ledger, name: str) -> list[Source]:
    """Return where a request's examples (or the example of that id) stand in the log."""
    sql = "SELECT example, sequence FROM sources WHERE request = ? OR example = ? ORDER BY sequence"
    return [Source(*row) for row in ledger.fetch(sql, (name, name))]


async def erase_from_log(bus: Bus, sources: Sequence[Source], name: str) -> int:
    """Erase the messages of `sources`; what else stood in them is sent again first. Returns how many were erased.

    A crash in between leaves a message twice or a request half forgotten: forgetting it again finishes.

    Raises:
        UnavailableError, StorageFullError: the log can't be written; nothing is lost.
    """
    erased = 0
    for sequence in sorted({source.sequence for source in sources}):
        message = await read_message(bus, sequence)
        if message is None:
            continue
        kept = _keep_others(message.data, name)
        if kept:
            await bus.publish_envelope(KEPT, Envelope(kept))
        await erase_message(bus, sequence)
        erased += 1
    return erased + await erase_dead_letters(bus, lambda data: name.encode() in data)


def erase_from_ledger(ledger: Ledger, name: str, messages: int) -> Forgotten:
    """Remove a request's examples with all that was made of them, in one transaction.

    An example that another request gave as well stays, without this source.
    """
    with ledger.transaction():
        found = {source.example for source in find_sources(ledger, name)}
        rounds, generators = _find_learners(ledger, found)
        ledger.execute("DELETE FROM sources WHERE request = ? OR example = ?", (name, name))
        gone = sorted(item for item in found if not ledger.fetch("SELECT 1 FROM sources WHERE example = ?", (item,)))
        rollouts = 0
        # Dev and exam rows are in no index, and what is parked was in no round that ended well.
        indexed = any(ledger.fetch(_TRAIN_PLACE, (example,)) for example in gone)
        for example in gone:
            rollouts += int(ledger.fetch("SELECT COUNT(*) FROM rollouts WHERE example = ?", (example,))[0][0])
            ledger.execute("DELETE FROM rollouts WHERE example = ?", (example,))
            _remove(ledger, example)
        if indexed:
            ledger.write_meta(STALE, time.time_ns() // 1_000_000)
    ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Forgotten(tuple(gone), messages, rollouts, rounds, generators)


def is_stale(ledger: Ledger, champion: Release) -> bool:
    """Say whether the index that serves may hold a forgotten row: its round began before the row was forgotten.

    So whatever became of the rounds since, and also after a rollback. Release 0 has learned no row.
    """
    return champion.verdict != "base" and read_milliseconds(champion.id) <= ledger.read_meta(STALE)


def name_releases(forgotten: Forgotten, releases: Sequence[Release]) -> tuple[str, ...]:
    """Return the ids of the releases that learned what was forgotten: made by its rounds, or descended from such."""
    learned = set(forgotten.rounds)
    generators = set(forgotten.generators)
    for release in sorted(releases, key=lambda item: item.created_at):
        if release.generator in generators or learned & {release.parent, *release.ancestry}:
            learned.add(release.id)
    known = {release.id for release in releases}
    # A round that still runs has no release yet; its id is the id of the release that it makes.
    return tuple(sorted(name for name in learned if name in known or name in forgotten.rounds))


def _keep_others(data: bytes, name: str) -> tuple[Example, ...]:
    try:
        examples = Envelope.decode(data).examples
    except InvalidInputError:
        return ()
    return tuple(row for row in examples if name not in (row.request, row.id))


def _find_learners(ledger: Ledger, examples: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    places = [row[0] for name in examples for row in ledger.fetch(_TRAIN_PLACE, (name,))]
    # A round's judges see the train rows up to its position, whatever its generator replays of them.
    rounds = [
        round_id
        for round_id, rows, position in ledger.fetch("SELECT id, rows, position FROM rounds WHERE state <> 'failed'")
        if examples & set(json.loads(rows)) or any(place <= position for place in places)
    ]
    generators: set[str] = set()
    for example in examples:
        generators |= {row[0] for row in ledger.fetch("SELECT generator FROM rollouts WHERE example = ?", (example,))}
    return tuple(sorted(rounds)), tuple(sorted(generators))


def _remove(ledger: Ledger, example: str) -> None:
    rows = ledger.rows("id = ?", (example,))
    ledger.execute("DELETE FROM examples WHERE id = ?", (example,))
    ledger.execute("DELETE FROM refused WHERE id = ?", (example,))
    for row in rows:
        text = normalise_query(row.example.query_text)
        others = ledger.rows("cluster = ?", (row.cluster,))
        if not any(normalise_query(other.example.query_text) == text for other in others):
            ledger.execute("DELETE FROM queries WHERE text = ?", (text,))
        if not others:
            ledger.execute("DELETE FROM clusters WHERE cluster = ?", (row.cluster,))
