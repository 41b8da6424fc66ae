from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import NotFoundError, TeacherError
from shammah_chassis.examples import Message
from shammah_gateway.teachers.base import Wish
from shammah_gateway.teachers.recorded import load_recorded


def make_row(index: int, *, split: str = "train", category: str = "mood", **metadata: Any) -> dict[str, Any]:
    return {
        "id": f"{category}-{split}-{index}",
        "source": "made",
        "license": "CC0",
        "category": category,
        "query": f"How is number {index}, {split}?",
        "reference": "good",
        "metadata": {"family": category, "metric": "label", "split": split, **metadata},
    }


def write(path: Path, rows: list[Any]) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


async def test_it_answers_what_it_has_whatever_the_spelling_of_the_query(tmp_path: Path) -> None:
    teacher, _ = load_recorded([write(tmp_path / "a.jsonl", [make_row(1, teacher_answer="Good, I think.")])])
    told = await teacher.answer([Message("user", "  how is NUMBER 1, train")], 10)
    assert told.text == "Good, I think."
    assert told.known is not None and (told.known.reference, told.known.grader) == ("good", "label")


async def test_it_says_so_when_it_has_no_answer(tmp_path: Path) -> None:
    teacher, _ = load_recorded([write(tmp_path / "a.jsonl", [make_row(1)])])
    with pytest.raises(TeacherError, match="no answer"):
        await teacher.answer([Message("user", "Something else?")], 10)


async def test_it_hands_out_teachable_rows_once_and_in_order(tmp_path: Path) -> None:
    rows = [make_row(1), make_row(2, split="test"), make_row(3, split="teach"), make_row(4)]
    teacher, _ = load_recorded([write(tmp_path / "a.jsonl.gz", rows)])
    first = await teacher.generate(Wish(category="mood", count=2))
    second = await teacher.generate(Wish(category="mood", count=2))
    third = await teacher.generate(Wish(category="mood", count=2))
    assert [row.query for row in first.examples] == ["How is number 1, train?", "How is number 3, teach?"]
    assert [row.query for row in second.examples] == ["How is number 4, train?"]
    assert third.examples == ()


async def test_test_rows_can_be_answered_but_not_taught(tmp_path: Path) -> None:
    teacher, _ = load_recorded([write(tmp_path / "a.jsonl", [make_row(1, split="test")])])
    assert (await teacher.answer([Message("user", "How is number 1, test?")], 10)).text == "good"
    assert teacher.categories() == frozenset()
    with pytest.raises(NotFoundError, match="known: none"):
        await teacher.generate(Wish(category="mood", count=10))


def test_bad_lines_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    teacher, errors = load_recorded([write(tmp_path / "a.jsonl", [make_row(1), "{not json", make_row(2)])])
    assert teacher.categories() == {"mood"}
    assert len(errors) == 1 and "a.jsonl:2" in errors[0]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_recorded([tmp_path / "no.jsonl"])
