"""Prefetching: in order, a bounded number ahead, errors where they belong."""

from __future__ import annotations

import threading

import pytest
from shammah_trainer.prefetch import prefetch


def test_results_come_in_order() -> None:
    assert list(prefetch(lambda n: n * n, range(20), ahead=3)) == [n * n for n in range(20)]


def test_no_more_is_made_ahead_than_allowed() -> None:
    made: list[int] = []
    room = threading.Semaphore(0)

    def make(number: int) -> int:
        made.append(number)
        room.release()
        return number

    results = prefetch(make, range(100), ahead=2)
    assert next(results) == 0
    for _ in range(3):
        assert room.acquire(timeout=10)
    assert len(made) == 3
    results.close()  # type: ignore[attr-defined]
    assert len(made) == 3


def test_an_error_is_raised_where_its_result_would_have_come() -> None:
    def make(number: int) -> float:
        return 1 / (2 - number)

    results = prefetch(make, range(5), ahead=4)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
