"""The plan of a round: counts that add up, an even floor, the rest by the upper bound of the gain; difficulties."""

from __future__ import annotations

import pytest
from shammah_chassis.learning_curve import Curve, Point, Prospect, measure_worth
from shammah_gateway.teaching_plan import (
    LEAST,
    MOST,
    choose_difficulty,
    cut_count,
    expected_gain,
    is_worth,
    plan_examples,
)


def state(*points: tuple[int, float], share: float = 0.25) -> Prospect:
    known = [Point(rows, 40 * value, 40) for rows, value in points]
    return Prospect(Curve(known), points[-1][0] if points else 0, share)


HOPELESS, PROMISING, DONE = state((0, 0.0), (400, 0.0)), state((0, 0.1), (50, 0.5)), state((0, 0.9), (100, 1.0))


def test_a_plan_adds_up_to_its_budget_over_an_even_floor() -> None:
    prospects = {"hopeless": HOPELESS, "promising": PROMISING, "done": DONE, "unknown": state()}
    plan = plan_examples(prospects, 200)
    assert sum(plan.values()) == 200
    # What can't be learned, though it fails most of all, and what is done get the floor alone.
    assert plan["hopeless"] == plan["done"] == LEAST
    assert plan["promising"] > 50 and plan["unknown"] > 50
    assert sum(plan_examples(prospects).values()) == 50 * len(prospects)


def test_of_a_large_budget_a_tenth_is_spread_evenly() -> None:
    plan = plan_examples({"hopeless": HOPELESS, "promising": PROMISING}, 600, worth=0.0)
    assert plan == {"hopeless": 30, "promising": 570}


def test_what_is_not_worth_its_price_is_not_planned() -> None:
    plan = plan_examples({"hopeless": HOPELESS, "promising": PROMISING}, 5000)
    assert plan["hopeless"] == 250 and 250 < plan["promising"] < 4000
    nothing = {"hopeless": HOPELESS, "done": DONE}
    assert plan_examples(nothing) == {"hopeless": 0, "done": 0} and not any(map(is_worth, nothing.values()))
    # Who must spend it all does.
    assert sum(plan_examples(nothing, 100, worth=0.0).values()) == 100
    assert plan_examples({}) == {}


def test_each_count_is_one_that_the_tool_takes_even_of_a_small_budget() -> None:
    prospects = {name: state((0, 0.0), (20, 0.2)) for name in "abcdef"}
    assert min(plan_examples(prospects, 10).values()) >= LEAST
    assert [cut_count(count) for count in (9, 10, 100, 105, 230)] == [[], [10], [100], [95, 10], [100, 100, 30]]
    assert all(LEAST <= part <= MOST for count in range(10, 400) for part in cut_count(count))


def test_failure_alone_is_no_reason_to_teach() -> None:
    assert expected_gain(PROMISING) > 3 * expected_gain(HOPELESS)
    assert measure_worth(PROMISING) > 10 * measure_worth(HOPELESS)


def test_a_perfect_category_gains_nothing() -> None:
    assert expected_gain(DONE) < 0.003 and not is_worth(DONE)


def test_a_few_lucky_answers_do_not_outweigh_an_exam() -> None:
    exam = [Point(0, 0.0, 230), Point(40, 150, 230)]
    lucky, unlucky = (Prospect(Curve([*exam, Point(40, good, 9)]), 40, 0.25) for good in (8.0, 4.0))
    assert expected_gain(lucky) > 0.5 * expected_gain(unlucky) > 0


def test_more_rows_never_expect_less() -> None:
    learning = state((0, 0.0), (50, 0.3))
    values = [expected_gain(learning, rows) for rows in range(0, 1000, 50)]
    assert values == sorted(values) and values[0] == 0.0 and values[-1] <= 0.25


def test_what_is_asked_more_often_gains_more() -> None:
    often, rare = (state((0, 0.0), (50, 0.3), share=share) for share in (0.6, 0.2))
    assert expected_gain(often) == pytest.approx(3 * expected_gain(rare))
    assert measure_worth(often) == pytest.approx(3 * measure_worth(rare))


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [(None, "easy"), (0.0, "easy"), (0.49, "easy"), (0.5, "medium"), (0.85, "medium"), (0.86, "hard"), (1.0, "hard")],
)
def test_difficulty_follows_the_accuracy(accuracy: float | None, expected: str) -> None:
    assert choose_difficulty(accuracy) == expected
