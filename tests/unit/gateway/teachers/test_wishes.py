from __future__ import annotations

import json

import pytest
from shammah_chassis.errors import TeacherError
from shammah_gateway.teachers.base import OfferedExample, TeacherAnswer, Wish
from shammah_gateway.teachers.ports import EXCLUDED_BYTES
from shammah_gateway.teachers.wishes import bound_wish, read_generation, write_wish

GOOD = {"query": "q", "response": "r", "grader": "exact"}


def told(value: object) -> TeacherAnswer:
    return TeacherAnswer(value if isinstance(value, str) else json.dumps(value), "m", "end_turn")


@pytest.mark.parametrize(
    ("difficulty", "words"), [("easy", "one step"), ("medium", "usual length"), ("hard", "easy to get wrong")]
)
def test_each_difficulty_is_told_in_its_own_words(difficulty: str, words: str) -> None:
    wish = Wish(category="mood", count=10, difficulty=difficulty)
    assert f"Difficulty: {difficulty}." in write_wish(wish) and words in write_wish(wish)


def test_samples_are_shown_from_easy_to_hard() -> None:
    rows = ("a long query with many rare words indeed", "a query", "a query of words")
    samples = tuple(OfferedExample(query=row, response="r") for row in rows)
    prompt = write_wish(Wish(category="mood", count=10, samples=samples))
    assert prompt.index(f'"{rows[1]}"') < prompt.index(rows[2]) < prompt.index(rows[0])


def test_focus_and_known_queries_are_told() -> None:
    prompt = write_wish(Wish(category="mood", count=10, focus="sarcasm", exclude=frozenset({"known one"})))
    assert "sarcasm" in prompt and '["known one"]' in prompt
    assert "sarcasm" not in write_wish(Wish(category="mood", count=10))


def test_known_queries_have_bounded_room_and_the_bound_of_the_call_holds_them() -> None:
    many = frozenset(f'{index} says "{"x" * 50}"' for index in range(1000))
    wish = Wish(category="mood", count=10, exclude=many)
    prompt = write_wish(wish)
    assert len(prompt.encode()) < len(write_wish(Wish(category="mood", count=10)).encode()) + EXCLUDED_BYTES + 100
    assert bound_wish(wish).input_tokens > len(prompt.encode())


def test_single_examples_out_of_form_are_set_aside_and_the_rest_kept() -> None:
    bad = [{"query": "q"}, "text", {**GOOD, "response": 5}, {**GOOD, "grader": "unit_tests"}, None]
    made = read_generation(told({"examples": [*bad, GOOD]}), Wish(category="mood", count=10))
    assert [row.query for row in made.examples] == ["q"] and len(made.broken) == 5
    assert made.broken[0] == '{"query": "q"}'


@pytest.mark.parametrize(
    "value", ["no JSON", "[1]", {"example": []}, {"examples": "x"}, {"examples": [1, 2]}, "[" * 100_000]
)
def test_wholly_broken_output_is_a_named_error(value: object) -> None:
    with pytest.raises(TeacherError, match="not in the form"):
        read_generation(told(value), Wish(category="mood", count=10))


def test_no_examples_at_all_is_no_error() -> None:
    assert read_generation(told({"examples": []}), Wish(category="mood", count=10)).examples == ()


def test_more_than_was_wished_for_is_cut() -> None:
    assert len(read_generation(told({"examples": [GOOD] * 5}), Wish(category="mood", count=2)).examples) == 2
