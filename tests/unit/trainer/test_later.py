"""Work begun early: its result is taken where it is wanted, its error is never lost, and nothing is left running."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from shammah_chassis.errors import ArtifactError
from shammah_trainer.ahead import Ahead
from shammah_trainer.later import Later
from shammah_trainer.rollouts import RolloutSettings

SETTINGS = RolloutSettings(precision="fp32", threads=1, slots=2, context=64)


def test_a_result_can_be_taken_more_than_once_and_closing_waits_for_it() -> None:
    gate = threading.Event()
    later = Later(gate.wait, name="test")
    gate.set()
    assert later.take() and later.take() and later.settle()
    later.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test")]


def test_an_error_comes_where_the_result_is_taken() -> None:
    def fail() -> int:
        raise ArtifactError("broken")

    later = Later(fail, name="test")
    assert not later.settle()
    with pytest.raises(ArtifactError, match="broken"):
        later.take()
    later.close()


def test_a_model_that_was_begun_is_handed_over_once(tiny_generator: Path) -> None:
    ahead = Ahead(SETTINGS)
    ahead.begin(tiny_generator)
    ahead.begin(tiny_generator)
    first, second = ahead.load(tiny_generator), ahead.load(tiny_generator)
    assert first is not second
    assert first.prompts_a_turn == SETTINGS.slots
    first.close()
    second.close()
    ahead.close()


def test_a_load_that_failed_early_is_tried_again_and_says_why(tmp_path: Path) -> None:
    ahead = Ahead(SETTINGS)
    ahead.begin(tmp_path / "nothing")
    with pytest.raises(ArtifactError):
        ahead.load(tmp_path / "nothing")
    ahead.begin(tmp_path / "nothing")
    ahead.close()  # nobody wanted it: no error
