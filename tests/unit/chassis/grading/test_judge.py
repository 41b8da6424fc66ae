from __future__ import annotations

from shammah_chassis.examples import Example
from shammah_chassis.grading import JudgeVerdict, grade
from support.example_values import make_example


class LengthJudge:
    """Thinks that short replies are good, and has an opinion on a few only."""

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def __call__(self, response: str, example: Example, /) -> JudgeVerdict:
        if self.budget == 0:
            return JudgeVerdict(None, "the budget is spent")
        self.budget -= 1
        return JudgeVerdict(len(response) < 10, f"judged against {example.reference!r}")


def test_the_judge_decides_until_its_budget_is_spent() -> None:
    example = make_example(response="a long essay", grader="judge")
    judge = LengthJudge(budget=2)
    outcomes = [grade(reply, example, judge=judge) for reply in ("short", "much too long", "short")]
    assert [outcome.good for outcome in outcomes] == [True, False, None]
    assert "a long essay" in outcomes[0].detail
    assert "budget" in outcomes[2].detail


def test_without_a_judge_only_the_same_text_is_good() -> None:
    example = make_example(response="a long essay", grader="judge")
    assert grade("another essay", example).good is None
    assert grade("a long essay\n", example).good is True


def test_an_empty_reply_is_never_taken_for_an_absent_reference() -> None:
    example = make_example(response="", rating=-1, grader="judge")
    assert grade("", example).good is None
