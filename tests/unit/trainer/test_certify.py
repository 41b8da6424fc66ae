"""Certification: the procedure, its edges, and its promise over simulated releases."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.releases import Rung
from shammah_trainer.betting import betting_p_value
from shammah_trainer.certify import (
    LADDER_ALPHAS,
    NO_NUMBER_HELPS,
    CategoryEvidence,
    GradedRow,
    certify,
    certify_ladder,
)
from shammah_trainer.intervals import binomial_cdf


def rows(good: int, bad: int, *, good_score: float = 0.9, bad_score: float = 0.9, **more: float) -> list[GradedRow]:
    return [GradedRow(good_score, True, **more)] * good + [GradedRow(bad_score, False, **more)] * bad


def draw(rng: np.random.Generator, n: int, risk: float, ranking: float) -> list[GradedRow]:
    """Scores (1 + u) / 2, u uniform; P(bad | u) = risk * (1 - ranking + 2 * ranking * (1 - u)): `risk` is the mean."""
    uniform = rng.random(n)
    bad = rng.random(n) < risk * (1 - ranking + 2 * ranking * (1 - uniform))
    return [GradedRow((1 + u) / 2, not b) for u, b in zip(uniform.tolist(), bad.tolist(), strict=True)]


def true_risk(threshold: float, risk: float, ranking: float) -> float:
    return risk * (1 - ranking + ranking * (2 - 2 * threshold))


class TestOneCategory:
    def test_fifty_nine_right_answers_certify_and_fifty_eight_do_not(self) -> None:
        enough = certify({"a": CategoryEvidence(rows(30, 0), rows(59, 0))})["a"]
        assert enough.threshold == 0.9
        assert (enough.accepted, enough.errors, enough.rows, enough.rows_missing) == (59, 0, 59, 0)
        assert enough.local_share == 1.0
        few = certify({"a": CategoryEvidence(rows(30, 0), rows(58, 0))})["a"]
        assert few.threshold is None
        assert few.rows_missing == 1
        assert few.local_share == 0.0
        assert "1 more accepted" in few.reason

    def test_the_error_level_is_shared_by_the_categories_that_were_tried(self) -> None:
        good = CategoryEvidence(rows(30, 0), rows(114, 0))
        no_exam = CategoryEvidence(rows(30, 0), [])
        no_dev = CategoryEvidence([], rows(100, 0))
        # Dev rows promise as much as of the good one, and the exam says no: their shares are spent.
        others = {f"c{i}": CategoryEvidence(rows(30, 0), rows(300, 100)) for i in range(17)}
        empty = {"no exam": no_exam, "no dev": no_dev}
        assert certify({"a": good, **others, **empty})["a"].rows_missing > 0
        assert certify({"a": good, **empty})["a"].threshold == 0.9

    def test_only_the_answers_above_the_threshold_and_past_the_prefilter_count(self) -> None:
        bad_below = rows(150, 40, bad_score=0.2)
        stopped = [GradedRow(0.95, False, eligible=False)] * 50
        found = certify({"a": CategoryEvidence(bad_below, bad_below + stopped)})["a"]
        assert found.threshold == 0.9
        assert (found.accepted, found.errors, found.rows) == (150, 0, 240)
        assert found.local_share == pytest.approx(150 / 240)
        # With all of them 40 in 190 would be bad: dev rows say so, and it is not tried.
        assert found.tried == 1

    def test_what_dev_rows_show_to_be_hopeless_is_not_tried_and_costs_nobody_his_level(self) -> None:
        good, hopeless = CategoryEvidence(rows(100, 0), rows(59, 0)), CategoryEvidence(rows(60, 60), rows(50, 50))
        found = certify({"a": good, "b": hopeless})
        assert found["a"].threshold == 0.9
        assert (found["b"].threshold, found["b"].tried) == (None, 0)
        assert "cannot prove" in found["b"].reason
        # One bad row in 13 rules little out: it is tried, and shares the level.
        unsure = CategoryEvidence(rows(12, 1), rows(200, 100))
        assert certify({"a": good, "b": unsure})["a"].threshold is None

    def test_of_many_that_could_not_all_pass_one_is_tried_and_the_others_wait_for_its_share(self) -> None:
        # 59 rows suffice for one alone; the four others are handed a quarter each, for which it takes 86.
        found = certify({f"c{i}": CategoryEvidence(rows(60, 0), rows(60, 0)) for i in range(5)})
        assert sum(c.threshold is not None for c in found.values()) == 1
        others = [c for c in found.values() if c.threshold is None]
        assert {(c.tried, c.rows_missing) for c in others} == {(1, 26)}

    def test_what_waited_in_vain_is_not_tested_and_hears_what_it_lacks(self) -> None:
        first = CategoryEvidence(rows(60, 0), rows(50, 11))
        found = certify({"a": CategoryEvidence(rows(60, 0), rows(60, 0)), "b": first})
        assert all(c.threshold is None for c in found.values())
        assert (found["a"].tried, found["a"].rows_missing) == (0, 12)
        assert "not tested" in found["a"].reason

    def test_a_single_dev_row_that_was_stopped_does_not_rule_out_a_good_exam(self) -> None:
        dev = [*rows(11, 0), GradedRow(0.9, True, eligible=False)]
        assert certify({"a": CategoryEvidence(dev, rows(60, 0))})["a"].threshold == 0.9

    def test_a_laxer_threshold_is_taken_while_the_exam_allows_it(self) -> None:
        mixed = [GradedRow(0.9, True)] * 100 + [GradedRow(0.85, True)] * 100
        assert certify({"a": CategoryEvidence(mixed, mixed)})["a"].threshold == 0.85

    def test_the_sequence_stops_at_its_first_failure(self) -> None:
        # The exam contradicts dev at the strict threshold; the lax one would pass alone but must not be reached.
        dev = [GradedRow(0.9, True)] * 60 + [GradedRow(0.7, False)] * 30
        exam = [GradedRow(0.9, False)] * 3 + [GradedRow(0.9, True)] * 60 + [GradedRow(0.7, True)] * 500
        found = certify({"a": CategoryEvidence(dev, exam)})["a"]
        assert found.threshold is None
        assert found.tried == 1
        assert found.rows_missing >= 1

    @pytest.mark.parametrize("low", [0.49, 0.84])
    def test_what_the_judge_holds_for_too_probably_wrong_is_forwarded_however_good_the_exam(self, low: float) -> None:
        evidence = rows(100, 0) + rows(200, 0, good_score=low)
        found = certify({"a": CategoryEvidence(evidence, evidence)})["a"]
        assert (found.threshold, found.accepted) == (0.9, 100)
        # Few dev rows draw scores together: from one half on they may be accepted.
        assert certify({"a": CategoryEvidence(rows(99, 0, good_score=0.5), evidence)})["a"].threshold == 0.5

    def test_without_a_dev_row_that_is_judged_well_nothing_is_tried_and_nobody_pays_for_it(self) -> None:
        low = rows(300, 0, good_score=0.49)
        found = certify({"a": CategoryEvidence(low, low), "b": CategoryEvidence(rows(30, 0), rows(59, 0))})
        assert found["b"].threshold == 0.9
        assert (found["a"].threshold, found["a"].tried, found["a"].accepted) == (None, 0, 0)
        assert found["a"].reason == "not certified: no dev row is judged 0.85 or better"
        assert found["a"].rows_missing == NO_NUMBER_HELPS

    def test_an_error_rate_above_alpha_says_that_no_number_of_rows_helps(self) -> None:
        found = certify({"a": CategoryEvidence(rows(20, 20), rows(50, 50))})["a"]
        assert found.threshold is None
        assert found.rows_missing == NO_NUMBER_HELPS
        assert "cannot prove" in found.reason

    def test_only_bad_and_only_unusable_rows_are_a_plain_no(self) -> None:
        only_bad = certify({"a": CategoryEvidence(rows(0, 30), rows(0, 100))})["a"]
        assert only_bad.threshold is None
        stopped = [GradedRow(0.9, True, eligible=False)] * 100
        assert certify({"a": CategoryEvidence(stopped, stopped)})["a"].reason.endswith("prefilter")
        nothing = certify({"a": CategoryEvidence(rows(30, 0), [])})["a"]
        assert nothing.reason.endswith("no exam rows")
        assert nothing.rows_missing == 59
        assert nothing.tried == 0
        assert certify({}) == {}

    @pytest.mark.parametrize(("errors", "accepted"), [(1, 60), (3, 90), (6, 150), (17, 400)])
    def test_rows_missing_are_the_fewest_that_certify_at_the_same_error_rate(self, errors: int, accepted: int) -> None:
        evidence = CategoryEvidence(rows(30, 0), rows(accepted - errors, errors))
        found = certify({"a": evidence}, delta=0.01)["a"]
        assert found.threshold is None
        total = accepted + found.rows_missing

        def passes(m: int) -> bool:
            return binomial_cdf(-(-m * errors // accepted), m, 0.05) <= 0.01

        assert total == next(m for m in range(accepted, 10_000) if passes(m))

    @pytest.mark.parametrize("part", ["dev", "exam"])
    def test_a_score_that_is_no_number_is_refused_by_category(self, part: str) -> None:
        broken = [GradedRow(math.nan, True)]
        evidence = CategoryEvidence(broken, rows(9, 0)) if part == "dev" else CategoryEvidence(rows(9, 0), broken)
        with pytest.raises(InvalidInputError, match="'orders'"):
            certify({"orders": evidence})

    @pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"alpha": 1.0}, {"delta": 0.0}, {"delta": math.nan}])
    def test_an_impossible_promise_is_refused(self, bad: dict[str, float]) -> None:
        with pytest.raises(InvalidInputError):
            certify({}, **bad)


class TestWeightedRows:
    def test_the_betting_bound_is_used_and_nearly_as_strong_when_all_weights_are_at_the_cap(self) -> None:
        evidence = CategoryEvidence(rows(30, 0), rows(130, 0, weight=50.0))
        found = certify({"a": evidence})["a"]
        assert found.weighted
        assert found.threshold == 0.9

    def test_a_weighted_exam_is_tried_whatever_dev_rows_say(self) -> None:
        assert certify({"a": CategoryEvidence(rows(60, 60), rows(50, 50, weight=10.0))})["a"].tried == 1

    def test_a_heavy_error_weighs_more_than_a_light_one(self) -> None:
        weights = np.array([1.0] * 100 + [10.0] * 100)
        light, heavy = np.zeros(200, dtype=bool), np.zeros(200, dtype=bool)
        light[0], heavy[-1] = True, True
        assert betting_p_value(light, weights, alpha=0.05, max_weight=10.0) < betting_p_value(
            heavy, weights, alpha=0.05, max_weight=10.0
        )

    def test_the_share_is_weighted_and_the_missing_rows_are_counted(self) -> None:
        exam = rows(100, 0, weight=10.0) + [GradedRow(0.1, False, weight=1.0)] * 100
        dev = rows(60, 0) + [GradedRow(0.1, False)] * 60
        found = certify({"a": CategoryEvidence(dev, exam)}, max_weight=10.0)["a"]
        assert found.local_share == pytest.approx(1000 / 1100)
        few = certify({"a": CategoryEvidence(dev, rows(40, 0, weight=10.0))}, max_weight=10.0)["a"]
        assert few.threshold is None
        assert 20 <= few.rows_missing <= 150

    @pytest.mark.parametrize("weight", [0.0, -1.0, 51.0, math.inf])
    def test_a_weight_outside_its_bound_is_refused(self, weight: float) -> None:
        with pytest.raises(InvalidInputError, match="weight"):
            certify({"a": CategoryEvidence(rows(30, 0), rows(99, 0, weight=weight))})

    def test_false_rejections_at_the_boundary_stay_below_the_level(self) -> None:
        rng = np.random.default_rng(11)
        rejected = 0
        for _ in range(1000):
            # Two strata, sampled with propensity 1 and 1/10; the weighted risk is exactly alpha.
            heavy = rng.random(300) < 0.3
            weights = np.where(heavy, 10.0, 1.0)
            risk = np.where(heavy, 0.04, 0.05 + 0.01 * 0.3 * 10 / 0.7)
            errors = rng.random(300) < risk
            rejected += betting_p_value(errors, weights, alpha=0.05, max_weight=10.0) <= 0.05
        assert rejected / 1000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


class TestLadder:
    def test_each_stricter_alpha_is_a_whole_certification_of_its_own(self) -> None:
        evidence = {
            "a": CategoryEvidence(rows(60, 0), rows(150, 0)),
            "b": CategoryEvidence(rows(30, 1), rows(400, 100)),
        }
        found = certify(evidence)
        # 0 errors: 150 rows prove .05 and (0.98 ** 150 = .048 > .025) not .02, as two categories share delta.
        assert certify_ladder(evidence, found) == {"a": (), "b": ()}
        alone = {"a": evidence["a"]}
        assert certify_ladder(alone, certify(alone)) == {"a": (Rung(0.02, 0.9),)}
        more = {"a": CategoryEvidence(rows(60, 0), rows(299, 0))}
        assert certify_ladder(more, certify(more)) == {"a": (Rung(0.02, 0.9), Rung(0.01, 0.9))}

    def test_only_alphas_below_that_of_the_release_are_tried(self) -> None:
        evidence = {"a": CategoryEvidence(rows(60, 0), rows(400, 0))}
        for alpha, expected in ((0.2, [0.05, 0.02, 0.01]), (0.05, [0.02, 0.01]), (0.01, [])):
            ladder = certify_ladder(evidence, certify(evidence, alpha=alpha), alpha=alpha)["a"]
            assert [rung.alpha for rung in ladder] == expected

    def test_a_stricter_alpha_has_a_stricter_threshold_where_the_errors_lie_low(self) -> None:
        mixed = rows(800, 0, good_score=0.97) + rows(190, 10, good_score=0.95, bad_score=0.95)
        evidence = {"a": CategoryEvidence(mixed, mixed)}
        found = certify(evidence)
        assert found["a"].threshold == 0.95
        # 10 errors in 1,000 prove .02, not .01.
        assert certify_ladder(evidence, found) == {"a": (Rung(0.02, 0.95), Rung(0.01, 0.97))}

    def test_a_category_without_a_threshold_gets_no_rung(self) -> None:
        evidence = {"a": CategoryEvidence(rows(60, 0), rows(299, 0))}
        found = certify(evidence)
        assert len(certify_ladder(evidence, found)["a"]) == 2
        failed = {"a": replace(found["a"], threshold=None)}
        assert certify_ladder(evidence, failed) == {"a": ()}

    def test_a_rung_that_would_serve_more_than_a_laxer_one_is_left_out(self) -> None:
        # Whether at .05 the exam had bad luck or not: what a stricter alpha alone would serve is not served.
        evidence = {"a": CategoryEvidence(rows(60, 0, good_score=0.7), rows(299, 0, good_score=0.7))}
        found = certify(evidence)
        assert found["a"].threshold == 0.7
        assert certify_ladder(evidence, {"a": replace(found["a"], threshold=0.9)}) == {"a": ()}


class TestHandingOn:
    def test_what_a_sure_category_does_not_need_helps_the_next(self) -> None:
        # 61 of 61 rows (p = .044) are too few for a half of delta, and enough once the first has handed its half on.
        evidence = {
            "a": CategoryEvidence(rows(150, 0), rows(400, 0)),
            "b": CategoryEvidence(rows(150, 0), rows(61, 0)),
        }
        assert binomial_cdf(0, 61, 0.05) > 0.025
        found = certify(evidence)
        assert (found["a"].threshold, found["b"].threshold) == (0.9, 0.9)
        assert "<= 0.05" in found["b"].reason

    def test_nothing_is_handed_on_by_what_failed(self) -> None:
        evidence = {
            "a": CategoryEvidence(rows(150, 0), rows(300, 100)),
            "b": CategoryEvidence(rows(150, 0), rows(61, 0)),
        }
        found = certify(evidence)
        assert (found["a"].threshold, found["b"].threshold) == (None, None)
        assert found["b"].rows_missing > 0


RELEASES = 1000
NOISE = 2 * math.sqrt(0.05 * 0.95 / RELEASES)


class TestPromiseOverSimulatedReleases:
    @pytest.mark.parametrize(
        "kinds",
        [
            pytest.param([(0.05, 0.0)] * 3, id="at the boundary with a useless score"),
            pytest.param([(0.06, 0.4), (0.08, 0.7), (0.15, 0.9)], id="above it with a score that ranks a little"),
            pytest.param([(0.01, 0.5), (0.05, 0.0), (0.30, 0.2)], id="good, boundary and hopeless"),
            pytest.param([(0.001, 0.0), (0.05, 0.0), (0.05, 0.0)], id="a sure one hands on to two at the boundary"),
        ],
    )
    def test_any_broken_promise_is_rarer_than_delta(self, kinds: list[tuple[float, float]]) -> None:
        rng = np.random.default_rng(7)
        broken = 0
        for _ in range(RELEASES):
            evidence = {
                str(i): CategoryEvidence(draw(rng, 60, *kind), draw(rng, 200, *kind)) for i, kind in enumerate(kinds)
            }
            certificates = certify(evidence)
            broken += any(
                c.threshold is not None and true_risk(c.threshold, *kinds[int(name)]) >= 0.05
                for name, c in certificates.items()
            )
        assert broken / RELEASES <= 0.05 + NOISE

    @pytest.mark.parametrize(
        ("dev_rows", "kinds"),
        [
            pytest.param(20, [(0.05, 0.0)] * 2, id="at the boundary with a useless score"),
            pytest.param(99, [(0.001, 0.0), (0.056, 0.2)], id="a sure one hands on to one that is good when strict"),
        ],
    )
    def test_with_two_starts_too(self, dev_rows: int, kinds: list[tuple[float, float]]) -> None:
        rng = np.random.default_rng(17)
        broken = 0
        for _ in range(RELEASES):
            evidence = {
                str(i): CategoryEvidence(draw(rng, dev_rows, *kind), draw(rng, 400, *kind))
                for i, kind in enumerate(kinds)
            }
            broken += any(
                c.threshold is not None and true_risk(c.threshold, *kinds[int(name)]) >= 0.05
                for name, c in certify(evidence).items()
            )
        assert broken / RELEASES <= 0.05 + NOISE

    @pytest.mark.parametrize(
        "kinds",
        [
            pytest.param([(0.02, 0.0), (0.01, 0.0)], id="at the stricter boundaries with a useless score"),
            pytest.param([(0.03, 0.9), (0.015, 0.6)], id="above them with a score that ranks"),
            pytest.param([(0.004, 0.5), (0.02, 0.0), (0.30, 0.2)], id="good, boundary and hopeless"),
        ],
    )
    def test_each_alpha_of_the_ladder_breaks_its_promise_more_rarely_than_delta(
        self, kinds: list[tuple[float, float]]
    ) -> None:
        rng = np.random.default_rng(13)
        broken, earned = dict.fromkeys(LADDER_ALPHAS[1:], 0), dict.fromkeys(LADDER_ALPHAS[1:], 0)
        releases = 400
        for _ in range(releases):
            evidence = {
                str(i): CategoryEvidence(draw(rng, 99, *kind), draw(rng, 700, *kind)) for i, kind in enumerate(kinds)
            }
            ladders = certify_ladder(evidence, certify(evidence))
            for alpha in broken:
                rungs = {name: rung for name, ladder in ladders.items() for rung in ladder if rung.alpha == alpha}
                earned[alpha] += bool(rungs)
                broken[alpha] += any(true_risk(r.threshold, *kinds[int(name)]) >= alpha for name, r in rungs.items())
        for alpha, count in broken.items():
            assert count / releases <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / releases)
            # A ladder that is never climbed would keep every promise.
            assert earned[alpha] > 0

    def test_a_student_at_one_percent_is_mostly_certified_with_two_hundred_rows(self) -> None:
        rng = np.random.default_rng(8)
        certified, share = 0, 0.0
        for _ in range(300):
            found = certify({"a": CategoryEvidence(draw(rng, 60, 0.01, 0.3), draw(rng, 200, 0.01, 0.3))})["a"]
            certified += found.threshold is not None
            share += found.local_share / 300
        assert certified / 300 >= 0.8
        assert share >= 0.7

    def test_a_score_that_ranks_well_earns_a_share_where_the_whole_category_could_not(self) -> None:
        rng = np.random.default_rng(9)
        certified = 0
        for _ in range(200):
            dev, exam = (
                [GradedRow((1 + float(u)) / 2, bool(u > 0.3 or rng.random() < 0.3)) for u in rng.random(n)]
                for n in (60, 300)
            )
            certified += certify({"a": CategoryEvidence(dev, exam)})["a"].threshold is not None
        assert certified / 200 >= 0.8
