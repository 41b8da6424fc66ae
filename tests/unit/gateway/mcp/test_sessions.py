"""Sessions by caller: few for each, the longest unused makes room, nobody's fill the place of another's."""

from __future__ import annotations

import asyncio

import pytest
from shammah_chassis.errors import OverloadedError
from shammah_gateway.mcp.sessions import Sessions


class Ended(list[str]):
    """What was ended."""

    async def __call__(self, session: str) -> None:
        self.append(session)


async def test_the_longest_unused_session_makes_room() -> None:
    sessions, ended = Sessions(2), Ended()
    for name in ("a", "b"):
        async with sessions.opening("ann", ended) as note:
            note(name)
    sessions.use("ann", "a")
    async with sessions.opening("bob", ended) as note:
        note("of bob")
    assert ended == []
    async with sessions.opening("ann", ended) as note:
        note("c")
    assert ended == ["b"]
    sessions.drop("ann", "a")
    async with sessions.opening("ann", ended) as note:
        note("d")
    assert ended == ["b"]


async def test_a_session_of_another_caller_is_neither_used_nor_dropped() -> None:
    sessions, ended = Sessions(1), Ended()
    async with sessions.opening("ann", ended) as note:
        note("a")
    sessions.use("bob", "a")
    sessions.drop("bob", "a")
    async with sessions.opening("ann", ended):
        pass
    assert ended == ["a"]


async def test_openings_that_do_not_end_are_bounded_and_those_that_fail_take_no_place() -> None:
    sessions, ended = Sessions(2), Ended()
    go = asyncio.Event()

    async def open_slowly() -> None:
        async with sessions.opening("ann", ended):
            await go.wait()

    slow = [asyncio.create_task(open_slowly()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="2 sessions of yours are being opened"):
        async with sessions.opening("ann", ended):
            pass
    go.set()
    await asyncio.gather(*slow)
    async with sessions.opening("ann", ended) as note:
        note("a")
    assert ended == []


async def test_an_open_session_is_counted_once_while_its_first_answer_is_on_its_way() -> None:
    sessions, ended = Sessions(2), Ended()
    async with sessions.opening("ann", ended) as note:
        note("a")
        async with sessions.opening("ann", ended) as other:
            other("b")
    assert ended == []
