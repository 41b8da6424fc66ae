"""A strict local stand-in of the Messages API: it refuses what the real one refuses, and fails on demand.

One object for a test: what it shall answer, and what it was asked. Its rules are in `messages_rules`, the shapes of its
streams in `messages_stream`, threads and batches in files of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from support.messages_batches import Batch, Batches, show_batch, write_results
from support.messages_http import Call, HungUpError, Wire, serve
from support.messages_rules import MODELS, NEW_VERSION, VERSIONS, RefusedError, check, check_count, is_strict
from support.messages_stream import encode_event, split_message
from support.messages_threads import ThreadRefusedError, Threads

__all__ = ["MessagesStub", "check", "serve_messages", "text", "tool_use"]

Json = dict[str, Any]
MAX_BODY_BYTES = 32 << 20
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# Faults of a stream; on a request without a stream they are used up too, and it is answered normally.
STREAM_FAULTS = ("stream-drop", "stream-end", "stream-error", "stream-wait")


def text(value: str) -> Json:
    """A text block."""
    return {"type": "text", "text": value}


def tool_use(name: str, arguments: Json, *, identity: str = "toolu_01") -> Json:
    """A call of a tool."""
    return {"type": "tool_use", "id": identity, "name": name, "input": arguments}


@dataclass
class MessagesStub:
    """What it answers, and what it was asked.

    `faults` are used up one a request for a message, then it answers normally:
    "429", "529", "500", ... (with "429:2" the pause it asks for is 2 s, else 300); "hang" (waits for `hold`);
    "drop" (cuts the connection); in a stream after its first piece: "stream-drop" (cuts the connection),
    "stream-end" (a clean end before message_delta), "stream-error" (an SSE error event), "stream-wait" (waits for
    `hold` or until the client leaves, which `hung_up` counts).
    `replies` are contents (lists of blocks) that are answered first, one a request; then it answers `text`.
    """

    key: str = "right-key"
    text: str = "Paris"
    stop_reason: str | None = "end_turn"
    replies: list[list[Json]] = field(default_factory=list)
    usage: Json = field(default_factory=lambda: {"input_tokens": 12, "output_tokens": 3})
    models: list[str] = field(default_factory=lambda: list(MODELS))
    faults: list[str] = field(default_factory=list)
    threads: Threads = field(default_factory=Threads)
    batches: Batches = field(default_factory=Batches)
    # Bodies of the requests for messages that had the right key and version; every call; what the model saw.
    requests: list[Json] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    seen: list[Json] = field(default_factory=list)
    hung_up: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    _made: int = 0

    def respond(self, headers: dict[str, str], body: bytes) -> tuple[int, Json]:
        """Return status and JSON of a request for a message (without a stream); header names in lower case."""
        if refused := self.check_headers(headers, len(body)):
            return refused
        try:
            request = json.loads(body)
        except (ValueError, RecursionError) as error:
            return _error(400, f"The request body is not valid JSON: {error}")
        self.requests.append(request)
        version, betas = _read_headers(headers)
        if problem := check(request, version=version, betas=betas):
            return _error(400, problem)
        if request["model"] not in self.models:
            return _error(404, f"model: {request['model']}")
        fault = self.faults.pop(0) if self.faults else ""
        status = fault.split(":")[0]
        if status.isdigit():
            return _error(int(status), f"told to fail with {status}")
        if fault in STREAM_FAULTS:
            # Put back for the stream that follows.
            self.faults.insert(0, fault)
        return self._answer(request, strict=is_strict(request, version))

    def check_headers(self, headers: dict[str, str], size: int = 0) -> tuple[int, Json] | None:
        """Return the refusal of a wrong key, version or size; None when all is well."""
        bearer = headers.get("authorization", "")
        key = headers.get("x-api-key") or (bearer[7:] if bearer.lower().startswith("bearer ") else "")
        if not key:
            return _error(401, "x-api-key header is required")
        if key != self.key:
            return _error(401, "invalid x-api-key")
        version = headers.get("anthropic-version")
        if version is None:
            return _error(400, "anthropic-version: header is required")
        if version not in VERSIONS:
            return _error(400, f"anthropic-version: {version!r} is not a valid version")
        if size > MAX_BODY_BYTES:
            return _error(413, f"Request exceeds the maximum size of {MAX_BODY_BYTES} bytes")
        return None

    def _answer(self, request: Json, *, strict: bool) -> tuple[int, Json]:
        try:
            whole = self.threads.expand(request, strict=strict)
        except ThreadRefusedError as refused:
            status, body = _error(refused.status, str(refused))
            body["error"]["details"] = refused.details
            return status, body
        except RefusedError as refused:
            return _error(400, str(refused))
        self.seen.append(whole)
        message = self._message(whole)
        self.threads.keep(request, whole, message)
        return 200, message

    def _message(self, request: Json) -> Json:
        content = self.replies.pop(0) if self.replies else [text(self.text)]
        stop, sequence = self.stop_reason, None
        if stop == "refusal":
            content = []
        names = {tool["name"] for tool in request.get("tools", [])}
        for block in content:
            if block["type"] == "tool_use":
                assert block["name"] in names, (
                    f"the test's reply uses {block['name']}, which the request did not declare"
                )
                stop = "tool_use"
        for word in request.get("stop_sequences", []):
            if content and content[-1].get("type") == "text" and word in content[-1]["text"]:
                content = [*content[:-1], text(content[-1]["text"].split(word)[0])]
                stop, sequence = "stop_sequence", word
        self._made += 1
        return {
            "id": f"msg_{self._made:04d}",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": content,
            "stop_reason": stop,
            "stop_sequence": sequence,
            "usage": {
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
                "service_tier": "standard",
                **self.usage,
            },
        }

    async def handle(self, call: Call, wire: Wire) -> None:
        """Answer one request."""
        self.calls.append(call)
        parts = call.path.strip("/").split("/")
        if (call.method, call.path) == ("POST", "/v1/messages"):
            await self._handle_message(call, wire)
            return
        refused = self.check_headers(call.headers, len(call.body))
        if refused is not None:
            await _send(wire, *refused)
        elif parts[:3] == ["v1", "messages", "batches"]:
            await self._handle_batches(call, wire, parts[3:])
        elif (call.method, call.path) == ("POST", "/v1/messages/count_tokens"):
            await _send(wire, *self._count(call))
        elif call.method == "GET" and parts[:2] == ["v1", "models"]:
            await _send(wire, *self._show_models(parts[2:]))
        else:
            await _send(wire, *_error(404, f"Not found: {call.method} {call.path}"))

    async def _handle_message(self, call: Call, wire: Wire) -> None:
        fault = self.faults[0] if self.faults else ""
        if fault in ("hang", "drop"):
            self.faults.pop(0)
            if fault == "hang":
                await self.hold.wait()
            else:
                wire.drop()
                return
        status, body = self.respond(call.headers, call.body)
        fault_of_stream = self.faults.pop(0) if status == 200 and self.faults[:1] and fault in STREAM_FAULTS else ""
        if status != 200 or not self.requests[-1].get("stream"):
            await _send(wire, status, body, retry_after=fault.partition(":")[2] or "300")
            return
        try:
            await self._stream(wire, body, fault_of_stream)
        except HungUpError:
            self.hung_up += 1
            raise

    async def _stream(self, wire: Wire, message: Json, fault: str) -> None:
        await wire.begin(200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})
        for event in split_message(message):
            if fault and event["type"] == "content_block_stop":
                if fault == "stream-drop":
                    wire.drop()
                    return
                if fault == "stream-wait":
                    await self._wait_in_stream(wire)
                elif fault == "stream-error":
                    await wire.piece(encode_event(_error(529, "Overloaded")[1] | {"type": "error"}))
                    break
                else:
                    break
            await wire.piece(encode_event(event))
        await wire.end()

    async def _wait_in_stream(self, wire: Wire) -> None:
        held = asyncio.create_task(self.hold.wait())
        left = asyncio.create_task(wire.wait_for_hang_up())
        done, _ = await asyncio.wait((held, left), return_when=asyncio.FIRST_COMPLETED)
        held.cancel()
        left.cancel()
        if left in done:
            left.result()

    def _count(self, call: Call) -> tuple[int, Json]:
        try:
            request = json.loads(call.body)
        except (ValueError, RecursionError) as error:
            return _error(400, f"The request body is not valid JSON: {error}")
        version, betas = _read_headers(call.headers)
        if problem := check_count(request, version=version, betas=betas):
            return _error(400, problem)
        if request["model"] not in self.models:
            return _error(404, f"model: {request['model']}")
        return 200, {"input_tokens": count_tokens(request)}

    def _show_models(self, rest: list[str]) -> tuple[int, Json]:
        shown = [
            {
                "type": "model",
                "id": name,
                "display_name": name.replace("-", " ").title(),
                "created_at": "2026-01-01T00:00:00Z",
                "lifecycle": "active",
            }
            for name in self.models
        ]
        if rest:
            found = [one for one in shown if one["id"] == rest[0]]
            return (200, found[0]) if found else _error(404, f"model: {rest[0]}")
        return 200, {"data": shown, "has_more": False, "first_id": shown[0]["id"], "last_id": shown[-1]["id"]}

    async def _handle_batches(self, call: Call, wire: Wire, rest: list[str]) -> None:
        host = call.headers["host"]
        try:
            if not rest and call.method == "POST":
                await _send(wire, 200, show_batch(self.batches.create(json.loads(call.body)), host))
                return
            if not rest and call.method == "GET":
                await _send(wire, 200, self._list_batches(host))
                return
            batch = self.batches.held.get(rest[0]) if rest else None
            if batch is None:
                await _send(wire, *_error(404, f"batch {rest[0] if rest else ''} was not found"))
                return
            await self._handle_batch(call, wire, batch, rest[1:])
        except (RefusedError, ValueError) as error:
            await _send(wire, *_error(400, str(error)))

    def _list_batches(self, host: str) -> Json:
        shown = [show_batch(batch, host) for batch in reversed(self.batches.held.values())]
        ids = [one["id"] for one in shown] or [None]
        return {"data": shown, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}

    async def _handle_batch(self, call: Call, wire: Wire, batch: Batch, rest: list[str]) -> None:
        version, betas = _read_headers(call.headers)

        def answer(params: Json) -> tuple[str, Json]:
            problem = check(params, version=version, betas=betas)
            return (problem, {}) if problem else ("", self._message(params))

        if call.method == "GET" and not rest:
            self.batches.poll(batch, answer)
            await _send(wire, 200, show_batch(batch, call.headers["host"]))
        elif (call.method, rest) == ("GET", ["results"]) and batch.status == "ended":
            await wire.reply(200, write_results(batch), {"content-type": "application/x-jsonl"})
        elif (call.method, rest) == ("POST", ["cancel"]):
            self.batches.cancel(batch)
            await _send(wire, 200, show_batch(batch, call.headers["host"]))
        elif (call.method, rest) == ("DELETE", []):
            await _send(wire, 200, self.batches.delete(batch))
        else:
            await _send(wire, *_error(404, f"{call.method} {call.path}: not found, or it has no results yet"))


def count_tokens(request: Json) -> int:
    """Return the stub's count of tokens: a quarter of the characters of what the model would see."""
    shown = {name: request[name] for name in ("system", "tools", "messages") if name in request}
    return max(1, len(json.dumps(shown)) // 4)


def _read_headers(headers: dict[str, str]) -> tuple[str, frozenset[str]]:
    betas = (part.strip() for part in headers.get("anthropic-beta", "").split(","))
    return headers.get("anthropic-version", NEW_VERSION), frozenset(part for part in betas if part)


def _error(status: int, message: str) -> tuple[int, Json]:
    kind = ERROR_TYPES.get(status, "api_error")
    return status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": ""}


async def _send(wire: Wire, status: int, body: Json, *, retry_after: str = "300") -> None:
    headers = {"content-type": "application/json"}
    if status in (429, 503, 529):
        # The real API asks for long pauses: a client that believes it would sleep for minutes.
        headers["retry-after"] = retry_after
    if body.get("type") == "error":
        body = {**body, "request_id": wire.request_id}
    await wire.reply(status, json.dumps(body).encode(), headers)


@asynccontextmanager
async def serve_messages() -> AsyncIterator[MessagesStub]:
    """Serve the stub on a free loopback port."""
    stub = MessagesStub()
    async with serve(stub.handle) as stub.url:
        try:
            yield stub
        finally:
            stub.hold.set()
