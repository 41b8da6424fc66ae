"""A Messages API that costs next to nothing: the upstream that every gateway of the benchmark stands before.

One process, one loop, no framework: about 20 microseconds a call. Any path is taken, any key is let in. A request with
`"stream": true` gets 100 events, each an HTTP chunk and a write of its own; its head says when the first one was
written (`x-sent-ns`, of the clock that all processes of a machine share). With "paced" in it the upstream rests after
the first event, so that it takes no core from whoever passes that on. Prints its port.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

MODEL = "claude-sonnet-5-5"
EVENTS = 100
_DELTAS = EVENTS - 5
_PACED, _REST_SECONDS = b'"paced"', 0.003
_TEXT = "The capital of France is Paris."
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"request-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\ntransfer-encoding: chunked\r\nx-sent-ns: %d\r\n\r\n"
)
_LENGTH = b"content-length:"


def write_reply() -> bytes:
    """Return the whole reply to a plain request."""
    body = json.dumps(
        {
            "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [{"type": "text", "text": _TEXT}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": _usage(14, 8),
        }
    ).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\n"
    return b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)


def write_chunks() -> list[bytes]:
    """Return the events of a stream, each as an HTTP chunk; the last one ends the body."""
    message = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(14, 1),
    }
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " token"}}
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[delta] * _DELTAS,
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": _DELTAS},
        },
        {"type": "message_stop"},
    ]
    chunks = []
    for event in events:
        data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        chunks.append(b"%x\r\n%s\r\n" % (len(data), data))
    return [*chunks[:-1], chunks[-1] + b"0\r\n\r\n"]


def _usage(given: int, made: int) -> dict[str, object]:
    return {
        "input_tokens": given,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": made,
        "service_tier": "standard",
    }


class Upstream(asyncio.Protocol):
    """One connection."""

    reply = write_reply()
    chunks = write_chunks()

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._next = 0
        self._paced = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._write = transport.write

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        while data:
            end = data.find(b"\r\n\r\n") + 4
            size = end + _read_length(data[:end]) if end > 3 else len(data) + 1
            if len(data) < size:
                break
            body, data = data[end:size], data[size:]
            if b'"stream":true' in body or b'"stream": true' in body:
                self._next, self._paced = 0, _PACED in body
                self._write_event()
            else:
                self._write(self.reply)
        self._rest = data

    def _write_event(self) -> None:
        """Write the next event, and the one after it in the next turn of the loop."""
        if self._transport.is_closing():
            return
        chunk = self.chunks[self._next]
        self._write(chunk if self._next else _STREAM_HEAD % time.perf_counter_ns() + chunk)
        self._next += 1
        if self._next == 1 and self._paced:
            self._loop.call_later(_REST_SECONDS, self._write_event)
        elif self._next < EVENTS:
            self._loop.call_soon(self._write_event)


def _read_length(head: bytes) -> int:
    start = head.find(_LENGTH)
    if start < 0:
        head = head.lower()
        start = head.find(_LENGTH)
        if start < 0:
            return 0
    return int(head[start + len(_LENGTH) : head.index(b"\r\n", start)])


async def serve() -> None:
    """Serve until standard input is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
