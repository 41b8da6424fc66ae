"""Ingestion: from messages to rows, once each, the same way each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shammah_chassis.examples import Envelope, Message, Provenance, pack_envelopes
from shammah_trainer.ingest import Ingest
from shammah_trainer.ledger import Ledger
from shammah_trainer.policy import TrainingPolicy
from support.trainer import make_example, make_switch_rows


@pytest.fixture
def ledger(tmp_path: Path):
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def feed(ledger: Ledger, examples, *, start: int = 1) -> Ingest:
    ingest = Ingest(ledger, TrainingPolicy())
    for number, envelope in enumerate(pack_envelopes(examples), start=start):
        ingest.take_message(number, envelope.encode())
    return ingest


def parts_of(ledger: Ledger) -> dict[str, str]:
    return {row.id: row.part for row in ledger.rows("1")}


def test_a_message_that_comes_again_changes_nothing(ledger: Ledger) -> None:
    rows = make_switch_rows(40)
    ingest = feed(ledger, rows)
    before = parts_of(ledger)
    assert len(before) == 40
    for number, envelope in enumerate(pack_envelopes(rows), start=1):
        assert ingest.take_message(number, envelope.encode()).counts == {}
    # The same content under a later sequence is known by its id.
    report = ingest.take_message(9, Envelope(tuple(rows[:32])).encode())
    assert report.counts == {"duplicate": 32}
    assert parts_of(ledger) == before
    assert ledger.read_meta("sequence") == 9


def test_a_lost_ledger_is_rebuilt_with_the_same_parts(ledger: Ledger, tmp_path: Path) -> None:
    rows = make_switch_rows(30, seed=1, part_hint="exam") + make_switch_rows(200)
    feed(ledger, rows)
    again = Ledger(tmp_path / "again.sqlite")
    feed(again, rows)
    assert parts_of(again) == parts_of(ledger)
    again.close()


def test_parts_go_on_the_same_after_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    rows = make_switch_rows(200)
    envelopes = [envelope.encode() for envelope in pack_envelopes(rows)]
    for number, data in enumerate(envelopes, start=1):
        # A new Ingest each time: its index comes from the file alone.
        Ingest(ledger, TrainingPolicy()).take_message(number, data)
    whole = Ledger(tmp_path / "whole.sqlite")
    feed(whole, rows)
    assert parts_of(ledger) == parts_of(whole)
    whole.close()


def test_a_third_of_the_taught_rows_becomes_dev_where_the_user_gave_an_exam(ledger: Ledger) -> None:
    feed(ledger, make_switch_rows(200, seed=1, part_hint="exam") + make_switch_rows(150))
    counts = ledger.count_rows(after=0)["switch"]
    assert counts["exam"] == 200
    assert counts["train"] + counts["dev"] == 150
    assert 35 <= counts["dev"] <= 65


def test_poison_is_reported_and_the_position_moves_on(ledger: Ledger) -> None:
    ingest = Ingest(ledger, TrainingPolicy())
    report = ingest.take_message(1, b"\x00 not an envelope")
    assert "JSON" in report.poison
    assert (ledger.read_meta("sequence"), ledger.read_meta("poison")) == (1, 1)
    assert ingest.take_message(2, Envelope((make_example("q", "a"),)).encode()).counts == {"new": 1}


LONG = "please tell me right now whether the big red lamp in the old kitchen of the house is still on or already off"


def test_a_generated_example_near_an_exam_row_is_refused(ledger: Ledger) -> None:
    exam = make_example(LONG, "yes", part_hint="exam")
    near = make_example(LONG + "!", "no", origin="synthetic")
    ingest = feed(ledger, [exam])
    assert ingest.check(near) == "near_exam"
    assert ingest.take_message(2, Envelope((near,)).encode()).counts == {"near_exam": 1}
    assert len(ledger.rows("1")) == 1


def test_a_generated_example_that_repeats_a_train_row_is_a_duplicate(ledger: Ledger) -> None:
    ingest = feed(ledger, [make_example(LONG, "yes", origin="synthetic")])
    repeated = make_example(LONG + ", please", "Yes", origin="synthetic")
    assert ingest.check(repeated) == "duplicate"
    # Another response is a contrast; another query is new; a user's traffic repeats, and ingestion takes all of it.
    assert ingest.check(replace(repeated, response="no")) == "new"
    assert ingest.check(make_example("is the door of the new garage open", "yes", origin="synthetic")) == "new"
    assert ingest.check(make_example(LONG + ", please", "yes", origin="teacher")) == "new"
    assert ingest.take_message(2, Envelope((repeated,)).encode()).counts == {"new": 1}


def test_what_the_judge_alone_learns_from_is_no_row_to_repeat(ledger: Ledger) -> None:
    ingest = feed(ledger, [make_example(LONG, "", origin="feedback", grader="", rating=-1, student_attempt="off")])
    model = Provenance(origin="synthetic", teacher="anthropic", teacher_model="m", source="generate")
    made = replace(make_example(LONG, "It is on.", grader="judge"), provenance=model)
    assert ingest.check(made) == "new"
    # As soon as it is taught it can be repeated: free text by its query alone.
    ingest.take_message(9, Envelope((made,)).encode())
    assert ingest.check(replace(made, response="It is still on.")) == "duplicate"


def test_a_correction_of_an_exam_query_moves_its_cluster_to_train(ledger: Ledger) -> None:
    exam = make_example(LONG, "yes", part_hint="exam")
    correction = make_example(LONG, "no", origin="user_correction", grader="")
    feed(ledger, [exam, correction])
    assert [row.part for row in ledger.rows("1")] == ["train", "train"]
    # The query is taught now: an exam row on it would be no exam.
    ingest = Ingest(ledger, TrainingPolicy())
    assert ingest.check(replace(exam, response="off", reference="off")) == "near_train"


def test_checking_changes_nothing_and_says_what_ingestion_does(ledger: Ledger) -> None:
    ingest = feed(ledger, [make_example("first query", "a")])
    other = make_example("quite another thing", "b")
    assert [ingest.check(row) for row in (make_example("first query", "a"), other)] == ["duplicate", "new"]
    assert ingest.check(other) == "new"
    assert len(ledger.rows("1")) == 1


def test_a_forbidden_example_is_not_stored(ledger: Ledger) -> None:
    ingest = Ingest(ledger, TrainingPolicy(refused_licences=("CC0",)))
    assert ingest.take_message(1, Envelope((make_example("q", "a"),)).encode()).counts == {"forbidden": 1}
    assert ledger.rows("1") == []


def test_no_cluster_is_ever_in_train_and_in_judgement(ledger: Ledger) -> None:
    rows = make_switch_rows(120)
    near = [replace(row, query=(Message("user", row.query_text + " ?"),), response="x", reference="x") for row in rows]
    feed(ledger, [row for pair in zip(rows, near, strict=True) for row in pair])
    for (cluster,) in ledger.fetch("SELECT DISTINCT cluster FROM examples"):
        assert len({row.part for row in ledger.rows("cluster = ?", (cluster,))}) == 1
