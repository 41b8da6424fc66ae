"""Which thresholds are tested and from which ones on: decided on dev rows."""

from __future__ import annotations

import math

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_trainer.certify import CategoryEvidence, GradedRow, certify
from shammah_trainer.thresholds import Order, choose_order, find_best_chance, find_least_score


def choose(scores: list[float], goods: list[bool], *, exam_rows: int = 240) -> Order | None:
    return choose_order(scores, goods, exam_rows=exam_rows, alpha=0.1, level=0.0125)


def spread(n: int) -> list[float]:
    """Scores from one half to one."""
    return [0.5 + i / n / 2 for i in range(n)]


class TestThresholds:
    def test_go_from_strict_to_lax_and_end_with_the_least_score(self) -> None:
        order = choose([i / 100 for i in range(100)], [True] * 100)
        assert order is not None
        assert order.thresholds == sorted(set(order.thresholds), reverse=True)
        assert order.thresholds[-1] == find_least_score(100, alpha=0.1) == pytest.approx(0.7)

    @pytest.mark.parametrize(
        ("rows", "alpha", "least"), [(99, 0.05, 0.5), (100, 0.05, 0.85), (100, 0.02, 0.94), (100, 0.2, 0.5)]
    )
    def test_lie_above_what_few_times_alpha_allows_where_dev_rows_are_many(
        self, rows: int, alpha: float, least: float
    ) -> None:
        assert find_least_score(rows, alpha) == pytest.approx(least)

    def test_are_none_where_all_scores_lie_below_one_half(self) -> None:
        assert choose([0.49] * 200, [True] * 200) is None
        assert find_best_chance([0.49] * 200, [True] * 200, exam_rows=240, alpha=0.1, level=0.0125) == 0.0
        assert choose([], []) is None

    def test_tied_scores_give_one_threshold(self) -> None:
        assert choose([0.7] * 40, [True] * 40) == Order([0.7], [0], 1)

    def test_start_where_the_exam_can_gather_enough_evidence(self) -> None:
        order = choose(spread(99), [True] * 99, exam_rows=60)
        # 42 accepted answers are needed, so a threshold that takes under 70 % may not come first.
        assert order is not None and order.thresholds[0] <= 0.65

    def test_start_above_the_bad_scores_and_end_among_them(self) -> None:
        scores = spread(99)
        order = choose(scores, [s >= 0.65 for s in scores], exam_rows=400)
        assert order is not None
        assert order.thresholds[order.starts[-1]] >= 0.65
        assert 0.55 <= order.thresholds[-1] < 0.65
        assert 0 < order.sure < len(order.thresholds)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_score_that_is_no_number_is_refused(self, bad: float) -> None:
        with pytest.raises(InvalidInputError, match="finite"):
            choose([0.6, bad], [True, True])

    def test_unequal_lengths_are_refused(self) -> None:
        with pytest.raises(InvalidInputError):
            choose([0.6], [True, False])


class TestStarts:
    @pytest.mark.parametrize("rows", [12, 120])
    def test_a_strict_one_lies_where_the_exam_bears_two_errors(self, rows: int) -> None:
        order = choose(spread(rows), [True] * rows)
        assert order is not None and len(order.starts) == 2
        # 87 rows of 240 bear two errors at half of the level: 5 of 12 leave 100, 4 only 80.
        assert order.thresholds[0] == pytest.approx(0.5 + 7 / 12 / 2, abs=0.03)
        assert order.thresholds[order.starts[1]] < order.thresholds[0]
        assert order.sure > order.starts[1]

    def test_a_small_exam_has_no_level_to_share(self) -> None:
        order = choose(spread(12), [True] * 12, exam_rows=80)
        assert order is not None and order.starts == [0]

    def test_what_the_likely_one_passes_by_the_strict_one_may_certify(self) -> None:
        # 12 dev rows are all right; on the exam the worst scores are not.
        dev = [GradedRow(s, True) for s in spread(12)]
        exam = [GradedRow(s, i >= 60) for i, s in enumerate(spread(240))]
        found = certify({"a": CategoryEvidence(dev, exam)}, alpha=0.1)["a"]
        assert found.threshold == pytest.approx(2 / 3)
        assert (found.accepted, found.errors) == (160, 0)

    def test_where_the_strict_one_fails_the_likely_one_may_certify_with_its_part(self) -> None:
        # The best scores hold a clump of errors; among all rows it is within the promise.
        dev = [GradedRow(s, True) for s in spread(12)]
        exam = [GradedRow(s, not 560 <= i < 590) for i, s in enumerate(spread(600))]
        found = certify({"a": CategoryEvidence(dev, exam)}, alpha=0.1)["a"]
        assert (found.threshold, found.errors) == (0.5, 30)
        assert "<= 0.025" in found.reason


class TestChances:
    def test_the_judges_scores_speak_for_the_strict_end_where_dev_rows_tell_nothing_yet(self) -> None:
        """Four bad rows in sixty: how many of them lie above .95 is chance, that few do the scores know."""

        def chance(high: float) -> float:
            scores, goods = [0.6] * 30 + [high] * 30, [False] * 4 + [True] * 56
            return find_best_chance(scores, goods, exam_rows=200, alpha=0.05, level=0.01)

        assert chance(0.98) > chance(0.61) + 0.03
