from __future__ import annotations

import pytest
from shammah_chassis.errors import UnavailableError
from shammah_gateway.teachers.breaker import Breaker, BreakerLimits
from shammah_gateway.teachers.faults import lose_connection, read_fault
from shammah_gateway.teachers.upstreams import Upstream, Upstreams
from support.guards import Clock

FIRST = Upstream(name="anthropic", protocol="messages", base_url="https://one", headers={"x-api-key": "secret"})
SECOND = Upstream(name="anthropic_backup", protocol="messages", base_url="https://two")
CHAT = Upstream(name="openai", protocol="chat", base_url="http://three/v1", model="open-1")
LIMITS = BreakerLimits(failures=2, open_seconds=10)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, *, only_first: bool = False) -> Upstreams:
    pairs = [(upstream, Breaker(upstream.name, LIMITS, clock=clock)) for upstream in (FIRST, SECOND, CHAT)]
    return Upstreams(pairs, only_first=only_first)


def test_the_first_that_speaks_the_protocol_is_chosen(clock: Clock) -> None:
    upstreams = make(clock)
    assert upstreams.choose().upstream is FIRST
    assert upstreams.choose("chat").upstream is CHAT


def test_one_that_failed_for_this_request_is_not_chosen_again(clock: Clock) -> None:
    upstreams = make(clock)
    call = upstreams.choose()
    call.fail(lose_connection("refused"))
    assert upstreams.choose(tried=["anthropic"]).upstream is SECOND
    with pytest.raises(UnavailableError, match="anthropic: failed just now, connection: refused"):
        upstreams.choose(tried=["anthropic", "anthropic_backup"])


def test_one_that_keeps_failing_is_passed_over_until_its_time(clock: Clock) -> None:
    upstreams = make(clock)
    fault = read_fault(529, {})
    assert fault is not None
    for _ in range(2):
        upstreams.choose().fail(fault)
    assert upstreams.choose().upstream is SECOND
    assert [state.state for state in upstreams.states()] == ["open", "closed", "closed"]
    assert "2 failures in a row" in upstreams.states()[0].reason
    clock.now += 10
    trial = upstreams.choose()
    assert trial.upstream is FIRST
    assert upstreams.choose().upstream is SECOND
    trial.succeed()
    assert upstreams.choose().upstream is FIRST


def test_a_client_that_hangs_up_says_nothing_about_the_server(clock: Clock) -> None:
    upstreams = make(clock)
    for _ in range(5):
        upstreams.choose().drop()
    assert upstreams.choose().upstream is FIRST


def test_when_all_are_left_alone_the_error_says_why_and_when(clock: Clock) -> None:
    upstreams = make(clock)
    for wanted in ("messages", "messages", "messages", "messages"):
        upstreams.choose(wanted).fail(lose_connection("refused"))  # type: ignore[arg-type]
    with pytest.raises(UnavailableError, match=r"anthropic: 2 failures.*anthropic_backup: 2 failures") as caught:
        upstreams.choose()
    assert caught.value.retry_after_seconds == 10


def test_a_clients_own_key_is_shown_to_the_first_only(clock: Clock) -> None:
    upstreams = make(clock, only_first=True)
    upstreams.choose().fail(lose_connection("refused"))
    with pytest.raises(UnavailableError):
        upstreams.choose(tried=["anthropic"])


def test_without_one_of_the_protocol_it_says_so(clock: Clock) -> None:
    with pytest.raises(UnavailableError, match="chat"):
        Upstreams([(FIRST, Breaker("anthropic", clock=clock))]).choose("chat")


def test_a_key_is_not_shown_in_a_log() -> None:
    assert "secret" not in repr(FIRST)
