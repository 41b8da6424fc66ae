"""A strict local stand-in of the Messages API: it refuses what the real one refuses, and fails on demand.

Rules from public documentation of version 2026-10-21: no sampling fields, no forced tool choice, no prefill, a key in
one of two headers, a known version header, max_tokens, and a schema that allows no additional properties.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

VERSIONS = ("2023-06-01", "2026-10-21")
FIELDS = {
    *("model", "max_tokens", "messages", "system", "stop_sequences", "stream", "metadata"),
    *("output_config", "tools", "tool_choice", "thinking", "service_tier"),
}


@dataclass
class MessagesStub:
    """What it answers, and what it was asked. `faults` are used up one a request, then it answers normally."""

    key: str = "right-key"
    text: str = "Paris"
    stop_reason: str | None = "end_turn"
    faults: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def respond(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of a request."""
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if key != self.key:
            return 401, _error("authentication_error", "invalid x-api-key")
        if headers.get("anthropic-version") not in VERSIONS:
            return 400, _error("invalid_request_error", "anthropic-version: unknown")
        request = json.loads(body)
        self.requests.append(request)
        if problem := check(request):
            return 400, _error("invalid_request_error", problem)
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            return int(fault), _error("api_error", f"told to fail with {fault}")
        return 200, self._message(request)

    def _message(self, request: dict[str, Any]) -> dict[str, Any]:
        content = [] if self.stop_reason == "refusal" else [{"type": "text", "text": self.text}]
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": content,
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": 12, "output_tokens": 3},
        }


def check(request: dict[str, Any]) -> str:
    """Return what the real API would refuse; "" when nothing."""
    extra = sorted(set(request) - FIELDS)
    if extra:
        return f"{extra[0]}: Extra inputs are not permitted"
    if not isinstance(request.get("max_tokens"), int) or request["max_tokens"] < 1:
        return "max_tokens: Field required"
    if request.get("tool_choice", {}).get("type") in ("any", "tool"):
        return "tool_choice: forced tool use is not supported"
    turns = request.get("messages", [])
    if not turns or turns[-1]["role"] != "user":
        return "messages: the last one must be of the user (no prefill)"
    if any(turn["role"] not in ("user", "assistant") or not turn["content"] for turn in turns):
        return "messages: role or content is wrong"
    form = request.get("output_config", {}).get("format")
    if form is not None and (form.get("type") != "json_schema" or form["schema"].get("additionalProperties", True)):
        return "output_config.format: additionalProperties must be false"
    return ""


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


@asynccontextmanager
async def serve_messages() -> AsyncIterator[MessagesStub]:
    """Serve the stub on a free loopback port."""
    stub = MessagesStub()
    server = await asyncio.start_server(lambda reader, writer: _handle(stub, reader, writer), "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stub
    finally:
        stub.hold.set()
        server.close()


async def _handle(stub: MessagesStub, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(":", 1) for line in head[1:] if ":" in line)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if stub.faults[:1] == ["hang"]:
            stub.faults.pop(0)
            await stub.hold.wait()
        if stub.faults[:1] == ["drop"]:
            stub.faults.pop(0)
            return
        method, path, _ = head[0].split(" ", 2)
        known = method == "POST" and path.split("?")[0] == "/v1/messages"
        status, reply = stub.respond(headers, body) if known else (404, _error("not_found_error", path))
        data = json.dumps(reply).encode()
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}"]
        # The real API asks for long pauses: a client that believes it would sleep for minutes.
        lines += ["retry-after: 300", "connection: close", "", ""]
        writer.write("\r\n".join(lines).encode() + data)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
