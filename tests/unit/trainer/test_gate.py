"""The gate: its verdicts on made rows, and its error rates over simulated candidates."""

from __future__ import annotations

import json

import numpy as np
import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_trainer.gate import GateReport, Outcomes, decide


def outcomes(good: int, bad: int, *, local: int = 0, bad_first: bool = False) -> Outcomes:
    """Rows r0, r1, ...: the good ones first (or last), the first `local` of them answered locally."""
    values = [False] * bad + [True] * good if bad_first else [True] * good + [False] * bad
    rows = {f"r{i}": value for i, value in enumerate(values)}
    return Outcomes(rows, frozenset(list(rows)[:local]))


def draw(
    rng: np.random.Generator, n: int, *, gain: float, loss: float, share: tuple[float, float] = (0.5, 0.5)
) -> tuple[Outcomes, Outcomes]:
    """Champion and candidate on n rows that gain, lose or stay with the given chances."""
    kind = rng.random(n)
    champion = (rng.random(n) < 0.8) | (kind < loss)
    champion &= ~((kind >= loss) & (kind < loss + gain))
    candidate = champion & ~(kind < loss) | ((kind >= loss) & (kind < loss + gain))
    local = [frozenset(f"r{i}" for i in np.flatnonzero(rng.random(n) < s)) for s in share]
    pair = [{f"r{i}": bool(v) for i, v in enumerate(values)} for values in (champion, candidate)]
    return Outcomes(pair[0], local[0]), Outcomes(pair[1], local[1])


class TestVerdict:
    def test_a_first_certified_share_promotes(self) -> None:
        report = decide({"a": outcomes(60, 40)}, {"a": outcomes(90, 10, local=50)})
        assert report.verdict == "promote"
        assert (report.local_share_before, report.local_share_after) == (0.0, 0.5)
        assert (report.gains, report.losses, report.n) == (30, 0, 100)
        assert "rises" in report.reasons[0]

    def test_a_fallen_share_holds_though_accuracy_rose(self) -> None:
        report = decide({"a": outcomes(60, 40, local=50)}, {"a": outcomes(90, 10, local=20)})
        assert report.verdict == "held"
        assert any("local share" in reason and "falls" in reason for reason in report.reasons)

    def test_the_same_share_and_a_better_accuracy_promotes(self) -> None:
        report = decide({"a": outcomes(60, 40, local=30)}, {"a": outcomes(75, 25, local=30)})
        assert report.verdict == "promote"
        assert any("accuracy" in reason for reason in report.reasons)

    def test_a_slightly_lower_share_and_a_better_accuracy_is_left_undecided(self) -> None:
        report = decide({"a": outcomes(60, 40, local=30)}, {"a": outcomes(75, 25, local=29)})
        assert report.verdict == "undecided"

    def test_one_broken_category_holds_a_candidate_that_is_better_elsewhere(self) -> None:
        champion = {"good": outcomes(100, 100), "bad": outcomes(180, 20)}
        candidate = {"good": outcomes(190, 10, local=150), "bad": outcomes(120, 80)}
        report = decide(champion, candidate)
        assert report.verdict == "held"
        assert report.categories["bad"].held
        assert not report.categories["good"].held
        assert report.reasons[0].startswith("bad: ")
        assert (report.categories["bad"].gains, report.categories["bad"].losses) == (0, 60)

    def test_the_tolerance_of_a_category_is_its_own(self) -> None:
        champion, candidate = {"a": outcomes(180, 20)}, {"a": outcomes(160, 40)}
        assert decide(champion, candidate).verdict == "held"
        assert decide(champion, candidate, tolerance_points={"a": 12.0}).verdict == "undecided"

    def test_equal_releases_are_undecided(self) -> None:
        report = decide({"a": outcomes(80, 20, local=40)}, {"a": outcomes(80, 20, local=40)})
        assert report.verdict == "undecided"
        assert report.categories["a"].interval[0] < 0.0 < report.categories["a"].interval[1]

    def test_no_rows_are_undecided(self) -> None:
        assert decide({}, {}).verdict == "undecided"
        empty = decide({"a": Outcomes({})}, {"a": Outcomes({})})
        assert empty.reasons == ["no exam rows to compare on"]

    def test_the_report_survives_json(self) -> None:
        champion, candidate = draw(np.random.default_rng(1), 50, gain=0.2, loss=0.1)
        report = decide({"a": champion}, {"a": candidate})
        found = json.loads(json.dumps(report.as_dict()))
        assert found == report.as_dict()
        assert found["verdict"] == report.verdict
        assert found["categories"]["a"]["gains"] == report.categories["a"].gains
        assert report.accuracy_after - report.accuracy_before == pytest.approx((report.gains - report.losses) / 50)


class TestBadInput:
    def test_different_categories_are_refused_by_name(self) -> None:
        with pytest.raises(InvalidInputError, match="'b'"):
            decide({"a": outcomes(1, 1)}, {"a": outcomes(1, 1), "b": outcomes(1, 1)})

    def test_different_rows_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="same exam rows"):
            decide({"a": outcomes(1, 1)}, {"a": outcomes(1, 2)})

    def test_a_local_row_that_was_not_graded_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="not among"):
            decide({"a": outcomes(1, 1)}, {"a": Outcomes(outcomes(1, 1).good, frozenset({"other"}))})

    @pytest.mark.parametrize("bad", [{"level": 0.0}, {"tolerance_points": -1.0}, {"tolerance_points": {"x": 1.0}}])
    def test_impossible_settings_are_refused(self, bad: dict) -> None:
        with pytest.raises(InvalidInputError):
            decide({"a": outcomes(1, 1)}, {"a": outcomes(1, 1)}, **bad)


class TestErrorRates:
    def simulate(self, seed: int, runs: int, kinds: list[tuple[float, float]]) -> list[GateReport]:
        rng = np.random.default_rng(seed)
        reports = []
        for _ in range(runs):
            pairs = {str(i): draw(rng, 200, gain=g, loss=lost) for i, (g, lost) in enumerate(kinds)}
            reports.append(decide({k: v[0] for k, v in pairs.items()}, {k: v[1] for k, v in pairs.items()}))
        return reports

    @pytest.mark.parametrize("churn", [0.02, 0.1])
    def test_equal_candidates_are_rarely_held_or_promoted(self, churn: float) -> None:
        reports = self.simulate(3, 500, [(churn, churn)] * 3)
        noise = 2 * (0.05 * 0.95 / 500) ** 0.5
        assert sum(r.verdict == "held" for r in reports) / 500 <= 0.05 + noise
        assert sum(r.verdict == "promote" for r in reports) / 500 <= 0.05 + noise

    def test_a_candidate_ten_points_worse_is_mostly_held(self) -> None:
        reports = self.simulate(4, 200, [(0.02, 0.12)])
        assert sum(r.verdict == "held" for r in reports) / 200 >= 0.6

    def test_one_category_twenty_points_worse_among_five_is_nearly_always_held(self) -> None:
        reports = self.simulate(5, 100, [(0.05, 0.25)] + [(0.05, 0.05)] * 4)
        assert sum(r.verdict == "held" and r.categories["0"].held for r in reports) / 100 >= 0.9
