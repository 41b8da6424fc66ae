"""A local stand-in of an OpenAI-style server that fails on demand. What it refuses: a wrong key, a path it has not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from support.messages_http import Call, Wire, serve


@dataclass
class ChatStub:
    """What it answers, and what it was asked.

    `faults` are used up one a request: "429" (asks to wait 300 s), "500", ...; "drop" (no reply); "short" (the socket
    closes before the announced length); "half" (a whole reply whose JSON is cut); "empty" (a JSON that is no
    completion); "hang" (waits for `hold`).
    """

    key: str = ""
    text: str | None = "Paris"
    finish: str | None = "stop"
    message: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 12, "completion_tokens": 3})
    headers: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def handle(self, call: Call, wire: Wire) -> None:
        """Answer one request."""
        if (call.method, call.path) != ("POST", "/v1/chat/completions"):
            await _send(wire, 404, {"detail": "Not Found"})
            return
        if self.key and call.headers.get("authorization") != f"Bearer {self.key}":
            await _send(wire, 401, {"error": {"message": "wrong key", "type": "invalid_request_error"}})
            return
        self.requests.append(call.json)
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            headers = {"retry-after": "300", **self.headers} if fault in ("429", "503") else self.headers
            await _send(wire, int(fault), {"error": {"message": f"told to fail with {fault}"}}, headers)
            return
        if fault == "hang":
            await self.hold.wait()
        if fault == "drop":
            wire.drop()
            return
        await self._answer(call.json, wire, fault)

    async def _answer(self, request: dict[str, Any], wire: Wire, fault: str) -> None:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text, **self.message},
            "finish_reason": self.finish,
        }
        reply = {"id": "c1", "object": "chat.completion", "model": request["model"], "choices": [choice]}
        if self.usage is not None:
            reply["usage"] = self.usage
        body = json.dumps({} if fault == "empty" else reply).encode()
        if fault == "short":
            wire.writer.write(f"HTTP/1.1 200 X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body[:20])
            await wire.writer.drain()
            wire.alive = False
            return
        if fault == "half":
            body = body[:20]
        await wire.reply(200, body, {"content-type": "application/json"})


async def _send(wire: Wire, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
    await wire.reply(status, json.dumps(body).encode(), {"content-type": "application/json", **(headers or {})})


@asynccontextmanager
async def serve_chat() -> AsyncIterator[ChatStub]:
    """Serve the stub on a free loopback port; `url` is the base that stands before /chat/completions."""
    stub = ChatStub()
    async with serve(stub.handle) as root:
        stub.url = f"{root}/v1"
        try:
            yield stub
        finally:
            stub.hold.set()
