"""Handing the level on: known procedures as special cases, and the error rate over many draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_trainer.level_graph import join_chains, reject


def evenly(n: int) -> np.ndarray:
    return (np.ones((n, n)) - np.eye(n)) / (n - 1)


def holm(p_values: np.ndarray, level: float) -> list[bool]:
    found = [False] * len(p_values)
    for rank, number in enumerate(np.argsort(p_values)):
        if p_values[number] > level / (len(p_values) - rank):
            break
        found[number] = True
    return found


class TestReject:
    def test_equal_shares_handed_on_evenly_are_holm(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(200):
            p_values = rng.random(5) ** 4
            rejected, _ = reject(p_values, np.full(5, 0.2), evenly(5), level=0.05)
            assert rejected.tolist() == holm(p_values, 0.05)

    def test_a_single_chain_is_a_fixed_sequence(self) -> None:
        edges = join_chains([4], starts=[[0]], sure=[2], weights=[1.0], keep=0.5)
        rejected, held = reject(np.array([0.04, 0.05, 0.06, 0.0]), np.array([1.0, 0, 0, 0]), edges, level=0.05)
        assert rejected.tolist() == [True, True, False, False]
        assert held == pytest.approx([0.05, 0.05, 0.05, 0.0])

    def test_what_is_proved_hands_its_level_to_what_waits(self) -> None:
        edges = join_chains([1, 1], starts=[[0], [0]], sure=[1, 1], weights=[0.5, 0.5], keep=0.5)
        shares = np.array([0.5, 0.5])
        assert reject(np.array([0.02, 0.04]), shares, edges, level=0.05)[0].tolist() == [True, True]
        assert reject(np.array([0.03, 0.04]), shares, edges, level=0.05)[0].tolist() == [False, False]

    def test_half_of_the_level_leaves_a_chain_once_its_sure_links_have_passed(self) -> None:
        edges = join_chains([3, 2], starts=[[0], [0]], sure=[2, 1], weights=[0.5, 0.5], keep=0.5)
        shares = np.array([0.5, 0, 0, 0.5, 0])
        rejected, held = reject(np.array([0.0, 0.0, 1.0, 1.0, 1.0]), shares, edges, level=0.04)
        assert rejected.tolist() == [True, True, False, False, False]
        assert held == pytest.approx([0.02, 0.02, 0.01, 0.03, 0.0])

    def test_the_level_comes_back_when_the_others_are_done(self) -> None:
        edges = join_chains([2, 1], starts=[[0], [0]], sure=[1, 1], weights=[0.5, 0.5], keep=0.5)
        rejected, _ = reject(np.array([0.0, 0.05, 0.0]), np.array([0.5, 0, 0.5]), edges, level=0.05)
        assert rejected.all()

    def test_of_two_starts_the_strict_one_adds_to_the_other_and_its_failure_leaves_that_one_its_part(self) -> None:
        edges = join_chains([3], starts=[[0, 1]], sure=[3], weights=[1.0], keep=0.5)
        shares = np.array([0.5, 0.5, 0.0])
        both, held = reject(np.array([0.02, 0.05, 1.0]), shares, edges, level=0.05)
        assert both.tolist() == [True, True, False]
        assert held == pytest.approx([0.025, 0.05, 0.05])
        lax, held = reject(np.array([0.03, 0.02, 1.0]), shares, edges, level=0.05)
        assert lax.tolist() == [False, True, False]
        assert held == pytest.approx([0.025, 0.025, 0.025])

    def test_what_is_handed_on_goes_to_both_starts_in_equal_parts(self) -> None:
        edges = join_chains([1, 3], starts=[[0], [0, 2]], sure=[1, 3], weights=[0.5, 0.5], keep=0.5)
        assert edges[0].tolist() == [0.0, 0.5, 0.0, 0.5]

    def test_no_hypothesis_is_no_rejection(self) -> None:
        assert reject(np.zeros(0), np.zeros(0), np.zeros((0, 0)), level=0.05)[0].tolist() == []

    @pytest.mark.parametrize(
        ("shares", "edges"),
        [([0.6, 0.6], np.zeros((2, 2))), ([0.5, 0.5], np.eye(2)), ([-0.1, 0.5], np.zeros((2, 2)))],
    )
    def test_a_level_that_is_spent_twice_is_refused(self, shares: list[float], edges: np.ndarray) -> None:
        with pytest.raises(InvalidInputError):
            reject(np.zeros(2), np.array(shares), edges, level=0.05)


DRAWS = 2000


class TestErrorRate:
    @pytest.mark.parametrize("true_of", [(0, 0, 0), (2, 0, 3), (3, 3, 0)], ids=str)
    def test_any_false_rejection_is_rarer_than_the_level(self, true_of: tuple[int, ...]) -> None:
        """Three chains of three, one with two starts; the first links of each are false by `true_of`, the others true
        (p uniform)."""
        rng = np.random.default_rng(3)
        starts = [[0], [0, 1], [0]]
        edges = join_chains([3, 3, 3], starts=starts, sure=[1, 2, 1], weights=[0.5, 0.3, 0.2], keep=0.3)
        shares = np.array([0.5, 0, 0, 0.15, 0.15, 0, 0.2, 0, 0])
        false = np.array([link < count for count in true_of for link in range(3)])
        wrong = 0
        for _ in range(DRAWS):
            p_values = np.where(false, 0.0, rng.random(9))
            wrong += bool((reject(p_values, shares, edges, level=0.05)[0] & ~false).any())
        assert wrong / DRAWS <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / DRAWS)
