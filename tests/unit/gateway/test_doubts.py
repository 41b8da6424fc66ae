"""What the champion's router says of queries in a pool."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from shammah_chassis.errors import OverloadedError
from shammah_gateway.tools.doubts import make_doubts
from support.gateway import OneRelease, ScriptedRoles, make_release


def context(**parts: Any) -> Any:
    """The parts of a tool's context that are asked."""
    return SimpleNamespace(
        **{"roles": ScriptedRoles(), "releases": OneRelease(make_release()), "role_timeout_seconds": 1.0} | parts
    )


async def test_the_router_is_asked_of_each_query_in_order() -> None:
    asked = context()
    sure = asked.roles.routed.local_probability
    assert await make_doubts(asked)(["a", "b", "c"]) == pytest.approx([1 - sure] * 3)


async def test_nobody_knows_without_a_release_or_a_router() -> None:
    assert await make_doubts(context(releases=OneRelease(None)))(["a"]) is None

    class Full(ScriptedRoles):
        async def route(self, release: str, query: str, *, timeout: float) -> Any:
            if query == "b":
                raise OverloadedError("full")
            return await super().route(release, query, timeout=timeout)

    assert await make_doubts(context(roles=Full()))(["a", "b", "c"]) is None


async def test_the_same_query_is_asked_once() -> None:
    asked = context()
    doubt = make_doubts(asked)
    await doubt(["a", "b"])
    asked.roles.routed = replace(asked.roles.routed, local_probability=0.0)
    first, again, new = await doubt(["a", "b", "c"]) or ()
    assert first == again != new == 1.0


async def test_a_router_that_hangs_is_not_waited_for() -> None:
    class Stuck(ScriptedRoles):
        async def route(self, release: str, query: str, *, timeout: float) -> Any:
            await asyncio.Event().wait()

    assert await make_doubts(context(roles=Stuck(), role_timeout_seconds=0.01))(["a"]) is None
