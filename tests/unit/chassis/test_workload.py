from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import InvalidInputError, NotFoundError
from shammah_chassis.workload import read_workload


def make_row(number: int = 1, **metadata: Any) -> dict[str, Any]:
    return {
        "id": f"sum-{number}",
        "source": "here",
        "license": "MIT",
        "category": "math",
        "query": f"What is {number} + 1?",
        "reference": str(number + 1),
        "metadata": {"family": "sums", "metric": "numeric", "split": "train", **metadata},
    }


def write(path: Path, *lines: Any) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_become_examples(tmp_path: Path, name: str) -> None:
    done = read_workload(write(tmp_path / name, make_row(1), "", make_row(2)))
    assert done.errors == ()
    assert [row.id for row in done.rows] == ["sum-1", "sum-2"]
    example = done.rows[0].example
    assert (example.query_text, example.response, example.grader) == ("What is 1 + 1?", "2", "numeric")
    assert (example.category, example.provenance.origin) == ("math", "dataset")
    assert (example.provenance.licence, example.provenance.source) == ("MIT", "here")


def test_the_fuller_answer_is_learned_and_the_reference_is_graded_against(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", make_row(teacher_answer="1 + 1 = 2. The answer is 2."))
    row = read_workload(path).rows[0]
    assert row.example.response == "1 + 1 = 2. The answer is 2."
    assert row.example.reference == row.reference == "2"


def test_what_the_graders_need_is_read(tmp_path: Path) -> None:
    row = make_row(
        metric="unit_tests",
        tests="check(f)",
        prompt="def f():",
        entry_point="f",
        answers=["a"],
        accepted={"f": {"x": [1]}},
    )
    example = read_workload(write(tmp_path / "rows.jsonl", row)).rows[0].example
    assert (example.tests, example.prompt, example.entry_point) == ("check(f)", "def f():", "f")
    assert (example.answers, example.accepted) == (("a",), {"f": {"x": [1]}})


def test_a_family_can_be_the_category(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", make_row())
    assert read_workload(path, category_from="family").rows[0].example.category == "sums"


def test_a_bad_line_is_reported_with_its_place_and_the_rest_goes_on(tmp_path: Path) -> None:
    without = {key: value for key, value in make_row(3).items() if key != "reference"}
    path = write(
        tmp_path / "rows.jsonl",
        "{not json",
        "[]",
        without,
        make_row(4, metric="vibes"),
        {**make_row(5), "query": 7},
        {**make_row(6), "metadata": None},
        make_row(7),
        make_row(7),
        make_row(8, accepted=[1]),
    )
    done = read_workload(path)
    assert [row.id for row in done.rows] == ["sum-7"]
    wanted = [
        "not JSON",
        "must be a JSON object",
        "'reference' is missing",
        "grader",
        "'query' must be text",
        "'metadata' must be an object",
        "earlier line",
        "accepted",
    ]
    places = [1, 2, 3, 4, 5, 6, 8, 9]
    assert len(done.errors) == len(wanted)
    for place, problem, error in zip(places, wanted, done.errors, strict=True):
        assert error.startswith(f"{path}:{place}: ")
        assert problem in error


def test_a_line_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xff\xfe\n" + json.dumps(make_row()).encode())
    done = read_workload(path)
    assert len(done.rows) == 1
    assert f"{path}:1: not JSON" in done.errors[0]


def test_a_cut_archive_keeps_what_came_before(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl.gz", *(make_row(number) for number in range(5_000)))
    path.write_bytes(path.read_bytes()[:-20_000])
    done = read_workload(path)
    assert 0 < len(done.rows) < 5_000
    assert "damaged archive" in done.errors[-1]


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.jsonl"):
        read_workload(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInputError, match="folder"):
        read_workload(tmp_path)
