"""Which thresholds are tested and from which one on: decided on dev rows, and shared level where these are few."""

from __future__ import annotations

import math

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_trainer.certify import CategoryEvidence, GradedRow, certify, choose_orders, order_thresholds
from shammah_trainer.intervals import binomial_cdf


class TestOrderThresholds:
    def test_goes_from_strict_to_lax_in_at_most_sixteen_steps_and_ends_with_all(self) -> None:
        scores = [i / 100 for i in range(100)]
        order = order_thresholds(scores, [True] * 100)
        assert order == sorted(order, reverse=True)
        assert len(order) == 16
        assert order[-1] == 0.0

    def test_tied_scores_give_one_threshold(self) -> None:
        assert order_thresholds([0.5] * 40, [True] * 40) == [0.5]
        assert order_thresholds([0.5] * 30 + [0.9] * 10, [True] * 40) == [0.9, 0.5]

    def test_few_tied_values_never_give_more_than_asked(self) -> None:
        assert len(order_thresholds([1.0] * 90 + [i / 100 for i in range(10)], [True] * 100, 4)) <= 4

    def test_starts_where_the_exam_can_gather_enough_evidence(self) -> None:
        scores = [i / 100 for i in range(100)]
        order = order_thresholds(scores, [True] * 100, exam_rows=100)
        # 59 accepted answers are needed, so a threshold that takes under 59 % may not come first.
        assert order[0] <= 0.41

    def test_starts_above_the_bad_scores_when_the_score_ranks_well(self) -> None:
        scores = [i / 100 for i in range(100)]
        order = order_thresholds(scores, [s >= 0.3 for s in scores], exam_rows=400)
        assert order[0] >= 0.3
        # 22 errors in 400 are too many: it ends among the bad ones, not with all.
        assert 0.2 <= order[-1] < 0.3
        assert len(order) == 16 or order[0] - order[-1] < 0.16

    def test_no_rows_give_no_threshold(self) -> None:
        assert order_thresholds([], []) == []

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_score_that_is_no_number_is_refused(self, bad: float) -> None:
        with pytest.raises(InvalidInputError, match="finite"):
            order_thresholds([0.1, bad], [True, True])

    def test_unequal_lengths_and_no_thresholds_are_refused(self) -> None:
        with pytest.raises(InvalidInputError):
            order_thresholds([0.1], [True, False])
        with pytest.raises(InvalidInputError):
            order_thresholds([0.1], [True], 0)


class TestChooseOrders:
    @staticmethod
    def choose(scores: list[float], goods: list[bool]) -> list[list[float]]:
        return choose_orders(scores, goods, exam_rows=240, alpha=0.1, level=0.0125)

    def test_many_dev_rows_give_the_one_order(self) -> None:
        scores = [i / 100 for i in range(100)]
        goods = [s >= 0.2 for s in scores]
        assert self.choose(scores, goods) == [order_thresholds(scores, goods, exam_rows=240, alpha=0.1, level=0.0125)]

    def test_few_dev_rows_add_one_that_starts_where_the_exam_bears_two_errors(self) -> None:
        scores = [i / 12 for i in range(12)]
        strict, likely = self.choose(scores, [True] * 12)
        # Right in 12 of 12, all may seem to pass; 5 of 12 leave 100 rows of 240, 4 only 80: 87 bear two errors.
        assert strict[0] == 7 / 12
        assert likely[0] <= 1 / 12 and likely[-1] == 0.0
        assert strict == sorted(strict, reverse=True) and strict[-1] == 0.0

    def test_what_the_likeliest_order_passes_by_the_strict_one_may_certify(self) -> None:
        # 12 dev rows are all right; on the exam the worst scores are not.
        dev = [GradedRow(i / 12, True) for i in range(12)]
        exam = [GradedRow(i / 240, i >= 60) for i in range(240)]
        found = certify({"a": CategoryEvidence(dev, exam)}, alpha=0.1)["a"]
        assert found.threshold == pytest.approx(0.25)
        assert (found.accepted, found.errors) == (180, 0)

    def test_both_orders_share_the_level(self) -> None:
        # 5 errors in 110 pass at .05 (p = .031), not at half of it; having the best scores they end the strict order.
        dev = [GradedRow(i / 12, True) for i in range(12)]
        exam = [GradedRow(i / 110, i < 105) for i in range(110)]
        assert binomial_cdf(5, 110, 0.1) == pytest.approx(0.031, abs=1e-3)
        assert len(choose_orders([r.score for r in dev], [True] * 12, exam_rows=110, alpha=0.1, level=0.05)) == 2
        assert certify({"a": CategoryEvidence(dev, exam)}, alpha=0.1)["a"].threshold is None

    def test_the_laxer_of_what_two_orders_certify_is_taken(self) -> None:
        # Below the strict start lies a clump of errors; among all rows it is within the promise.
        dev = [GradedRow(i / 12, True) for i in range(12)]
        exam = [GradedRow(i / 600, not 325 <= i < 350) for i in range(600)]
        found = certify({"a": CategoryEvidence(dev, exam)}, alpha=0.1)["a"]
        assert found.threshold is not None and found.threshold <= 1 / 12

    def test_a_small_exam_has_no_level_to_share(self) -> None:
        scores = [i / 12 for i in range(12)]
        assert choose_orders(scores, [True] * 12, exam_rows=80, alpha=0.1, level=0.0125) == [[0.0]]

    def test_one_score_for_all_and_no_rows_leave_nothing_to_choose(self) -> None:
        assert self.choose([0.5] * 9, [True] * 9) == [[0.5]]
        assert self.choose([], []) == []
