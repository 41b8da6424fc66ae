"""`shammah mcp`: MCP over standard input and output, passed on message by message to the running gateway's /mcp.

There is no second registry: what is listed and called is the gateway's. It imports neither the MCP SDK nor any model,
so it starts at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import Callable
from typing import Any

from shammah_chassis.errors import ShammahError

from shammah_gateway.mcp.endpoint import Endpoint
from shammah_gateway.mcp.link import Link, Message
from shammah_gateway.mcp.pipes import Pipes
from shammah_gateway.mcp.wire import VERSION_META, is_modern, read_meta
from shammah_gateway.mcp.words import ERROR_CODE_META, REQUEST_ID_META

CALL = "tools/call"
CANCELLED = "notifications/cancelled"
# JSON-RPC: "Parse error", "Invalid Request", and the first code that servers may define themselves.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
REFUSED = -32000
# A client that closes its side may still read for so long.
LAST_SECONDS = 1.0


async def serve_stdio(find: Callable[[], Endpoint], pipes: Pipes) -> None:
    """Serve until the client closes; calls that still run then leave their jobs running."""
    link = Link(find)
    shim = Shim(link, pipes)
    try:
        async for line in pipes.lines():
            await shim.take(line)
        await shim.finish()
    finally:
        await link.close()


class Shim:
    """What is between one client and one link."""

    def __init__(self, link: Link, pipes: Pipes) -> None:
        self._link = link
        self._pipes = pipes
        self._running: dict[str, tuple[Message, asyncio.Task[None]]] = {}
        self._told = ""

    async def take(self, line: bytes) -> None:
        """Handle one line. Requests run beside each other; the handshake and notifications keep their order."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._write_error(None, PARSE_ERROR, "this line is no JSON")
            return
        if not isinstance(message, dict):
            self._write_error(None, INVALID_REQUEST, "one JSON-RPC message a line; batches are not supported")
        elif "id" not in message or "method" not in message:
            await self._notify(message)
        elif message["method"] == "initialize":
            await self._answer(message)
        else:
            message = with_request_id(message)
            task = asyncio.create_task(self._answer(message), name=str(message["method"]))
            key = _key(message["id"])
            self._running[key] = (message, task)
            task.add_done_callback(lambda ended: self._forget(key, ended))

    async def finish(self) -> None:
        """Wait a moment for what runs, then give it up."""
        tasks = [task for _, task in self._running.values()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=LAST_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _answer(self, message: Message) -> None:
        try:
            async for answer in self._link.send(message):
                self._pipes.write(_to_line(answer))
        except (ShammahError, ValueError) as error:
            self._refuse(message, error if isinstance(error, ShammahError) else ShammahError(f"no JSON came: {error}"))

    async def _notify(self, message: Message) -> None:
        if message.get("method") == CANCELLED:
            await self._cancel(message)
            return
        # A notification is never answered, so there is nobody to tell.
        with contextlib.suppress(ShammahError, ValueError):
            async for _ in self._link.send(message):
                pass

    async def _cancel(self, message: Message) -> None:
        """Pass a cancellation on. In the era without sessions it names the call by the request id that we gave it."""
        params = message.get("params")
        number = params.get("requestId") if isinstance(params, dict) else None
        called, task = self._running.get(_key(number), (None, None))
        if called is None or task is None:
            return
        if is_modern(called):
            meta = {
                name: read_meta(called)[name] for name in (VERSION_META, REQUEST_ID_META) if name in read_meta(called)
            }
            message = {**message, "params": {**params, "_meta": meta}} if isinstance(params, dict) else message
        with contextlib.suppress(ShammahError, ValueError):
            async for _ in self._link.send(message):
                pass
        task.cancel()

    def _refuse(self, message: Message, error: ShammahError) -> None:
        """Tell the client what is wrong: of a call as the tool's result, which the model reads; else as an error."""
        if error.message != self._told:
            self._told = error.message
            print(f"shammah mcp: {error.message}", file=sys.stderr, flush=True)
        if message["method"] != CALL:
            self._write_error(message["id"], REFUSED, error.message)
            return
        result = {
            "content": [{"type": "text", "text": f"{error.code}: {error.message}"}],
            "isError": True,
            "resultType": "complete",
            "_meta": {ERROR_CODE_META: error.code},
        }
        self._pipes.write(_to_line({"jsonrpc": "2.0", "id": message["id"], "result": result}))

    def _write_error(self, number: object, code: int, words: str) -> None:
        self._pipes.write(_to_line({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": words}}))

    def _forget(self, key: str, task: asyncio.Task[None]) -> None:
        if key in self._running and self._running[key][1] is task:
            del self._running[key]


def with_request_id(message: Message) -> Message:
    """Return a tool call with a request id, its own or a new one; other messages as they are.

    By it the call can be sent again after the gateway was started again, and cancelled.
    """
    params = message.get("params")
    if message["method"] != CALL or not isinstance(params, dict) or REQUEST_ID_META in read_meta(message):
        return message
    meta = {**read_meta(message), REQUEST_ID_META: f"stdio-{uuid.uuid4().hex}"}
    return {**message, "params": {**params, "_meta": meta}}


def _key(number: Any) -> str:  # noqa: ANN401 - whatever a client sends as an id
    return json.dumps(number)


def _to_line(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
