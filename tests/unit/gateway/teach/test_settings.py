from __future__ import annotations

from decimal import Decimal

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_gateway.teach.settings import (
    Goal,
    Probe,
    TeachSettings,
    change_settings,
    parse_budget,
    parse_goal,
    read_settings,
)


def test_a_goal_is_read_and_written() -> None:
    assert parse_goal("local_share=0.9") == Goal("local_share", 0.9)
    assert str(parse_goal("accuracy=1")) == "accuracy=1"


@pytest.mark.parametrize("text", ["", "local_share", "local_share=0", "accuracy=1.1", "share=0.5", "accuracy=nan"])
def test_a_wrong_goal_says_what_is_allowed(text: str) -> None:
    with pytest.raises(InvalidInputError, match="local_share=X or accuracy=X"):
        parse_goal(text)


@pytest.mark.parametrize("text", ["-1", "nan", "Infinity", "two"])
def test_a_wrong_budget_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="USD"):
        parse_budget(text)


def test_settings_survive_the_journal() -> None:
    settings = TeachSettings(
        goal=Goal("accuracy", 0.7),
        rounds=3,
        budget_usd=Decimal("2.50"),
        categories=("a", "b"),
        planner="claude",
        probes=(Probe("a", "q", "r"),),
    )
    assert read_settings(settings.to_json()) == settings
    assert read_settings(TeachSettings().to_json()) == TeachSettings()
    with pytest.raises(InvalidInputError, match="unknown setting 'x'"):
        read_settings({**TeachSettings().to_json(), "x": 1})


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"floor": 9}, {"examples": 5}, {"tests": 49}, {"categories": ("a", "a")}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        TeachSettings(**wrong)  # type: ignore[arg-type]


def test_a_resume_may_change_limits_but_not_who_plans() -> None:
    settings = TeachSettings(planner="claude")
    assert change_settings(settings, rounds=9, budget_usd=None).rounds == 9
    with pytest.raises(InvalidInputError, match="planner 'claude'"):
        change_settings(settings, planner="rules")
    with pytest.raises(InvalidInputError, match="start a new one"):
        change_settings(settings, model="claude-opus-5-5")
