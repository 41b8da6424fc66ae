from __future__ import annotations

import json

import pytest
from shammah_chassis.errors import ArtifactError
from shammah_chassis.releases import CategoryPolicy, Release, Rung, parse_release
from shammah_chassis.ulid import new_ulid


def release(*ladder: Rung, threshold: float | None = 0.8, alpha: float = 0.05) -> Release:
    policy = CategoryPolicy(threshold=threshold, ladder=ladder)
    return Release(new_ulid(), "", 1.0, "r", "g", "v", "promote", {"math": policy}, alpha=alpha)


def test_a_release_is_read_back_as_it_was_written() -> None:
    made = release(Rung(0.02, 0.9), Rung(0.01, 0.95))
    assert parse_release(made.to_json()) == made


def test_a_release_from_before_the_ladder_certifies_its_own_alpha_only() -> None:
    raw = json.loads(release(Rung(0.02, 0.9)).to_json())
    del raw["categories"]["math"]["ladder"]
    old = parse_release(json.dumps(raw))
    assert old.threshold_of("math") == old.threshold_of("math", 0.05) == 0.8
    assert old.threshold_of("math", 0.049) is None


def test_rungs_are_looked_up_from_lax_to_strict_whatever_their_order_in_the_file() -> None:
    made = parse_release(release(Rung(0.01, 0.95), Rung(0.02, 0.9)).to_json())
    assert [made.threshold_of("math", alpha) for alpha in (0.03, 0.02, 0.019, 0.01, 0.005)] == [
        0.9,
        0.9,
        0.95,
        0.95,
        None,
    ]


def test_an_unknown_category_and_one_without_a_threshold_have_none() -> None:
    assert release().threshold_of("poems") is None
    assert release(threshold=None).threshold_of("math") is None


@pytest.mark.parametrize("ladder", [[{"alpha": 0.02}], [3], 3, [{"alpha": 0.02, "threshold": 0.9, "more": 1}]])
def test_a_broken_ladder_is_refused(ladder: object) -> None:
    raw = json.loads(release().to_json())
    raw["categories"]["math"]["ladder"] = ladder
    with pytest.raises(ArtifactError):
        parse_release(json.dumps(raw))
