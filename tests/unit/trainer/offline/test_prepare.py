"""A study is cut by the rules of the example log, and travels unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shammah_chassis.errors import ArtifactError, InvalidInputError, NotFoundError
from shammah_chassis.examples import pack_envelopes
from shammah_chassis.workload import read_workload
from shammah_trainer.ingest import Ingest
from shammah_trainer.ledger import Ledger
from shammah_trainer.offline.prepare import LEDGER_NAME, Cut, Files, fill_ledger, keep_ingested, prepare
from shammah_trainer.offline.study import PARTS, Study, read_study, write_study
from shammah_trainer.policy import TrainingPolicy
from support.studies import write_workload
from support.trainer import make_switch_rows


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Two families with train files, one of them with an exam file too, and a test file."""
    near = [replace(row, query=(replace(row.query[0], content=row.query_text + "!"),)) for row in make_switch_rows(20)]
    return Files(
        train=(
            write_workload(tmp_path / "switch.jsonl.gz", make_switch_rows(420) + near),
            write_workload(tmp_path / "other.jsonl.gz", make_switch_rows(60, seed=4, category="other")),
        ),
        exam=(write_workload(tmp_path / "exam.jsonl.gz", make_switch_rows(30, seed=1)),),
        test=(write_workload(tmp_path / "test.jsonl.gz", make_switch_rows(25, seed=3)),),
    )


def parts_of(study: Study) -> dict[str, str]:
    return {row.id: row.part for part in PARTS[:3] for row in study.rows(part)}


def test_rows_fall_into_the_parts_that_the_example_log_would_give_them(files: Files, tmp_path: Path) -> None:
    prepared = prepare(files, Cut(judged_rows=0), tmp_path / "study")
    exam = [replace(row.example, part_hint="exam") for row in read_workload(files.exam[0], category_from="family").rows]
    train = [row.example for path in files.train for row in read_workload(path, category_from="family").rows]
    online = Ledger(tmp_path / "online.sqlite")
    ingest = Ingest(online, TrainingPolicy())
    for sequence, envelope in enumerate(pack_envelopes([*exam, *train]), start=1):
        ingest.take_message(sequence, envelope.encode())
    expected = {row.id: (row.part, row.cluster, row.sequence, row.given) for row in online.rows("1")}
    offline = Ledger(tmp_path / "study" / LEDGER_NAME)
    assert {row.id: (row.part, row.cluster, row.sequence, row.given) for row in offline.rows("1")} == expected
    assert parts_of(prepared.study) == {name: values[0] for name, values in expected.items()}
    assert set(parts_of(prepared.study).values()) == {"train", "dev", "exam"}
    online.close()
    offline.close()


def test_a_study_that_was_written_is_read_as_it_was(files: Files, tmp_path: Path) -> None:
    study = prepare(files, Cut(seed=5), tmp_path / "study").study
    write_study(study, tmp_path / "study.jsonl.gz")
    again = read_study(tmp_path / "study.jsonl.gz")
    assert again.plan == study.plan
    assert again.test == study.test
    assert len(again.test) == 25
    assert {again.names[row.id] for row in again.test} == {f"switch-{number}" for number in range(25)}


def test_test_rows_are_in_no_ledger(files: Files, tmp_path: Path) -> None:
    study = prepare(files, Cut(), tmp_path / "study").study
    ledger = Ledger(tmp_path / "study" / LEDGER_NAME)
    assert not [row.id for row in study.test if ledger.has(row.id)]
    ledger.close()


def test_a_family_that_is_left_out_is_in_no_part_but_the_test(files: Files, tmp_path: Path) -> None:
    files = replace(files, test=(*files.test, files.train[1]))
    study = prepare(files, Cut(leave_out=("other",)), tmp_path / "study").study
    assert {row.category for part in PARTS[:3] for row in study.rows(part)} == {"switch"}
    assert {row.category for row in study.test} == {"switch", "other"}


def test_fewer_train_rows_are_among_more_and_spread_over_the_categories(files: Files, tmp_path: Path) -> None:
    drawn = [prepare(files, Cut(train_rows=count), tmp_path / str(count)).study for count in (20, 60)]
    few, many = ({row.id for row in study.plan.new} for study in drawn)
    assert len(few) == 20
    assert few < many
    assert sum(row.category == "other" for row in drawn[0].plan.new) == 10
    assert drawn[0].plan.exam == drawn[1].plan.exam


def test_exam_rows_taken_from_the_train_files_are_given_and_no_longer_train(files: Files, tmp_path: Path) -> None:
    files = replace(files, exam=())
    study = prepare(files, Cut(exam_rows=50), tmp_path / "study").study
    given = [row for row in study.plan.exam if row.given]
    # A third of the small family at most; near-duplicates of what was drawn may not train any more.
    assert sum(row.category == "other" for row in given) == 20
    assert sum(row.category == "switch" for row in given) >= 45
    clusters = {row.cluster for row in given}
    assert not [row for row in study.plan.new if row.cluster in clusters]


def test_what_can_not_be_studied_is_said(files: Files, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no train row"):
        prepare(files, Cut(leave_out=("switch", "other")), tmp_path / "none")
    with pytest.raises(InvalidInputError, match="a ledger already"):
        prepare(files, Cut(), tmp_path / "none")
    with pytest.raises(NotFoundError, match="no workload file"):
        prepare(Files(train=(tmp_path / "missing.jsonl",)), Cut(), tmp_path / "missing")
    with pytest.raises(NotFoundError, match="`prepare` makes one"):
        read_study(tmp_path / "missing.jsonl.gz")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(ArtifactError, match="is no study"):
        read_study(tmp_path / "bad.jsonl.gz")


def test_a_ledger_that_was_kept_gives_the_same_studies(files: Files, tmp_path: Path) -> None:
    cut = Cut(train_rows=40)
    keep_ingested(files, cut, tmp_path / "kept.sqlite")
    again = prepare(files, cut, tmp_path / "again", ingested=tmp_path / "kept.sqlite").study
    assert again.plan == prepare(files, cut, tmp_path / "fresh").study.plan
    assert len(again.plan.new) == 40


def test_for_accuracy_alone_every_row_trains(files: Files, tmp_path: Path) -> None:
    study = prepare(replace(files, exam=()), Cut(teach_all=True), tmp_path / "study").study
    assert not study.plan.dev
    assert not study.plan.exam
    ledger = Ledger(tmp_path / "study" / LEDGER_NAME)
    assert len(study.plan.new) == len(ledger.rows("1"))
    ledger.close()


def test_a_ledger_is_made_again_of_a_study_that_travelled_without_it(files: Files, tmp_path: Path) -> None:
    study = prepare(files, Cut(exam_rows=50), tmp_path / "study").study
    fill_ledger(study, tmp_path / "again.sqlite")
    ledger, again = Ledger(tmp_path / "study" / LEDGER_NAME), Ledger(tmp_path / "again.sqlite")
    planned = {row.id for part in PARTS[:3] for row in study.rows(part)}
    assert {row.id: row for row in again.rows("1")} == {row.id: row for row in ledger.rows("1") if row.id in planned}
    assert again.count_rows(after=study.plan.position) == ledger.count_rows(after=study.plan.position)
    assert again.read_meta("sequence") == ledger.read_meta("sequence")
    ledger.close()
    again.close()
