"""Forgetting: nothing of a request stays in log, ledger or index, others stay, and its learners are named."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.examples import Envelope
from shammah_chassis.releases import Release, Verdict
from shammah_trainer.forget import (
    Forgotten,
    erase_from_ledger,
    erase_from_log,
    find_sources,
    is_stale,
    name_releases,
)
from shammah_trainer.ingest import Ingest
from shammah_trainer.ledger import Ledger
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.round_log import begin_round, close_round, mark_published
from support.artifacts import make_release
from support.example_values import make_example

REQUEST = "01REQUESTTOFORGET"
SECRET = "my card is 4111 and my name is Zebediah"


@pytest.fixture
def ledger(tmp_path: Path):
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def serving(since: float, *, verdict: Verdict = "promote") -> Release:
    return replace(make_release(now=since), verdict=verdict)


async def fill(bus: Bus, ledger: Ledger, *envelopes: Envelope) -> Ingest:
    ingest = Ingest(ledger, TrainingPolicy())
    for envelope in envelopes:
        await bus.publish_envelope("teacher", envelope)
    await read(bus, ingest)
    return ingest


async def read(bus: Bus, ingest: Ingest) -> None:
    async for message in bus.read_log():
        ingest.take_message(message.sequence, message.data)


async def log_bytes(bus: Bus) -> bytes:
    return b"".join([message.data async for message in bus.read_log()])


def files_with(folder: Path, text: bytes) -> list[str]:
    return [path.name for path in folder.glob("ledger.sqlite*") if text in path.read_bytes()]


async def test_a_request_leaves_log_ledger_and_file_and_its_neighbours_stay(
    bus: Bus, ledger: Ledger, tmp_path: Path
) -> None:
    secret = make_example(SECRET, "noted", request=REQUEST)
    other = make_example("what is the time in Rome now", "noon", request="01OTHER")
    ingest = await fill(bus, ledger, Envelope((secret, other)), Envelope((make_example("how high is K2"),)))
    sources = find_sources(ledger, REQUEST)
    assert [source.sequence for source in sources] == [1]
    assert await erase_from_log(bus, sources, REQUEST) == 1
    forgotten = erase_from_ledger(ledger, REQUEST, 1)
    assert forgotten.examples == (secret.id,)
    ingest.rebuild_index()
    assert SECRET.encode() not in await log_bytes(bus)
    await read(bus, ingest)
    assert not ledger.has(secret.id)
    assert ledger.has(other.id)
    assert ledger.fetch("SELECT COUNT(*) FROM queries WHERE text LIKE '%zebediah%'") == [(0,)]
    assert not files_with(tmp_path, b"ebediah")
    # A ledger that is rebuilt from what the log holds has the neighbours, and not the request.
    again = Ledger(tmp_path / "again" / "ledger.sqlite")
    await read(bus, Ingest(again, TrainingPolicy()))
    assert {row.id for row in again.rows("1")} == {row.id for row in ledger.rows("1")}
    assert len(again.rows("1")) == 2
    again.close()


async def test_what_two_requests_gave_stays_for_the_other(bus: Bus, ledger: Ledger) -> None:
    first = make_example("turn the lights on", "on", request=REQUEST)
    await fill(bus, ledger, Envelope((first,)), Envelope((replace(first, request="01OTHER"), make_example("x y"))))
    assert await erase_from_log(bus, find_sources(ledger, REQUEST), REQUEST) == 1
    assert erase_from_ledger(ledger, REQUEST, 1).examples == ()
    assert ledger.has(first.id)
    assert not is_stale(ledger, serving(1.0))


async def test_an_example_is_forgotten_by_its_own_id_wherever_it_stands(bus: Bus, ledger: Ledger) -> None:
    row = make_example("turn the lights on", "on", request="01A")
    await fill(bus, ledger, Envelope((row,)), Envelope((replace(row, request="01B"), make_example("x y"))))
    assert await erase_from_log(bus, find_sources(ledger, row.id), row.id) == 2
    assert erase_from_ledger(ledger, row.id, 2).examples == (row.id,)
    assert b"turn the lights on" not in await log_bytes(bus)


async def test_forgetting_twice_finishes_what_a_crash_left(bus: Bus, ledger: Ledger) -> None:
    row = make_example(SECRET, "noted", request=REQUEST)
    await fill(bus, ledger, Envelope((row, make_example("x y"))))
    sources = find_sources(ledger, REQUEST)
    await erase_from_log(bus, sources, REQUEST)
    # Here the process died; the ledger still has it.
    assert await erase_from_log(bus, find_sources(ledger, REQUEST), REQUEST) == 0
    assert erase_from_ledger(ledger, REQUEST, 0).examples == (row.id,)
    assert find_sources(ledger, REQUEST) == []


async def test_a_dead_letter_that_names_the_request_goes(bus: Bus, ledger: Ledger) -> None:
    await fill(bus, ledger, Envelope((make_example(SECRET, "noted", request=REQUEST),)))
    await bus.dead_letter(f'{{"broken": "{REQUEST}"}}'.encode(), "unreadable", 9)
    await bus.dead_letter(b'{"broken": "another"}', "unreadable", 10)
    assert await erase_from_log(bus, find_sources(ledger, REQUEST), REQUEST) == 2
    assert (await bus.jetstream.stream_info("DEAD")).state.messages == 1


def test_rounds_rollouts_and_the_due_index_are_named(ledger: Ledger) -> None:
    row = make_example(SECRET, "noted", request=REQUEST, part_hint="train")
    Ingest(ledger, TrainingPolicy()).take_message(1, Envelope((row,)).encode())
    begin_round(ledger, "R1", position=1, rows=[row.id])
    mark_published(ledger, "R1")
    begin_round(ledger, "R2", position=1, rows=[row.id])
    close_round(ledger, "R2", state="failed")
    ledger.execute("INSERT INTO rollouts VALUES ('g7', ?, 8, 'text', 'stop', '[]', 1, '')", (row.id,))
    forgotten = erase_from_ledger(ledger, REQUEST, 1)
    assert (forgotten.rounds, forgotten.generators, forgotten.rollouts) == (("R1",), ("g7",), 1)
    assert ledger.fetch("SELECT COUNT(*) FROM rollouts") == [(0,)]
    now = time.time()
    assert is_stale(ledger, serving(now - 60.0))
    assert not is_stale(ledger, serving(now + 60.0)) and not is_stale(ledger, serving(now - 60.0, verdict="base"))


def test_rounds_whose_judges_may_have_seen_the_row_are_named_by_their_positions(ledger: Ledger) -> None:
    rows = [make_example(f"row {place}", "noted", request=f"01R{place}", part_hint="train") for place in (1, 2, 3)]
    ingest = Ingest(ledger, TrainingPolicy())
    for place, row in enumerate(rows, start=1):
        ingest.take_message(place, Envelope((row,)).encode())
    for name, position in (("R1", 1), ("R2", 2), ("R3", 3)):
        # Each generator learned another row, and replayed none.
        begin_round(ledger, name, position=position, rows=[rows[position - 1].id])
        mark_published(ledger, name)
    assert erase_from_ledger(ledger, "01R2", 1).rounds == ("R2", "R3")


def test_a_row_that_was_in_no_index_leaves_none_stale(ledger: Ledger) -> None:
    row = make_example(SECRET, "noted", request=REQUEST, part_hint="exam")
    Ingest(ledger, TrainingPolicy()).take_message(1, Envelope((row,)).encode())
    assert erase_from_ledger(ledger, REQUEST, 1).examples == (row.id,)
    assert not is_stale(ledger, serving(time.time() - 60.0))


def test_releases_that_descend_from_a_learner_are_named_too() -> None:
    forgotten = Forgotten(("e",), 1, 0, ("R1", "R9"), ("g7",))

    def release(name: str, parent: str, *ancestry: str, generator: str = "g") -> Release:
        return Release(
            id=name, parent=parent, created_at=float(len(name)), router="r", generator=generator, validator="v",
            verdict="promote", ancestry=ancestry,
        )  # fmt: skip

    store = [
        release("R0", ""),
        release("R1", "R0", "R0"),
        release("R2", "R1", "R0", "R1"),
        release("R3", "R0", "R0"),
        release("R4", "R0", "R0", generator="g7"),
    ]
    # R9 still runs: it has no release yet, and will be one.
    assert name_releases(forgotten, store) == ("R1", "R2", "R4", "R9")
