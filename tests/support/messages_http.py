"""A small HTTP/1.1 server for stubs that must also misbehave: half a stream, a dropped socket, no answer at all.

It knows bytes, not the Messages API: `serve` hands each request to a handler, which answers through a `Wire`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """One request as it came: names of `headers` are in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class HungUpError(Exception):
    """The client left before the answer was whole."""


@dataclass
class Wire:
    """The answer's side of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request_id: str = ""
    # False: the connection is closed after this answer, as HTTP/1.1 asks when an answer has no end of its own.
    alive: bool = True
    _watch: asyncio.Task[bytes] | None = field(default=None, repr=False)

    async def reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole answer."""
        self._head(status, {**headers, "content-length": str(len(body))})
        self.writer.write(body)
        await self._drain()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin an answer in chunks."""
        self._head(status, {**headers, "transfer-encoding": "chunked", "connection": "close"})
        # Whatever the client sends (or its end of file) before the answer is whole: it is noticed at the next piece.
        self._watch = asyncio.create_task(self.reader.read(1))
        await self._drain()

    async def piece(self, data: bytes) -> None:
        """Send one chunk; HungUpError when the client is gone."""
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self._drain()
        # One turn of the loop, so that a hang-up can be seen.
        await asyncio.sleep(0)
        if self._watch is not None and self._watch.done():
            raise HungUpError

    async def wait_for_hang_up(self) -> None:
        """Wait until the client leaves; HungUpError then."""
        if self._watch is not None:
            # `wait`, not `await`: to be cancelled here must not end the watch.
            await asyncio.wait([self._watch])
        raise HungUpError

    async def end(self) -> None:
        """End an answer in chunks as it should be."""
        self.writer.write(b"0\r\n\r\n")
        await self._drain()
        if self._watch is not None:
            self._watch.cancel()
            self.alive = False

    def drop(self) -> None:
        """Cut the connection without a word."""
        self.alive = False
        self.writer.transport.abort()

    def close(self) -> None:
        """Close the connection and forget the watch."""
        if self._watch is not None:
            self._watch.cancel()
        self.writer.close()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        named = {"request-id": self.request_id, **headers}
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in named.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode("latin-1"))

    async def _drain(self) -> None:
        try:
            await self.writer.drain()
        except ConnectionError as error:
            raise HungUpError from error


Handler = Callable[[Call, Wire], Awaitable[None]]


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[str]:
    """Serve on a free loopback port while the block runs; yields "http://host:port".

    What a handler raises is raised at the end of the block.
    """
    failures: list[Exception] = []
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await _talk(handler, reader, writer)
        except Exception as error:
            failures.append(error)
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if failures:
        raise failures[0]


async def _talk(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until somebody ends it."""
    count = 0
    while True:
        try:
            call = await _read_call(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        count += 1
        wire = Wire(reader, writer, request_id=f"req_{id(writer):x}_{count}")
        try:
            await handler(call, wire)
        except HungUpError:
            wire.alive = False
        if not wire.alive or call.headers.get("connection", "").lower() == "close":
            wire.close()
            return


async def _read_call(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    path, _, query = target.partition("?")
    pairs = (line.split(":", 1) for line in head[1:] if ":" in line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Call(method, path, query, headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)
