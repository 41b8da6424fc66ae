"""The lease: one holder at a time, expiry, and a fencing token that grows."""

from __future__ import annotations

import asyncio

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.errors import ConflictError
from shammah_chassis.lease import Lease


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lease(bus: Bus, holder: str, clock: Clock) -> Lease:
    return Lease(bus, holder=holder, ttl_seconds=30.0, clock=clock)


async def test_a_second_holder_is_refused_and_told_who_has_it(bus: Bus, clock: Clock) -> None:
    await lease(bus, "one", clock).acquire()
    with pytest.raises(ConflictError, match=r"held by one for 30\.0 s"):
        await lease(bus, "two", clock).acquire()


async def test_an_expired_lease_passes_on_with_a_greater_token(bus: Bus, clock: Clock) -> None:
    one, two = lease(bus, "one", clock), lease(bus, "two", clock)
    first = await one.acquire()
    clock.now += 31.0
    second = await two.acquire()
    assert second > first
    with pytest.raises(ConflictError):
        await one.renew()
    assert one.token == 0


async def test_a_renewed_lease_does_not_expire_and_keeps_its_token(bus: Bus, clock: Clock) -> None:
    one = lease(bus, "one", clock)
    token = await one.acquire()
    clock.now += 20.0
    await one.renew()
    clock.now += 20.0
    with pytest.raises(ConflictError):
        await lease(bus, "two", clock).acquire()
    assert one.token == token


async def test_a_released_lease_is_free_at_once_and_tokens_still_grow(bus: Bus, clock: Clock) -> None:
    one = lease(bus, "one", clock)
    first = await one.acquire()
    await one.release()
    assert await lease(bus, "two", clock).acquire() > first


async def test_a_restarted_holder_takes_its_own_lease_again(bus: Bus, clock: Clock) -> None:
    first = await lease(bus, "one", clock).acquire()
    assert await lease(bus, "one", clock).acquire() > first


async def test_of_many_that_try_at_once_one_wins(bus: Bus, clock: Clock) -> None:
    outcomes = await asyncio.gather(
        *(lease(bus, f"holder{index}", clock).acquire() for index in range(8)), return_exceptions=True
    )
    assert len([outcome for outcome in outcomes if isinstance(outcome, int)]) == 1
    assert len([outcome for outcome in outcomes if isinstance(outcome, ConflictError)]) == 7


async def test_a_lease_that_cannot_be_read_can_be_taken(bus: Bus, clock: Clock) -> None:
    await bus.kv_create("lease_trainer", "garbage")
    assert await lease(bus, "one", clock).acquire() > 0
