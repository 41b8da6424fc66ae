"""The demo succeeds only when all three conditions hold."""

from __future__ import annotations

import pytest
from shammah_gateway.demo.scorecard import CategoryScore, binomial_tail, breach, verdict


def score(name: str, *, before: float = 0.0, after: float = 0.9, local: int = 80, bad: int = 2) -> CategoryScore:
    return CategoryScore(name=name, before_rows=30, before=before, rows=100, after=after, local=local, local_bad=bad)


def scores(*items: CategoryScore) -> dict[str, CategoryScore]:
    return {item.name: item for item in items}


def test_two_risen_categories_and_a_kept_promise_are_success() -> None:
    hard = score("hard", after=0.0, local=0, bad=0)
    assert verdict(scores(score("a"), score("b"), hard), alpha=0.1, failed=0) == []


def test_one_risen_category_is_not_enough() -> None:
    assert verdict(scores(score("a"), score("b", after=0.1)), alpha=0.1, failed=0)


def test_accuracy_without_local_answers_is_not_enough() -> None:
    assert verdict(scores(score("a"), score("b", local=0, bad=0)), alpha=0.1, failed=0)


def test_a_failed_request_is_told() -> None:
    reasons = verdict(scores(score("a"), score("b")), alpha=0.1, failed=3)
    assert reasons == ["3 requests failed during the swap"]


def test_a_category_far_above_alpha_breaks_the_promise_though_the_pool_does_not() -> None:
    found = breach(scores(score("a", bad=0), score("b", local=30, bad=8)), 0.1)
    assert [reason.split(":")[0] for reason in found] == ["b"]


def test_too_many_bad_answers_in_the_pool_break_the_promise() -> None:
    assert any("pooled" in reason for reason in breach(scores(score("a", local=50, bad=6)), 0.1))


@pytest.mark.parametrize(
    ("errors", "trials", "rate", "expected"), [(0, 10, 0.1, 1.0), (1, 2, 0.5, 0.75), (2, 2, 0.5, 0.25)]
)
def test_the_binomial_tail_is_exact(errors: int, trials: int, rate: float, expected: float) -> None:
    assert binomial_tail(errors, trials, rate) == pytest.approx(expected)
