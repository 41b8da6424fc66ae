"""Between the pass-through, which speaks the Messages API, and a client of chat completions: ASGI messages, translated.

The pass-through is given one of these as its `send`. It knows no cascade and no money.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Send

from shammah_gateway.http.headers import OWN_PREFIX
from shammah_gateway.http.openai_stream import ChunkTranslator

# What an upstream's error status is to a client of OpenAI: status, type, code. Any other 5xx is a server_error.
_ERRORS: Mapping[int, tuple[int, str, str]] = {
    402: (429, "insufficient_quota", "insufficient_quota"),
    404: (404, "invalid_request_error", "model_not_found"),
    429: (429, "rate_limit_error", "rate_limit_exceeded"),
    504: (504, "server_error", "timeout"),
    529: (503, "server_error", "overloaded"),
}
# An error about the gateway's own key is not the caller's: a 401 would blame the wrong one.
OF_OUR_KEY = frozenset({401, 403})
# No other try mends a key.
NO_RETRY: Mapping[str, str] = {"x-should-retry": "false"}
_KEPT = (b"retry-after", b"retry-after-ms", b"x-should-retry")
_STREAM_HEADERS = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))


@dataclass(slots=True)
class WholeReply:
    """Takes a reply as a whole, instead of sending it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    _parts: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """All of the body."""
        return b"".join(self._parts)

    async def send(self, message: Message) -> None:
        """Be an ASGI send."""
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            pairs = _keep(message["headers"], _KEPT)
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
        else:
            self._parts.append(message.get("body", b""))


class TranslatedStream:
    """Sends a stream on in the other protocol, each piece at once. `headers` are added to the reply's."""

    def __init__(self, send: Send, translator: ChunkTranslator, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._translator = translator
        self._headers = headers
        self._open = False

    async def send(self, message: Message) -> None:
        """Be an ASGI send."""
        if message["type"] == "http.response.start":
            headers = [*_STREAM_HEADERS, *_keep(message["headers"], ()), *self._headers]
            self._open = True
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            return
        chunk = self._translator.feed(message.get("body", b""))
        if message.get("more_body", False):
            if chunk:
                await self._write(chunk, more=True)
        else:
            await self._end(chunk)

    async def end(self) -> None:
        """End a stream that was left open: it broke in the middle of an event. A client that is gone gets nothing."""
        await self._end(b"")

    async def _end(self, chunk: bytes) -> None:
        if self._open:
            self._open = False
            await self._write(chunk + self._translator.close(), more=False)

    async def _write(self, chunk: bytes, *, more: bool) -> None:
        body: MutableMapping[str, Any] = {"type": "http.response.body", "body": chunk, "more_body": more}
        await self._send(body)


def translate_error(status: int, body: bytes, *, own_key: bool) -> tuple[int, dict[str, Any]]:
    """Return status and envelope of an upstream's error as OpenAI tells it; its message stays as it is."""
    try:
        error = json.loads(body)["error"]
        told, kind = str(error["message"]), str(error.get("type") or "api_error")
    except (ValueError, KeyError, TypeError, AttributeError):
        told, kind = body[:300].decode("utf-8", "replace") or f"the teacher answered with status {status}", "api_error"
    if status in OF_OUR_KEY and own_key:
        return 502, _envelope(f"the teacher refused the gateway's key: {told}", "server_error", "teacher_auth")
    known = _ERRORS.get(status) or (status, "server_error" if status >= 500 else "invalid_request_error", kind)
    return known[0], _envelope(told, known[1], known[2])


def _envelope(message: str, kind: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _keep(headers: Sequence[tuple[bytes, bytes]], names: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    own = OWN_PREFIX.encode("latin-1")
    return [(name, value) for name, value in headers if (low := name.lower()) in names or low.startswith(own)]
