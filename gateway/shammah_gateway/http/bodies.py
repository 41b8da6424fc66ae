"""Bodies over bare ASGI: read one within its limit, send a whole one. For the routes that go past the framework."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Send

from shammah_gateway.http.door import check_length, too_large
from shammah_gateway.http.errors import Failure
from shammah_gateway.http.json_text import write_json


async def read_body(receive: Receive, content_length: str, limit: int) -> bytes:
    """Return the body of a request.

    Raises:
        TooLargeError: beyond `limit` bytes; before all of it was read. ClientDisconnect: the client went away.
    """
    check_length(content_length, limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise too_large(limit)
        return body
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


async def send_whole(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a reply with a body that is known."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, value: object, headers: Mapping[str, str]) -> None:
    """Send a JSON value."""
    await send_whole(send, 200, write_json(value), {"content-type": "application/json", **headers})


async def send_stream(send: Send, events: bytes, headers: Mapping[str, str]) -> None:
    """Send events that are all there already."""
    found = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", **headers}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    await send({"type": "http.response.body", "body": events})


async def send_failure(send: Send, failure: Failure) -> None:
    """Send an error."""
    await send_whole(send, failure.status, failure.body, failure.headers)
