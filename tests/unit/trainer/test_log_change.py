"""Another log under the same ledger: what comes there is new, what was learned stays learned."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from shammah_chassis.releases import Release
from shammah_trainer.forget import find_sources
from shammah_trainer.ingest import Ingest
from shammah_trainer.ledger import Ledger
from shammah_trainer.log_change import follow_log, position_of
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.round_log import begin_round, close_round, durable_position
from shammah_trainer.round_plan import count_fresh
from support.trainer import make_switch_rows

MADE = 1_700_000_000_000_000
OLD = make_switch_rows(12, part_hint="train")
CHAMPION = Release(
    id="01J0000000000000000000000A",
    parent="",
    created_at=1.7e9,
    router="r",
    generator="g",
    validator="v",
    verdict="promote",
    categories={},
    position=4000,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger of a log of 5,000 messages, whose champion has learned the first 4,000."""
    made = Ledger(tmp_path / "ledger.sqlite")
    ingest = Ingest(made, TrainingPolicy())
    ingest.take_examples(3000, OLD[:8])
    ingest.take_examples(5000, OLD[8:])
    begin_round(made, CHAMPION.id, position=4000, rows=[])
    close_round(made, CHAMPION.id, state="done")
    assert not follow_log(made, made=MADE, last_sequence=5000, covered=4000)
    return made


def test_the_same_log_that_grew_changes_nothing(ledger: Ledger) -> None:
    assert not follow_log(ledger, made=MADE, last_sequence=6000, covered=4000)
    assert ledger.read_meta("sequence") == 5000
    assert position_of(CHAMPION, ledger) == 4000


@pytest.mark.parametrize(("made", "last"), [(MADE + 1, 6000), (MADE + 1, 3), (MADE, 4999)])
def test_of_another_log_or_one_that_lost_its_end_every_message_is_new(ledger: Ledger, made: int, last: int) -> None:
    assert follow_log(ledger, made=made, last_sequence=last, covered=4000)
    ingest = Ingest(ledger, TrainingPolicy())
    # Known ones are not stored again, and what the champion has not learned yet waits still.
    assert ingest.take_examples(1, OLD).counts == {"duplicate": 12}
    assert ingest.take_examples(2, make_switch_rows(5, seed=1, part_hint="train")).counts == {"new": 5}
    assert count_fresh(ledger, champion_position=position_of(CHAMPION, ledger)) == 4 + 5
    assert not follow_log(ledger, made=made, last_sequence=max(last, 2), covered=0)


def test_rounds_of_another_log_acknowledge_nothing_and_its_places_are_not_erased(ledger: Ledger) -> None:
    assert durable_position(ledger) == 4000
    follow_log(ledger, made=MADE + 1, last_sequence=0, covered=4000)
    assert durable_position(ledger) == 0
    assert {source.sequence for source in find_sources(ledger, OLD[0].id)} == {0}


def test_a_release_of_the_new_log_has_its_own_position(ledger: Ledger) -> None:
    follow_log(ledger, made=MADE + 1, last_sequence=0, covered=4000)
    assert position_of(replace(CHAMPION, created_at=time.time() + 1, position=7), ledger) == 7
