"""The plan of a round: what is new, what is replayed, what judges."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_trainer.ledger import Ledger
from shammah_trainer.round_log import (
    begin_round,
    close_round,
    durable_position,
    last_rounds,
    mark_published,
    open_rounds,
)
from shammah_trainer.round_plan import (
    PlanLimits,
    count_due,
    count_fresh,
    find_taught,
    has_new_evidence,
    make_plan,
    seed_of,
)
from support.trainer import make_example

LIMITS = PlanLimits()


@pytest.fixture
def ledger(tmp_path: Path):
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def put(ledger: Ledger, sequence: int, count: int, *, part: str = "train", category: str = "a") -> None:
    for number in range(count):
        example = make_example(f"{part} {category} {sequence} {number}", "yes", category=category)
        ledger.insert(example, sequence=sequence, part=part, cluster=example.id, given=False, evidence=True)
    ledger.write_meta("sequence", max(sequence, ledger.read_meta("sequence")))


def test_new_rows_are_those_after_the_champion(ledger: Ledger) -> None:
    put(ledger, 1, 5)
    put(ledger, 2, 3)
    plan = make_plan(ledger, champion_position=1, limits=LIMITS, seed=0)
    assert [row.sequence for row in plan.new] == [2, 2, 2]
    assert plan.position == 2


def test_replay_is_at_most_one_to_one_and_even_over_the_categories(ledger: Ledger) -> None:
    put(ledger, 1, 50, category="a")
    put(ledger, 2, 50, category="b")
    put(ledger, 3, 2, category="c")
    put(ledger, 4, 20, category="a")
    plan = make_plan(ledger, champion_position=3, limits=LIMITS, seed=1)
    counts = {name: sum(row.category == name for row in plan.replay) for name in "abc"}
    assert counts == {"a": 9, "b": 9, "c": 2}
    assert plan == make_plan(ledger, champion_position=3, limits=LIMITS, seed=1)
    # Each epoch recalls others, as evenly; the few of a small category come again.
    twice = make_plan(ledger, champion_position=3, limits=PlanLimits(epochs=2), seed=1)
    first, second = ({row.id for row in part} for part in (twice.replay[:20], twice.replay[20:]))
    assert (len(first), len(second), len(first & second)) == (20, 20, 2)
    assert {name: sum(row.category == name for row in twice.replay[20:]) for name in "abc"} == counts
    assert len(twice.train) == 20 + 38
    few = make_plan(ledger, champion_position=1, limits=PlanLimits(epochs=3), seed=1)
    assert len(few.replay) == 50


def test_a_cap_never_cuts_a_message_in_two(ledger: Ledger) -> None:
    put(ledger, 1, 4)
    put(ledger, 2, 4)
    put(ledger, 3, 4)
    plan = make_plan(ledger, champion_position=0, limits=PlanLimits(fresh_rows=6), seed=0)
    assert len(plan.new) == 8
    assert plan.position == 2


def test_what_came_after_the_position_of_a_round_is_not_taught_in_it(ledger: Ledger) -> None:
    put(ledger, 1, 4)
    put(ledger, 2, 3)
    plan = make_plan(ledger, champion_position=0, limits=PlanLimits(fresh_rows=4), seed=0)
    assert {row.sequence for row in find_taught(ledger, plan)} == {1}
    # As where another log begins under the same ledger: its rows count from the first place that it will have.
    ledger.write_meta("sequence", 0)
    plan = make_plan(ledger, champion_position=0, limits=LIMITS, seed=0)
    assert (plan.position, len(find_taught(ledger, plan))) == (0, 7)


def test_rows_of_a_held_round_are_tried_again_and_do_not_count_as_fresh(ledger: Ledger) -> None:
    put(ledger, 1, 4)
    ids = [row.id for row in ledger.rows("1")]
    begin_round(ledger, "r1", position=1, rows=ids)
    assert [entry.id for entry in open_rounds(ledger)] == ["r1"]
    mark_published(ledger, "r1", {"verdict": "held"})
    mark_published(ledger, "r1", {"verdict": "held"})
    close_round(ledger, "r1", state="done")
    assert [row.trained for row in ledger.rows("1")] == [1, 1, 1, 1]
    assert (open_rounds(ledger), durable_position(ledger)) == ([], 1)
    assert last_rounds(ledger, 1)[0].result == {"verdict": "held"}
    put(ledger, 2, 2)
    assert count_fresh(ledger, champion_position=0) == 2
    assert len(make_plan(ledger, champion_position=0, limits=LIMITS, seed=0).new) == 6


def test_a_stale_index_makes_a_round_due_where_there_is_anything_to_learn_from(ledger: Ledger) -> None:
    put(ledger, 1, 4, part="exam")
    assert count_due(ledger, champion_position=1, stale=True) == 0
    put(ledger, 1, 4)
    assert [count_due(ledger, champion_position=1, stale=stale) for stale in (False, True)] == [0, 1]
    assert count_due(ledger, champion_position=0, stale=True) == 4


def test_a_failed_round_leaves_its_rows_fresh(ledger: Ledger) -> None:
    put(ledger, 1, 4)
    begin_round(ledger, "r1", position=1, rows=[row.id for row in ledger.rows("1")])
    close_round(ledger, "r1", state="failed", error="boom")
    assert count_fresh(ledger, champion_position=0) == 4
    assert durable_position(ledger) == 0
    assert last_rounds(ledger, 1)[0].result["error"] == "boom"


def test_a_row_whose_cluster_was_taught_judges_nobody(ledger: Ledger) -> None:
    put(ledger, 1, 3, part="dev")
    put(ledger, 1, 3, part="exam")
    leaked = ledger.rows("part = 'exam'")[0]
    twin = make_example("a taught twin", "no")
    ledger.insert(twin, sequence=2, part="train", cluster=leaked.cluster, given=False, evidence=False)
    plan = make_plan(ledger, champion_position=0, limits=LIMITS, seed=0)
    assert leaked.id not in {row.id for row in plan.exam}
    assert (len(plan.exam), len(plan.dev)) == (2, 3)


def test_judging_rows_are_capped_by_a_fixed_choice(ledger: Ledger) -> None:
    put(ledger, 1, 30, part="exam", category="a")
    put(ledger, 1, 5, part="exam", category="b")
    limits = PlanLimits(judged_rows=10)
    plan = make_plan(ledger, champion_position=0, limits=limits, seed=0)
    assert sum(row.category == "a" for row in plan.exam) == 10
    assert plan.exam == make_plan(ledger, champion_position=0, limits=limits, seed=5).exam
    assert has_new_evidence(ledger, champion_position=0)
    assert not has_new_evidence(ledger, champion_position=1)


def test_the_seed_of_a_round_is_a_function_of_its_id() -> None:
    assert seed_of("01ABC") == seed_of("01ABC") != seed_of("01ABD")
