"""Examples that are parked come back: they count as new again, whatever was learned meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.errors import NotFoundError
from shammah_trainer.forget import erase_from_ledger, find_sources
from shammah_trainer.ingest import Ingest
from shammah_trainer.ledger import Ledger
from shammah_trainer.policy import TrainingPolicy
from shammah_trainer.round_log import Parked, begin_round, close_round, park_rows, read_parked
from shammah_trainer.round_plan import PlanLimits, count_fresh, make_plan
from shammah_trainer.unparking import unpark_rows
from support.trainer import make_switch_rows

ROWS = make_switch_rows(40, part_hint="train")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Forty rows at the first place that are parked, and four later ones at the second."""
    made = Ledger(tmp_path / "ledger.sqlite")
    ingest = Ingest(made, TrainingPolicy())
    ingest.take_examples(1, ROWS)
    for name in "AB":
        begin_round(made, name, position=1, rows=[row.id for row in ROWS], champion="R0")
        close_round(made, name, state="failed", error="DivergedError: the loss is nan")
    assert park_rows(made, "DivergedError") == 40
    ingest.take_examples(2, make_switch_rows(4, seed=1, part_hint="train"))
    return made


def test_they_are_new_to_a_champion_that_has_learned_later_rows(ledger: Ledger) -> None:
    assert count_fresh(ledger, champion_position=2) == 0
    assert sum(len(envelope.examples) for envelope in unpark_rows(ledger)) == 40
    assert read_parked(ledger) == Parked(0, "")
    assert count_fresh(ledger, champion_position=2) == 40
    assert {row.id for row in make_plan(ledger, champion_position=2, limits=PlanLimits(), seed=0).new} == {
        row.id for row in ROWS
    }


def test_only_those_of_a_category_come_back_and_none_is_told(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match="category 'intents'"):
        unpark_rows(ledger, "intents")
    assert read_parked(ledger).rows == 40
    ledger.execute("UPDATE examples SET category = 'intents' WHERE id = ?", (ROWS[0].id,))
    assert [row.id for envelope in unpark_rows(ledger, "intents") for row in envelope.examples] == [ROWS[0].id]
    assert read_parked(ledger).rows == 39
    unpark_rows(ledger)
    with pytest.raises(NotFoundError, match="no example is parked"):
        unpark_rows(ledger)


def test_a_cap_takes_what_came_first_and_claims_no_place_that_was_not_read(ledger: Ledger) -> None:
    unpark_rows(ledger)
    # Their places are those of two messages that come, of 32 and of 8.
    first = make_plan(ledger, champion_position=0, limits=PlanLimits(fresh_rows=4), seed=0)
    assert (len(first.new), first.position) == (4, 2)
    second = make_plan(ledger, champion_position=2, limits=PlanLimits(fresh_rows=10), seed=0)
    assert (len(second.new), second.position) == (32, 2)


def test_what_is_sent_again_stores_nothing_twice_and_is_forgotten_as_a_whole(ledger: Ledger) -> None:
    ingest = Ingest(ledger, TrainingPolicy())
    for place, envelope in enumerate(unpark_rows(ledger), start=3):
        report = ingest.take_examples(place, envelope.examples)
        assert report.counts == {"duplicate": len(envelope.examples)}
    plan = make_plan(ledger, champion_position=2, limits=PlanLimits(), seed=0)
    assert (len(plan.new), plan.position) == (40, 4)
    # A champion of this round lacks nothing.
    assert count_fresh(ledger, champion_position=plan.position) == 0
    assert [source.sequence for source in find_sources(ledger, ROWS[0].id)] == [1, 3]
    erase_from_ledger(ledger, ROWS[0].id, 2)
    assert not ledger.has(ROWS[0].id)
