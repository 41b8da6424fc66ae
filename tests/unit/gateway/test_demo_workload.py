"""The demo workload: sizes, schema, no leakage, right references, short and learnable rows."""

from __future__ import annotations

import collections
import gzip
import json
import re
from datetime import date, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from shammah_chassis.grading import grade
from shammah_chassis.workload import read_workload
from shammah_gateway.demo import booking, commands, tickets
from shammah_gateway.demo.dates import ordinal
from shammah_gateway.demo.drafts import expand
from shammah_gateway.demo.workload import CATEGORIES, NEAR, SIZES, SOURCES, make_rows, normalise, write_workload
from shammah_trainer.base_models import find_models_dir
from tokenizers import Tokenizer

Row = dict[str, Any]


@pytest.fixture(scope="module")
def parts() -> dict[str, list[Row]]:
    return make_rows(7)


def every(parts: dict[str, list[Row]], category: str) -> list[Row]:
    return [row for rows in parts.values() for row in rows if row["category"] == category]


def words(row: Row) -> frozenset[str]:
    return frozenset(normalise(row["query"]))


def alike(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def read(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_the_files_hold_every_part_and_the_teacher_knows_all_rows(tmp_path: Path) -> None:
    files = write_workload(tmp_path / "new" / "folder")
    teach, exam, check, teacher = map(read, (files.teach, files.exam, files.check, files.teacher))
    for rows, size in ((teach, 150), (exam, 200), (check, 100)):
        assert collections.Counter(row["category"] for row in rows) == dict.fromkeys(CATEGORIES, size)
    assert sorted(r["id"] for r in teacher) == sorted(r["id"] for r in teach + exam + check)
    assert [len(teach), len(exam), len(check)] == [5 * size for size in SIZES.values()]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_rows(tmp_path: Path) -> None:
    one, two, other = (write_workload(tmp_path / name, seed=seed) for name, seed in (("1", 7), ("2", 7), ("3", 8)))
    assert one.teacher.read_bytes() == two.teacher.read_bytes()
    assert one.exam.read_bytes() == two.exam.read_bytes()
    ids, others = ({row["id"] for row in read(files.teacher)} for files in (one, other))
    assert len(ids & others) < 0.1 * len(ids)


def test_rows_follow_the_workload_schema(parts: dict[str, list[Row]]) -> None:
    metrics = {source.category: source.metric for source in SOURCES}
    for part, rows in parts.items():
        for row in rows:
            assert list(row) == ["id", "source", "license", "category", "query", "reference", "metadata"]
            assert (row["source"], row["license"]) == ("shammah demo", "Apache-2.0")
            assert row["metadata"]["family"] == row["category"]
            assert row["metadata"]["metric"] == metrics[row["category"]]
            assert row["metadata"]["split"] == part
            assert row["query"].endswith(row["metadata"]["text"])
    assert len({row["id"] for rows in parts.values() for row in rows}) == 5 * sum(SIZES.values())
    assert sorted(set(metrics.values())) == ["exact", "json", "label", "numeric"]


def test_the_system_reads_every_row_and_grades_its_reference_as_good(tmp_path: Path) -> None:
    found = read_workload(write_workload(tmp_path).teacher)
    assert found.errors == ()
    assert len(found.rows) == 5 * sum(SIZES.values())
    assert all(grade(row.reference, row.example).good for row in found.rows)
    others = zip(found.rows, found.rows[1:], strict=False)
    assert all(
        not grade(other.reference, row.example).good for row, other in others if row.reference != other.reference
    )


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_two_queries_are_equal_or_nearly_equal(parts: dict[str, list[Row]], category: str) -> None:
    rows = every(parts, category)
    assert len({" ".join(normalise(row["query"])) for row in rows}) == len(rows)
    sets = [words(row) for row in rows]
    assert max(alike(a, b) for i, a in enumerate(sets) for b in sets[:i]) < NEAR


@pytest.mark.parametrize("category", CATEGORIES)
def test_exam_rows_are_not_mere_copies_of_taught_wordings(parts: dict[str, list[Row]], category: str) -> None:
    taught = [words(row) for row in parts["train"] if row["category"] == category]
    nearest = [max(alike(words(row), t) for t in taught) for row in parts["exam"] if row["category"] == category]
    assert sum(nearest) / len(nearest) < 0.7


def test_queries_and_answers_are_short(parts: dict[str, list[Row]]) -> None:
    for row in (row for rows in parts.values() for row in rows):
        assert len(row["query"].split()) <= 25
        # Digits are a token each, so a long answer can only be a number: at most 14 of them.
        assert len(row["reference"]) <= (30 if row["category"] == "booking_extraction" else 14)


@pytest.mark.parametrize(
    ("category", "labels"), [("command_intent", commands.LABELS), ("ticket_routing", tickets.TEAMS)]
)
def test_labels_are_balanced_in_every_part(parts: dict[str, list[Row]], category: str, labels: tuple[str, ...]) -> None:
    for rows in parts.values():
        counts = collections.Counter(row["reference"] for row in rows if row["category"] == category)
        assert set(counts) == set(labels)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("category", ["command_intent", "ticket_routing"])
def test_labels_follow_from_the_words(parts: dict[str, list[Row]], category: str) -> None:
    taught = [row for row in parts["train"] if row["category"] == category]
    exam = [row for row in parts["exam"] if row["category"] == category]
    right = sum(max(taught, key=lambda t: alike(words(t), words(row)))["reference"] == row["reference"] for row in exam)
    assert right / len(exam) >= 0.8  # a mere nearest neighbour; chance is one in six or eight


def test_every_booking_names_its_day_and_its_people_once(parts: dict[str, list[Row]]) -> None:
    figures = {word: n for n, word in booking.NUMBERS.items()} | {str(n): n for n in booking.NUMBERS}
    seen = collections.Counter()
    for row in every(parts, "booking_extraction"):
        text = row["metadata"]["text"]
        days = [day for day in booking.DAYS if day in text]
        text = re.sub(r"half past \w+|\d+:\d\d|\d pm|\d o'clock", "", text.lower())
        people = [figures[word] for word in re.findall(r"\w+", text) if word in figures]
        assert len(days) == len(people) == 1, row
        assert row["reference"] == json.dumps({"people": people[0], "day": days[0]}, separators=(",", ":"))
        seen[days[0]] += 1
    assert min(seen.values()) >= 60


def test_every_date_is_right(parts: dict[str, list[Row]]) -> None:
    months = "January|February|March|April|May|June|July|August|September|October|November|December"
    forms = (
        rf"(?P<d>\d+)(st|nd|rd|th)?( of)? (?P<m>{months}) (?P<y>\d{{4}})",
        rf"(?P<m>{months}) (?P<d>\d+)\w*, (?P<y>\d{{4}})",
    )
    for row in every(parts, "date_normalisation"):
        text = row["metadata"]["text"]
        found = next(match for form in forms if (match := re.search(form, text)))
        when = datetime.strptime(f"{found['d']} {found['m']} {found['y']}", "%d %B %Y").date()
        assert row["reference"] == when.isoformat()
        assert date(2024, 1, 1) <= when <= date(2027, 12, 31)
        weekday = re.search(r"(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day", text)
        assert weekday is None or weekday[0] == when.strftime("%A")
        assert len(re.findall(r"\d+", text)) == 2  # a day and a year, nothing else to confuse them with


def test_every_number_is_right(parts: dict[str, list[Row]]) -> None:
    kinds = collections.Counter()
    for row in every(parts, "large_arithmetic"):
        text = row["metadata"]["text"].lower()
        numbers = [int(n) for n in re.findall(r"\d+", text)]
        assert all(10_000 <= n <= 9_999_999 for n in numbers)
        if re.search("squared|square of|itself|power of two", text):
            kind, (value,) = "square", [n * n for n in numbers]
        elif re.search("plus|minus", text):
            sign = 1 if "plus" in text else -1
            kind, value = "three", numbers[0] * numbers[1] + sign * numbers[2]
        elif re.search("add|more than|subtract|less than|take .* from", text):
            sign = 1 if re.search("add|more than", text) else -1
            kind, value = "three", numbers[1] * numbers[2] + sign * numbers[0]
        else:
            kind, (a, b) = "product", numbers
            value = a * b
        kinds[kind] += 1
        assert row["reference"] == str(value), row
    assert kinds == {"product": 270, "square": 45, "three": 135}


def test_ordinals_have_their_english_endings() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "30th", "31st"]
    )


def test_patterns_expand_nested_alternatives_and_refuse_unknown_slots() -> None:
    found = {expand("[a|b [c|]] {x} ?", Random(i), {"x": ("d", "[e|f]")}) for i in range(200)}
    assert found == {f"{left} {right}?" for left in ("a", "b c", "b") for right in "def"}
    with pytest.raises(KeyError):
        expand("{nothing}", Random(1), {})


def test_queries_stay_under_forty_tokens_and_answers_under_sixteen(parts: dict[str, list[Row]]) -> None:
    path = find_models_dir() / "generator" / "tokenizer.json"
    if not path.exists():
        pytest.skip(f"the base generator is not cached: no {path}")
    tokenizer = Tokenizer.from_file(str(path))
    rows = [row for rows in parts.values() for row in rows]
    assert max(len(tokenizer.encode(row["query"]).ids) for row in rows) < 40
    assert max(len(tokenizer.encode(row["reference"]).ids) for row in rows) <= 15
