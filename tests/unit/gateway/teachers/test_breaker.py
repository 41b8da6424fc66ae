from __future__ import annotations

import pytest
from shammah_gateway.teachers.breaker import Breaker, BreakerLimits, Permit
from shammah_gateway.teachers.faults import Fault
from support.guards import Clock

DOWN = Fault("overloaded", "Overloaded", 529, True)
LIMITS = BreakerLimits(failures=3, window_seconds=60, share=0.5, least_calls=10, open_seconds=10, max_open_seconds=35)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("claude", LIMITS, clock=clock)


def enter(breaker: Breaker) -> Permit:
    permit = breaker.enter()
    assert permit is not None
    return permit


def fail(breaker: Breaker, times: int = 1, fault: Fault = DOWN) -> None:
    for _ in range(times):
        enter(breaker).fail(fault)


def test_failures_in_a_row_open_it_and_it_says_why(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert (breaker.state, breaker.reason) == ("closed", "")
    fail(breaker)
    assert breaker.state == "open"
    assert breaker.enter() is None
    assert breaker.reason == (
        "3 failures in a row; the last fault: overloaded (HTTP 529): Overloaded; next try in 10 s"
    )


def test_a_success_between_ends_the_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    enter(breaker).succeed()
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_faults_of_the_request_itself_do_not_count(breaker: Breaker) -> None:
    fail(breaker, 20, Fault("invalid", status=400))
    assert breaker.state == "closed"


def test_a_share_of_failures_in_the_window_opens_it(breaker: Breaker) -> None:
    for _ in range(5):
        enter(breaker).succeed()
        fail(breaker)
    assert breaker.state == "open"
    assert breaker.reason.startswith("5 of 10 calls failed within 60 s")


def test_failures_of_an_older_window_are_forgotten(breaker: Breaker, clock: Clock) -> None:
    for _ in range(4):
        enter(breaker).succeed()
        fail(breaker)
    clock.now += 61
    enter(breaker).succeed()
    fail(breaker)
    assert breaker.state == "closed"


def test_after_its_time_one_call_is_tried_and_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 9.9
    assert breaker.enter() is None
    clock.now += 0.1
    assert breaker.state == "half_open"
    trial = enter(breaker)
    assert breaker.enter() is None
    assert "one call is tried" in breaker.reason
    trial.succeed()
    assert (breaker.state, breaker.reason) == ("closed", "")
    assert breaker.enter() is not None


def test_a_failed_trial_opens_it_for_twice_as_long_up_to_a_bound(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    waits = []
    for _ in range(4):
        waits.append(breaker.wait_seconds)
        clock.now += breaker.wait_seconds
        fail(breaker)
    assert waits == [10, 20, 35, 35]
    assert breaker.reason.startswith("the trial call failed")


def test_a_close_starts_again_with_the_short_time(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    fail(breaker)
    clock.now += 20
    enter(breaker).succeed()
    fail(breaker, 3)
    assert breaker.wait_seconds == 10


@pytest.mark.parametrize(("asked", "wait"), [(5.0, 10), (25.0, 25), (300.0, 35)])
def test_the_servers_own_wait_is_kept_up_to_the_bound(breaker: Breaker, asked: float, wait: float) -> None:
    fail(breaker, 3, Fault("rate_limit", "", 429, True, asked))
    assert breaker.wait_seconds == wait


def test_a_trial_whose_caller_left_makes_room_for_another(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    enter(breaker).drop()
    assert breaker.enter() is not None


def test_a_trial_that_is_never_reported_does_not_block_for_ever(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    enter(breaker)
    assert breaker.enter() is None
    clock.now += 35
    assert breaker.enter() is not None


def test_a_call_from_before_it_opened_says_nothing_about_now(breaker: Breaker, clock: Clock) -> None:
    early, late = enter(breaker), enter(breaker)
    fail(breaker, 3)
    early.succeed()
    assert breaker.state == "open"
    clock.now += 10
    trial = enter(breaker)
    late.succeed()
    assert breaker.enter() is None
    trial.fail(DOWN)
    assert breaker.state == "open"


def test_the_first_report_of_a_call_counts(breaker: Breaker) -> None:
    for _ in range(3):
        permit = enter(breaker)
        permit.fail(DOWN)
        permit.succeed()
    assert breaker.state == "open"
