"""Which call a posted cancellation names, and what becomes of calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shammah_chassis.scopes import Caller
from shammah_gateway.mcp.calls import Call, Calls, Key, request_key, session_key
from shammah_gateway.mcp.cancelling import read_cancelled
from shammah_gateway.mcp.words import REQUEST_ID_META
from support.services import until

OWNER = Caller("owner", frozenset({"train"}))


def cancelled(**params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).encode()


@pytest.mark.parametrize(
    ("body", "session", "key"),
    [
        (cancelled(requestId=3), "S", session_key(OWNER, "S", 3)),
        (cancelled(requestId="3"), "S", session_key(OWNER, "S", 3)),
        (cancelled(requestId=3, _meta={REQUEST_ID_META: "mine"}), "", request_key(OWNER, "mine")),
        (cancelled(requestId=3), "", None),
        (cancelled(requestId=None), "S", None),
        (cancelled(requestId=3, _meta={REQUEST_ID_META: 5}), "", None),
        (b'{"method": "notifications/cancelled", "id": 1, "params": {"requestId": 3}}', "S", None),
        (b'{"method": "tools/call", "params": {"name": "notifications/cancelled"}}', "S", None),
        (b'["notifications/cancelled"]', "S", None),
        (b'{"notifications/cancelled', "S", None),
        (b"[" * 100_000 + b'"notifications/cancelled"', "S", None),
    ],
)
def test_a_cancellation_names_a_call_or_none(body: bytes, session: str, key: Key | None) -> None:
    assert read_cancelled(body, OWNER, session) == key


async def test_only_a_cancelled_call_has_its_job_stopped() -> None:
    stopped: list[str] = []

    async def stop_job(caller: Caller, tool: str, request_id: str) -> None:
        stopped.append(request_id)

    calls, ended = Calls(stop_job), list[str]()

    def begin(name: str) -> Call:
        call = Call(
            caller=OWNER,
            tool="train",
            request_id=name,
            keys=(request_key(OWNER, name),),
            cancel=lambda: ended.append(name),
        )
        calls.begin(call)
        return call

    first, second, third = begin("a"), begin("b"), begin("c")
    assert calls.cancel(request_key(OWNER, "a")) and ended == ["a"]
    assert not calls.cancel(request_key(Caller("other", frozenset()), "b"))
    calls.end(first)
    calls.end(second)
    await until(lambda: stopped == ["a"])
    assert not calls.cancel(request_key(OWNER, "a"))
    # At the stop of the gateway a call is given up, but nobody cancelled its work.
    await calls.close()
    assert ended == ["a", "c"]
    calls.end(third)
    await calls.close()
    assert stopped == ["a"]
