from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import GRADERS
from shammah_chassis.grading import grade, grade_many
from support.example_values import make_example


def test_every_grader_of_the_table_grades() -> None:
    for name in GRADERS:
        example = make_example(response="4", grader=name, tests="assert True")
        assert grade("4", example).grader == name


def test_an_example_without_a_grader_is_no_evidence() -> None:
    outcome = grade("4", make_example(grader=""))
    assert (outcome.good, outcome.detail) == (None, "the example has no grader")


def test_an_unknown_grader_is_refused_with_the_allowed_ones() -> None:
    example = make_example()
    object.__setattr__(example, "grader", "vibes")
    with pytest.raises(InvalidInputError, match=r"'vibes'; allowed: exact, .*judge"):
        grade("4", example)


def test_many_are_graded_in_order() -> None:
    tests = make_example(grader="unit_tests", tests="assert f() == 1", entry_point="f", prompt="def f():")
    pairs = [
        ("4", make_example()),
        ("def f():\n    return 1", tests),
        ("5", make_example()),
        ("def f():\n    return 2", tests),
        ("    return 1", tests),
    ]
    assert [item.good for item in grade_many(pairs, workers=2)] == [True, True, False, False, True]
    assert grade_many([]) == []


@pytest.mark.parametrize("workers", [0, 65])
def test_the_number_of_workers_is_bounded(workers: int) -> None:
    with pytest.raises(InvalidInputError, match="1 to 64"):
        grade_many([], workers=workers)


def test_importing_the_graders_brings_no_transport_and_no_model_library() -> None:
    import shammah_chassis

    root = Path(next(iter(shammah_chassis.__path__))).parent
    code = (
        f"import sys; sys.path.append({str(root)!r}); import shammah_chassis.grading, shammah_chassis.workload; "
        "print([m for m in ('grpc', 'onnx', 'onnxruntime', 'torch', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
