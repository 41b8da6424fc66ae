from __future__ import annotations

import json

from shammah_gateway.offers import sift_json, sift_offers
from shammah_gateway.teachers.base import OfferedExample
from support.example_values import make_example


def offer(query: str = "q", response: str = "r", **changes: str) -> OfferedExample:
    return OfferedExample(query=query, response=response, **changes)


def test_a_good_offer_has_the_default_category_and_a_grader_by_its_form() -> None:
    sieve = sift_offers([offer(response='{"a": 1}')], category="mood", teacher="owner", model="m")
    (example,) = sieve.passed
    assert (example.category, example.grader) == ("mood", "json")
    assert (example.provenance.origin, example.provenance.teacher_model) == ("synthetic", "m")


def test_offers_are_rejected_by_reason() -> None:
    sieve = sift_offers(
        [
            offer(),
            offer(),
            offer(query=" "),
            offer(query="n", response="no number", grader="numeric"),
            offer(query="j", response="{", grader="json"),
            offer(query="g", grader="taste"),
        ],
        category="mood",
        teacher="owner",
        model="",
    )
    assert len(sieve.passed) == 1
    assert {reason: count for reason, count, _ in sieve.rejected} == {"duplicate": 1, "schema": 2, "failed_check": 2}


def test_without_any_category_an_offer_is_no_example() -> None:
    sieve = sift_offers([offer()], category="", teacher="owner", model="")
    assert [reason for reason, _, _ in sieve.rejected] == ["schema"]


def test_what_the_trainer_would_not_take_is_rejected_too() -> None:
    sieve = sift_offers([offer(query=name) for name in "abcd"], category="mood", teacher="owner", model="")
    sieve.apply(["new", "duplicate", "near_exam", "forbidden"])
    assert [example.query_text for example in sieve.passed] == ["a"]
    assert {reason for reason, _, _ in sieve.rejected} == {"duplicate", "near_exam", "failed_check"}


LONG = "please tell me right now whether the big red lamp in the old kitchen of the house is still on or already off"


def test_a_near_duplicate_with_nothing_new_is_rejected_and_a_contrast_is_not() -> None:
    near = LONG + ", please"
    offers = [offer(query=LONG, response="yes"), offer(query=near, response="Yes"), offer(query=near, response="no")]
    sieve = sift_offers(offers, category="mood", teacher="owner", model="m")
    assert [example.response for example in sieve.passed] == ["yes", "no"]
    assert [(reason, count) for reason, count, _ in sieve.rejected] == [("duplicate", 1)]
    # In a later answer of the same call too.
    later = sift_offers([offer(query=near, response="yes")], category="mood", teacher="owner", model="m")
    later.drop_known(sieve)
    assert later.passed == [] and later.counts == {"duplicate": 1}


def test_recorded_rows_may_lie_near_each_other() -> None:
    rows = [make_example(LONG, "yes"), make_example(LONG + ", please", "yes")]
    offers = [offer(known=row) for row in rows]  # type: ignore[arg-type]
    assert len(sift_offers(offers, category="", teacher="recorded", model="recorded").passed) == 2


def test_an_example_whose_tests_its_response_fails_is_rejected() -> None:
    def row(response: str) -> str:
        tests = "assert double(2) == 4"
        return json.dumps(make_example("Write double.", response, grader="unit_tests", tests=tests).to_json())

    sieve = sift_json(
        [row("def double(x):\n    return x * x + 1"), row("def double(x):\n    return 2 * x")], trusted=True
    )
    assert [example.response.splitlines()[1].strip() for example in sieve.passed] == ["return 2 * x"]
    assert [(reason, count) for reason, count, _ in sieve.rejected] == [("failed_check", 1)]


def test_a_recorded_row_keeps_its_reference_and_grader() -> None:
    known = make_example("q", "Four, I think. 4", grader="numeric", reference="4")
    sieve = sift_offers([offer(known=known)], category="", teacher="recorded", model="recorded")  # type: ignore[arg-type]
    (example,) = sieve.passed
    assert (example.reference, example.grader, example.provenance.teacher) == ("4", "numeric", "recorded")


def test_submitted_json_is_read_strictly() -> None:
    good = make_example("q").to_json()
    texts = [
        json.dumps(good),
        "{",
        json.dumps({**good, "more": 1}),
        json.dumps({**good, "weight": 11}),
        json.dumps({**good, "grader": "numeric", "response": "none", "reference": "4"}),
    ]
    sieve = sift_json(texts, trusted=True)
    assert len(sieve.passed) == 1
    assert {reason: count for reason, count, _ in sieve.rejected} == {"schema": 3, "failed_check": 1}


def test_an_exam_row_of_a_user_stays_one() -> None:
    (example,) = sift_json([json.dumps(make_example("q", part_hint="exam").to_json())], trusted=True).passed
    assert example.part_hint == "exam"


def test_who_may_only_generate_gives_no_evidence() -> None:
    plain = make_example("q")
    texts = [json.dumps(row.to_json()) for row in (plain, make_example("r", part_hint="exam"))]
    sieve = sift_json(texts, trusted=False)
    (passed,) = sieve.passed
    assert (passed.provenance.origin, passed.provenance.propensity) == ("synthetic", 1.0)
    assert sieve.counts == {"schema": 1} and "admin" in sieve.samples["schema"]
    assert [row.provenance.origin for row in sift_json(texts, trusted=True).passed] == ["dataset", "dataset"]


def test_no_row_stands_for_more_than_certification_bears() -> None:
    row = make_example("q").to_json()
    row["provenance"]["propensity"] = 0.01
    sieve = sift_json([json.dumps(row)], trusted=True)
    assert sieve.passed == [] and "propensity" in sieve.samples["schema"]
