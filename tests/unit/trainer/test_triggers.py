"""When a round starts by itself."""

from __future__ import annotations

from shammah_trainer.triggers import Triggers


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Triggers, Clock]:
    clock = Clock()
    made = Triggers(batch_size=32, max_wait_seconds=600, cooldown_seconds=60, settle_seconds=2, clock=clock)
    return made, clock


def test_a_full_batch_starts_once_no_more_rows_stream_in() -> None:
    triggers, clock = make()
    assert not triggers.should_start(31)
    assert not triggers.should_start(40)
    clock.now += 1
    assert not triggers.should_start(50)
    clock.now += 2
    assert triggers.should_start(50)


def test_few_rows_start_a_round_after_the_longest_wait() -> None:
    triggers, clock = make()
    assert not triggers.should_start(3)
    clock.now += 599
    assert not triggers.should_start(3)
    clock.now += 1
    assert triggers.should_start(3)


def test_nothing_new_never_starts_a_round() -> None:
    triggers, clock = make()
    for _ in range(10):
        assert not triggers.should_start(0)
        clock.now += 10_000


def test_the_cooldown_is_kept_and_grows_with_failures() -> None:
    triggers, clock = make()
    triggers.should_start(40)
    for failed, pause in ((False, 60), (True, 120), (True, 240), (False, 60)):
        triggers.note_end(failed=failed)
        clock.now += pause - 1
        assert not triggers.should_start(40)
        clock.now += 1
        assert triggers.should_start(40)


def test_rows_that_never_cease_do_not_keep_a_round_waiting() -> None:
    triggers, clock = make()
    started = 0
    for rows in range(1, 200):
        if triggers.should_start(rows):
            started = rows
            break
        clock.now += 1
    assert started == 32 + 5 * 2
