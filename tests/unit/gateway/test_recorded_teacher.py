from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.acquisition import FEW_ROWS, choose_queries
from shammah_chassis.errors import NotFoundError, TeacherError
from shammah_chassis.examples import Message
from shammah_gateway.teachers import recorded
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
    # Of the same length and rarity: all that is left is the order of the file.
    rows = [make_row(1), make_row(2, split="test"), make_row(3, split="teach"), make_row(4)]
    teacher, _ = load_recorded([write(tmp_path / "a.jsonl.gz", rows)])
    first = await teacher.generate(Wish(category="mood", count=2, difficulty="easy"))
    second = await teacher.generate(Wish(category="mood", count=2, difficulty="hard"))
    third = await teacher.generate(Wish(category="mood", count=2))
    assert [row.query for row in first.examples] == ["How is number 1, train?", "How is number 4, train?"]
    assert [row.query for row in second.examples] == ["How is number 3, teach?"]
    assert third.examples == ()


async def test_each_difficulty_begins_with_its_own_third_and_runs_dry_only_with_the_category(tmp_path: Path) -> None:
    rows = [make_row(index) for index in range(9)]
    for index, row in enumerate(rows):
        row["query"] = "word " * (index + 1) + f"rare{index}"
    got: dict[str, list[int]] = {}
    for difficulty in ("easy", "medium", "hard"):
        teacher, _ = load_recorded([write(tmp_path / f"{difficulty}.jsonl", rows)])
        taken: list[int] = []
        while made := (await teacher.generate(Wish(category="mood", count=2, difficulty=difficulty))).examples:
            taken += [len(row.query.split()) - 2 for row in made]
        got[difficulty] = taken
    low, middle, high = {0, 1, 2}, {3, 4, 5}, {6, 7, 8}
    for difficulty, thirds in (
        ("easy", [low, middle, high]),
        ("medium", [middle, high, low]),
        ("hard", [high, middle, low]),
    ):
        assert [set(got[difficulty][start : start + 3]) for start in (0, 3, 6)] == thirds
        assert len(got[difficulty]) == 9


async def test_within_a_third_it_takes_typical_rows_beyond_those_it_gave_before(tmp_path: Path) -> None:
    kinds = ("turn that lamp on {}", "play some quiet music {}", "when does it leave {}")
    rows = [make_row(index) for index in range(90)]
    for index, row in enumerate(rows):
        # Each kind has as many rows and as many words, so thirds go by the file: one kind is most of each.
        third, place = divmod(index, 30)
        row["query"] = kinds[(third + max(0, place - 23) % 3) % 3].format(f"place{index}")
    teacher, _ = load_recorded([write(tmp_path / "a.jsonl", rows)])

    def kind(query: str) -> int:
        return next(number for number, text in enumerate(kinds) if query.startswith(text[:10]))

    first = await teacher.generate(Wish(category="mood", count=6, difficulty="easy"))
    # In the order of the file they would be of one kind.
    assert len({kind(row.query) for row in first.examples}) > 1
    # A part is drawn from everywhere, most is of the third.
    places = [int(row.query.rpartition("place")[2]) for row in first.examples]
    assert 5 <= sum(place < 30 for place in places) <= 6
    # The same again from the start: nothing depends on the clock or on the process.
    again, _ = load_recorded([tmp_path / "a.jsonl"])
    assert (await again.generate(Wish(category="mood", count=6, difficulty="easy"))).examples == first.examples
    second = await teacher.generate(Wish(category="mood", count=6, difficulty="easy"))
    assert not {row.query for row in first.examples} & {row.query for row in second.examples}
    more = await teacher.generate(Wish(category="mood", count=20, difficulty="easy"))
    assert any(int(row.query.rpartition("place")[2]) >= 30 for row in more.examples)


async def test_once_enough_were_taught_it_takes_what_the_student_is_unsure_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [make_row(100 + index) for index in range(3 * FEW_ROWS)]
    asked: list[str] = []
    told: list[Any] = []

    async def doubt(queries: Sequence[str]) -> list[float]:
        asked.extend(queries)
        return [float(query.split()[3][:3]) for query in queries]

    def choose(pool: Any, count: int, *, uncertainty: Any, **more: Any) -> Any:
        told.append(uncertainty)
        return choose_queries(pool, count, uncertainty=uncertainty, **more)

    monkeypatch.setattr(recorded, "choose_queries", choose)
    teacher, _ = load_recorded([write(tmp_path / "a.jsonl", rows)])
    early = await teacher.generate(Wish(category="mood", count=FEW_ROWS, doubts=doubt))
    assert (len(early.examples), asked) == (FEW_ROWS, []) and all(doubts is None for doubts in told)
    late = await teacher.generate(Wish(category="mood", count=10, doubts=doubt))
    assert {row.query for row in late.examples}.isdisjoint(row.query for row in early.examples)
    assert set(told[-1]) <= {float(query.split()[3][:3]) for query in asked}
    assert len(asked) == len(set(asked)) >= 10


async def test_where_nobody_can_tell_how_unsure_the_student_is_it_takes_typical_rows(tmp_path: Path) -> None:
    async def doubt(queries: Sequence[str]) -> None:
        return None

    given = []
    for wish in (Wish(category="mood", count=5), Wish(category="mood", count=5, doubts=doubt)):
        teacher, _ = load_recorded([write(tmp_path / "a.jsonl", [make_row(index) for index in range(3 * FEW_ROWS)])])
        await teacher.generate(Wish(category="mood", count=FEW_ROWS))
        given.append([row.query for row in (await teacher.generate(wish)).examples])
    assert given[0] == given[1] and len(given[0]) == 5


async def test_excluded_rows_are_passed_over_and_not_kept_for_later(tmp_path: Path) -> None:
    teacher, _ = load_recorded([write(tmp_path / "a.jsonl", [make_row(1), make_row(2)])])
    wish = Wish(category="mood", count=2, exclude=frozenset({"how is number 1 train"}))
    assert [row.query for row in (await teacher.generate(wish)).examples] == ["How is number 2, train?"]
    assert (await teacher.generate(Wish(category="mood", count=2))).examples == ()


async def test_it_judges_by_the_grader_of_the_recorded_row(tmp_path: Path) -> None:
    teacher, _ = load_recorded([write(tmp_path / "a.jsonl", [make_row(1)])])
    assert (await teacher.judge("How is number 1, train?", "anything", " GOOD ")).agrees
    told = await teacher.judge("how is NUMBER 1 train", "anything", "bad")
    assert not told.agrees and told.model == "recorded"
    with pytest.raises(TeacherError, match="cannot judge"):
        await teacher.judge("Something else?", "a", "b")


async def test_it_cannot_judge_what_its_grader_cannot_tell_offline(tmp_path: Path) -> None:
    row = make_row(1)
    row["metadata"]["metric"] = "judge"
    teacher, errors = load_recorded([write(tmp_path / "a.jsonl", [row])])
    assert errors == ()
    with pytest.raises(TeacherError, match="cannot judge"):
        await teacher.judge("How is number 1, train?", "good", "it is fine")


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
