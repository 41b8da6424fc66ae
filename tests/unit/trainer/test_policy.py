"""The policy: who may train what."""

from __future__ import annotations

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Provenance
from shammah_trainer.policy import MAX_WEIGHT, TrainingPolicy, cap_user_weights, summarise_provenance, weigh
from support.trainer import make_example


def test_every_known_origin_may_train_by_default() -> None:
    assert TrainingPolicy().refuse(make_example("q", "a", origin="explore")) == ""


def test_a_refused_licence_is_named() -> None:
    policy = TrainingPolicy(refused_licences=("nc",))
    row = make_example("q", "a", provenance=Provenance(origin="dataset", licence="CC-BY-NC 4.0"))
    assert "CC-BY-NC" in policy.refuse(row)


def test_an_origin_may_train_one_role_and_not_another() -> None:
    policy = TrainingPolicy(origins={"generator": ("teacher",)})
    row = make_example("q", "a", origin="synthetic")
    assert (policy.allows(row, "generator"), policy.allows(row, "router")) == (False, True)
    none = TrainingPolicy(origins=dict.fromkeys(("router", "generator", "validator"), ("teacher",)))
    assert "synthetic" in none.refuse(row)


def test_a_policy_with_an_unknown_origin_or_role_is_refused() -> None:
    for origins in ({"generator": ("rumour",)}, {"gatekeeper": ("teacher",)}):
        with pytest.raises(InvalidInputError):
            TrainingPolicy(origins=origins)


def test_the_students_own_ungraded_text_trains_nothing_unless_a_user_called_it_good() -> None:
    own = {"student_attempt": "maybe", "grader": ""}
    assert TrainingPolicy().refuse(make_example("q", "maybe", origin="explore", **own)) != ""
    assert TrainingPolicy().refuse(make_example("q", "maybe", origin="feedback", rating=1, **own)) == ""
    by_student = Provenance(origin="teacher", teacher="student")
    assert TrainingPolicy().refuse(make_example("q", "a", provenance=by_student)) != ""


def test_one_users_rows_weigh_no_more_than_their_share() -> None:
    rows = [make_example(f"q {i}", "a", weight=10.0, user="ann") for i in range(10)]
    rows += [make_example(f"p {i}", "a") for i in range(20)]
    weights = cap_user_weights(rows, TrainingPolicy(user_share=0.2))
    assert sum(weights[:10]) / sum(weights) == pytest.approx(0.2)
    assert weights[10:] == [1.0] * 20


def test_feedback_gets_its_default_weights() -> None:
    assert weigh(make_example("q", "a", origin="user_correction")).weight == 10
    assert weigh(make_example("q", "", origin="feedback", rating=-1)).weight == 3
    assert weigh(make_example("q", "a", origin="feedback", rating=1)).weight == 1
    assert weigh(make_example("q", "a", origin="user_correction", weight=2.0)).weight == 2
    assert weigh(make_example("q", "a")).weight == 1
    capped = Provenance(origin="user_correction", source="feedback")
    assert weigh(make_example("q", "a", provenance=capped)).weight == 1


def test_no_row_weighs_more_than_any_door_lets_in() -> None:
    heavy = make_example("q", "a", weight=1e39)
    assert weigh(heavy).weight == MAX_WEIGHT == 10.0
    # One that is in a ledger of before, too.
    light = make_example("r", "b", weight=0.5)
    assert cap_user_weights([heavy, light], TrainingPolicy()) == [MAX_WEIGHT, 0.5]


def test_the_summary_counts_by_origin_and_licence_and_holds_the_policy() -> None:
    summary = summarise_provenance([make_example("q", "a"), make_example("p", "a")], TrainingPolicy())
    assert (summary["rows"], summary["licences"], summary["origins"]) == (2, {"CC0": 2}, {"dataset": 2})
    assert summary["policy"]["user_share"] == 0.2
