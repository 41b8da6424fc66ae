from __future__ import annotations

import pytest
from shammah_chassis.examples import Example
from shammah_chassis.grading import grade
from shammah_chassis.grading.sandbox import Limits
from shammah_chassis.grading.unit_tests import grade_unit_tests
from support.example_values import make_example

PROMPT = (
    'from math import sqrt\n\ndef root(x: float) -> float:\n    """Return the root.\n    >>> root(4)\n    2.0\n    """'
)


def make_task() -> Example:
    return make_example(
        grader="unit_tests",
        prompt=PROMPT,
        entry_point="root",
        tests="def check(f):\n    assert f(9) == 3\ncheck(root)",
    )


@pytest.mark.parametrize(
    "reply",
    [
        "def root(x):\n    return sqrt(x)",
        "```python\ndef root(x):\n    return x ** 0.5\n```\nThis works.",
        "    return sqrt(x)",
        "return sqrt(x)",
        "y = sqrt(x)\nreturn y",
        "y = sqrt(x)\n    return y",
        "root = lambda x: x ** 0.5",
    ],
)
def test_a_right_function_or_body_is_good(reply: str) -> None:
    outcome = grade(reply, make_task())
    assert outcome.good is True, outcome.detail
    assert "network cut by" in outcome.detail


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("def root(x):\n    return x", "AssertionError"),
        ("I do not know", "SyntaxError"),
        ("", "AssertionError"),
        ("def square(x):\n    return x", "AssertionError"),
        ("import os\nos._exit(0)\ndef root(x): pass", "failed"),
        ("def root(x):\n    raise SystemExit(0)", "SystemExit"),
        ("def root(x):\n    import os; os._exit(0)", "failed"),
    ],
)
def test_a_wrong_reply_is_bad_with_the_reason(reply: str, reason: str) -> None:
    outcome = grade(reply, make_task())
    assert outcome.good is False
    assert reason in outcome.detail


def test_an_endless_loop_is_bad() -> None:
    outcome = grade_unit_tests("def root(x):\n    while True: pass", make_task(), limits=Limits(seconds=1))
    assert outcome.good is False
    assert "timeout" in outcome.detail
