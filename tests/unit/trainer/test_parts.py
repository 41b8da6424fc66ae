"""Parts: which example may train, which may judge."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shammah_chassis.examples import Provenance
from shammah_trainer.parts import (
    MOST_ROWS,
    CategoryCounts,
    ClusterState,
    Placement,
    evidence_due,
    is_evidence,
    place,
)
from support.trainer import make_example

PLAIN = make_example("is the lamp on", "yes")


def cluster_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def put(example, known=None, counts=None, cluster="0" * 64):
    return place(example, cluster=cluster, known=known, counts=counts or CategoryCounts())


@given(st.text(min_size=1), st.integers(0, 5000))
def test_a_part_depends_on_the_cluster_and_the_counts_only(text: str, rows: int) -> None:
    counts = CategoryCounts(evidence=rows)
    other = make_example("another query", "no")
    assert put(PLAIN, None, counts, cluster_of(text)) == put(other, None, counts, cluster_of(text))


def test_a_third_of_a_small_category_is_exam_a_third_dev_and_a_tenth_of_a_large_one() -> None:
    for rows, share in ((0, 1 / 3), (299, 1 / 3), (300, 0.1), (5000, 0.1)):
        parts = [put(PLAIN, None, CategoryCounts(evidence=rows), cluster_of(str(i))).part for i in range(3000)]
        assert parts.count("exam") / 3000 == pytest.approx(share, abs=0.03)
        assert parts.count("dev") / 3000 == pytest.approx(share, abs=0.03)


def test_where_the_user_gave_enough_exam_rows_taught_rows_are_train_and_dev_only() -> None:
    counts = CategoryCounts(evidence=100, given=200, exam=200)
    parts = [put(PLAIN, None, counts, cluster_of(str(i))).part for i in range(3000)]
    assert set(parts) == {"train", "dev"}
    assert parts.count("dev") / 3000 == pytest.approx(1 / 3, abs=0.03)


def test_a_few_given_exam_rows_do_not_stop_the_exam_from_growing() -> None:
    counts = CategoryCounts(evidence=200, given=5, exam=40)
    assert "exam" in {put(PLAIN, None, counts, cluster_of(str(i))).part for i in range(50)}


def test_exam_and_dev_stop_growing_at_their_limit() -> None:
    counts = CategoryCounts(evidence=20_000, dev=MOST_ROWS, exam=MOST_ROWS)
    assert {put(PLAIN, None, counts, cluster_of(str(i))).part for i in range(500)} == {"train"}
    assert evidence_due(1_000_000) == MOST_ROWS


@pytest.mark.parametrize(
    "example",
    [
        make_example("q one", "yes", origin="synthetic"),
        make_example("q one", "yes", origin="feedback"),
        make_example("q one", "yes", origin="user_correction"),
        make_example("q one", "yes", grader=""),
        make_example("q one", "yes", grader="judge"),
        make_example("q one", "yes", rating=1),
        make_example("q one", "yes", part_hint="train"),
    ],
)
def test_generated_rated_ungraded_and_unfair_examples_never_become_evidence(example) -> None:
    assert not is_evidence(example)
    assert {put(example, None, None, cluster_of(str(i))).part for i in range(200)} == {"train"}
    for part in ("exam", "dev"):
        assert put(example, ClusterState(part, given=False, same=False)) == "near_exam"


def test_a_users_exam_row_is_exam_unless_it_was_taught_before() -> None:
    row = make_example("q", "yes", part_hint="exam")
    assert put(row) == Placement("exam")
    assert put(row, ClusterState("exam", given=False, same=True)) == Placement("exam")
    assert put(row, ClusterState("train", given=False, same=True)) == "near_train"
    assert put(row, ClusterState("dev", given=False, same=True)) == "near_train"
    assert put(make_example("q", "yes", grader="", part_hint="exam")) == "ungraded_exam"


def test_a_correction_of_the_very_exam_query_takes_its_cluster_out_of_the_exam() -> None:
    correction = make_example("q", "yes", origin="user_correction", grader="")
    assert put(correction, ClusterState("exam", given=True, same=True)) == Placement("train", moves_cluster=True)
    assert put(correction, ClusterState("exam", given=True, same=False)) == "near_exam"


def test_repeated_traffic_joins_its_cluster_but_not_an_exam_that_was_given() -> None:
    for part in ("exam", "dev", "train"):
        assert put(PLAIN, ClusterState(part, given=False, same=True)) == Placement(part)
    assert put(PLAIN, ClusterState("exam", given=True, same=True)) == "near_exam"


def test_a_bad_rating_without_an_answer_goes_to_the_judge_only() -> None:
    bad = make_example("q", "", origin="feedback", rating=-1, grader="")
    assert put(bad) == Placement("judge")
    assert put(bad, ClusterState("exam", given=False, same=True)) == "near_exam"


def test_a_liked_text_of_the_students_own_goes_to_the_judge_only() -> None:
    own = make_example("q", "yes", origin="feedback", grader="", rating=1, student_attempt="yes")
    assert put(own) == Placement("judge")
    told = Provenance(origin="feedback", teacher="claude")
    assert put(make_example("q", "yes", provenance=told, grader="", rating=1)) == Placement("train")
