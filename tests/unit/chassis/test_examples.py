from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from shammah_chassis.errors import InvalidInputError, TooLongError
from shammah_chassis.examples import (
    Envelope,
    Example,
    Message,
    Provenance,
    default_grader,
    pack_envelopes,
)
from support.example_values import make_example


def test_an_example_survives_json() -> None:
    example = make_example(
        turns=(Message("system", "Be short."), Message("user", "Ünï?")),
        grader="json",
        response='{"a": 1}',
        accepted={"f": {"a": [1, ""]}},
        answers=("x", "y"),
        weight=2.5,
        rating=1,
        user="u",
        part_hint="exam",
        provenance=Provenance(origin="audit", propensity=0.02, consent=("train", "judge")),
    )
    assert Example.from_json(json.loads(json.dumps(example.to_json()))) == example


@pytest.mark.parametrize(
    "change",
    [
        {"response": "5"},
        {"category": "other"},
        {"grader": "numeric"},
        {"reference": "5"},
        {"rating": 1},
        {"answers": ("4",)},
        {"accepted": {"f": {}}},
        {"query": (Message("user", "other"),)},
    ],
)
def test_the_id_follows_the_content(change: dict[str, Any]) -> None:
    assert dataclasses.replace(make_example(), **change).id != make_example().id


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 3.0},
        {"provenance": Provenance(origin="teacher", teacher="other")},
        {"release": "r", "user": "u", "student_attempt": "five"},
        {"part_hint": "exam"},
    ],
)
def test_the_id_ignores_where_an_example_comes_from(change: dict[str, Any]) -> None:
    assert dataclasses.replace(make_example(), **change).id == make_example().id


def test_the_id_stays_the_same_between_programs() -> None:
    assert make_example().id == "d2907f95bd6cacdc74b746c99f991436c4310f5f150c6f332e109e6b4e9dd3a1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("response", 4),
        ("weight", "1"),
        ("weight", True),
        ("weight", 10**400),
        ("rating", 0.5),
        ("rating", 7),
        ("answers", "four"),
        ("answers", [4]),
        ("accepted", [1]),
        ("grader", "vibes"),
        ("part_hint", "dev"),
        ("category", " "),
        ("query", "What is 2 + 2?"),
        ("response", "\ud800"),
        ("response", ""),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=field):
        Example.from_json({**make_example().to_json(), field: value})


def test_unknown_and_missing_fields_are_named() -> None:
    row = make_example().to_json()
    with pytest.raises(InvalidInputError, match="unknown field 'colour'"):
        Example.from_json({**row, "colour": "red"})
    for name in row.keys() - {"request"}:
        with pytest.raises(InvalidInputError, match=f"field '{name}' is missing"):
            Example.from_json({key: value for key, value in row.items() if key != name})


def test_a_row_from_before_requests_were_kept_has_none() -> None:
    row = make_example(request="01A").to_json()
    assert Example.from_json({key: value for key, value in row.items() if key != "request"}).request == ""
    assert Example.from_json(row).request == "01A"


def test_a_wrong_message_and_a_wrong_provenance_are_named() -> None:
    row = make_example().to_json()
    with pytest.raises(InvalidInputError, match=r"query\[0\].role"):
        Example.from_json({**row, "query": [{"role": "robot", "content": "hi"}]})
    with pytest.raises(InvalidInputError, match="last user turn"):
        Example.from_json({**row, "query": [{"role": "assistant", "content": "hi"}]})
    with pytest.raises(InvalidInputError, match="origin"):
        Example.from_json({**row, "provenance": {**row["provenance"], "origin": "dream"}})
    with pytest.raises(InvalidInputError, match="propensity"):
        Example.from_json({**row, "provenance": {**row["provenance"], "propensity": 0}})


def test_lengths_are_limited_to_the_character() -> None:
    assert len(make_example("q" * 32_000, "r" * 100_000).response) == 100_000
    with pytest.raises(TooLongError, match=r"32001 .* 32000"):
        make_example("q" * 32_001)
    with pytest.raises(TooLongError, match=r"100001 .* 100000"):
        make_example(response="r" * 100_001)


def test_only_a_bad_rating_may_have_no_response() -> None:
    assert make_example(response="", rating=-1, grader="").reference == ""
    with pytest.raises(InvalidInputError, match="response"):
        make_example(response="")


def test_the_reference_is_the_response_unless_given() -> None:
    assert make_example().reference == "4"
    assert make_example(response="It is 4.", reference="4").reference == "4"


def test_query_text_is_the_last_user_turn() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert make_example(turns=turns).query_text == "c"


def test_an_envelope_survives_its_bytes() -> None:
    envelope = Envelope((make_example(), make_example("Ünï?", "5")))
    assert Envelope.decode(envelope.encode()) == envelope


def test_the_message_id_follows_the_examples_and_their_order() -> None:
    one, two = make_example(), make_example("other")
    assert Envelope((one, two)).message_id != Envelope((two, one)).message_id
    heavier = dataclasses.replace(one, weight=9.0)
    assert Envelope((one, two)).message_id == Envelope((heavier, two)).message_id


@pytest.mark.parametrize("count", [0, 33])
def test_an_envelope_holds_1_to_32_examples(count: int) -> None:
    with pytest.raises(InvalidInputError, match="1 to 32"):
        Envelope((make_example(),) * count)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"format": 2, "new": []}', "format 2"),
        (b'{"format": 1}', "'examples' is missing"),
        (b'{"format": 1, "examples": {}}', "must be a list"),
        (b'{"format": 1, "examples": [{"query": NaN}]}', "NaN"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_bytes_that_are_no_envelope_are_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        Envelope.decode(data)


def test_examples_are_packed_in_order_by_count_and_size() -> None:
    rows = [make_example(f"question {number}") for number in range(70)]
    envelopes = list(pack_envelopes(rows))
    assert [len(envelope.examples) for envelope in envelopes] == [32, 32, 6]
    assert [row for envelope in envelopes for row in envelope.examples] == rows
    assert [len(e.examples) for e in pack_envelopes(rows[:3], max_bytes=10)] == [1, 1, 1]
    assert list(pack_envelopes([])) == []


def test_the_largest_example_fits_a_message_of_the_bus() -> None:
    wide = "\U0001f600" * 100_000
    row = make_example("\U0001f600" * 32_000, wide, reference=wide, student_attempt=wide)
    assert len(Envelope((row,)).encode()) < 8_000_000


@pytest.mark.parametrize(
    ("response", "grader"),
    [
        ('{"a": 1}', "json"),
        ("[1, 2]", "json"),
        ("[1, 2", "exact"),
        ("42", "numeric"),
        ("-1,234.50", "numeric"),
        ("$ 5", "numeric"),
        ("12.5 %", "numeric"),
        (".5", "numeric"),
        ("1,23", "exact"),
        ("$", "exact"),
        ("Paris", "exact"),
        ("one two three four five six seven eight", "exact"),
        ("one two three four five six seven eight nine", "judge"),
        ("two\nlines", "judge"),
        (" ", "judge"),
    ],
)
def test_the_default_grader_follows_the_form_of_the_response(response: str, grader: str) -> None:
    assert default_grader(response) == grader
