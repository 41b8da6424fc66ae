"""Fitted learning curves and the spreading of a budget over categories."""

from __future__ import annotations

import pytest
from shammah_chassis.learning_curve import FIRST_ROWS, Curve, Point, Prospect, allocate, measure_worth


def learned(*accuracies: tuple[int, float], graded: int = 50) -> Curve:
    return Curve([Point(rows, accuracy * graded, graded) for rows, accuracy in accuracies])


def test_a_curve_goes_through_what_was_measured() -> None:
    # clinc150 of the notes: .676 with 600 rows, .936 with 6,000.
    curve = learned((0, 0.0), (600, 0.676), (6000, 0.936), graded=200)
    assert curve.accuracy(600) == pytest.approx(0.676, abs=0.05)
    assert curve.accuracy(6000) == pytest.approx(0.936, abs=0.05)


def test_rows_that_brought_nothing_leave_little_to_hope_for() -> None:
    hopeless, unknown = learned((0, 0.0), (400, 0.0)), Curve([])
    assert hopeless.upper_gain(400, 100) < 0.03
    assert unknown.upper_gain(0, 100) > 0.2


def test_the_upper_bound_is_above_the_expectation_and_narrows_with_evidence() -> None:
    few, many = learned((0, 0.0), (100, 0.5), graded=8), learned((0, 0.0), (100, 0.5), (400, 0.8), graded=100)
    for curve in (few, many):
        assert curve.upper_gain(400, 100) >= curve.gain(400, 100) > 0
    assert few.upper_gain(400, 100) - few.gain(400, 100) > many.upper_gain(400, 100) - many.gain(400, 100)


def test_a_category_that_is_done_gains_nothing() -> None:
    assert learned((0, 0.9), (200, 1.0), (400, 1.0)).gain(400, 100) < 0.01


def test_a_budget_goes_where_it_pays_over_an_even_floor() -> None:
    prospects = {
        "learns": Prospect(learned((0, 0.1), (50, 0.5)), 50, 1 / 3),
        "hopeless": Prospect(learned((0, 0.0), (400, 0.0)), 400, 1 / 3),
        "done": Prospect(learned((0, 0.9), (400, 1.0)), 400, 1 / 3),
    }
    given = allocate(prospects, 300, floor=0.2)
    assert sum(given.values()) == 300
    assert given["learns"] > 200
    assert min(given.values()) >= 20


def test_every_category_is_tried_before_its_curve_is_asked() -> None:
    prospects = {name: Prospect(learned((0, 0.0)), 0, 0.1) for name in "abcdefgh"}
    prospects["known"] = Prospect(learned((0, 0.0), (50, 0.5)), 50, 0.1)
    given = allocate(prospects, 8 * FIRST_ROWS)
    assert given == dict.fromkeys("abcdefgh", FIRST_ROWS) | {"known": 0}
    # Too little for all: still evenly.
    assert max(allocate(prospects, 16).values()) == 2


def test_a_category_of_two_labels_is_seen_to_be_done_after_a_handful() -> None:
    spam, intents = learned((0, 0.0), (12, 0.9)), learned((0, 0.0), (12, 0.05))
    assert spam.accuracy(12) > 0.75
    assert intents.upper_gain(12, 2000) > 2 * spam.upper_gain(12, 2000)


def test_what_keeps_the_promise_as_a_whole_is_worth_nothing_more() -> None:
    assert learned((0, 0.0), (100, 0.98), (400, 0.99), graded=100).upper_worth(400, 200) < 0.02


def test_what_is_asked_more_often_gets_more() -> None:
    curve = learned((0, 0.1), (50, 0.4))
    given = allocate({"often": Prospect(curve, 50, 0.9), "rare": Prospect(curve, 50, 0.1)}, 400)
    assert given["often"] > 3 * given["rare"]


def test_each_gets_the_least_at_any_rate_and_nothing_is_spent_below_its_worth() -> None:
    learns, hopeless = learned((0, 0.1), (50, 0.5)), learned((0, 0.0), (400, 0.0))
    prospects = {"learns": Prospect(learns, 50, 0.5), "hopeless": Prospect(hopeless, 400, 0.5)}
    worth = measure_worth(prospects["learns"]) / 2
    given = allocate(prospects, 1000, floor=0.0, least=10, worth=worth)
    assert given["hopeless"] == 10 and 10 < given["learns"] < 900
    assert (
        measure_worth(prospects["learns"], given["learns"])
        < worth
        <= measure_worth(prospects["learns"], given["learns"] - 5)
    )
    assert sum(allocate(prospects, 1000, floor=0.0, least=10).values()) == 1000


def test_an_empty_stock_gives_to_the_others_and_no_stock_at_all_ends() -> None:
    curve = Curve([])
    prospects = {"short": Prospect(curve, 0, 0.5, left=7), "long": Prospect(curve, 0, 0.5, left=1000)}
    assert allocate(prospects, 200) == {"short": 7, "long": 193}
    assert allocate({"short": Prospect(curve, 0, 1.0, left=7)}, 200) == {"short": 7}
    assert allocate({}, 200) == {}
