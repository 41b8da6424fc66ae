"""Words for settings that nobody knows."""

from __future__ import annotations

import pytest
from shammah_chassis.setting_names import describe_unknown, find_unknown

KNOWN = ["SHAMMAH_GENERATOR_SLOTS", "SHAMMAH_GENERATOR_THREADS", "SHAMMAH_TRAINER_SFT_EPOCHS"]


def test_names_of_any_case_are_known_and_others_than_the_prefix_are_no_matter() -> None:
    given = ["shammah_generator_slots", "SHAMMAH_GENERATOR_SLOTS", "Shammah_Generator_Slot", "PATH", "SHAMMA_X"]
    assert find_unknown(given, "SHAMMAH_", KNOWN) == ["Shammah_Generator_Slot"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SHAMMAH_GENERTOR_SLOTS", "SHAMMAH_GENERATOR_SLOTS"),
        ("SHAMMAH_TRAINER_SFT_EPOCS", "SHAMMAH_TRAINER_SFT_EPOCHS"),
        ("SHAMMAH_SFT_EPOCHS", "SHAMMAH_TRAINER_SFT_EPOCHS"),
        ("shammah_generator_slot", "SHAMMAH_GENERATOR_SLOTS"),
    ],
)
def test_the_nearest_known_name_comes_first_and_is_enough(name: str, near: str) -> None:
    told = describe_unknown([name], KNOWN, "allowed: others")
    assert told.startswith(f"unknown setting {name} (nearest: {near}")
    assert "allowed" not in told


def test_what_is_near_to_nothing_is_told_what_is_allowed() -> None:
    told = describe_unknown(["SHAMMAH_GENERTOR_SLOTS", "SHAMMAH_COLOUR"], KNOWN, "allowed: others")
    assert told.startswith("unknown setting SHAMMAH_GENERTOR_SLOTS (nearest: SHAMMAH_GENERATOR_SLOTS")
    assert told.endswith("), SHAMMAH_COLOUR; allowed: others")
