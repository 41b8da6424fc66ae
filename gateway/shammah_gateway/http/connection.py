"""One HTTP/1.1 connection to a server, and the reply that comes over it: bytes and headers, nothing else.

Made for many small requests: a general client spends more on each than the rest of the way through this gateway takes.
The parser is llhttp. It knows no address, no pool and no protocol above HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import cast

import httptools

RawHeaders = Sequence[tuple[bytes, bytes]]
MAX_HEADER_BYTES = 64 << 10
# Bytes of a body that may wait for a slow client before the server is told to wait too.
HIGH_WATER_BYTES = 256 << 10


class UpstreamBrokenError(Exception):
    """The connection failed: before the reply, or in the middle of its body. `sent` False: nothing reached anybody."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class UpstreamReply:
    """The reply of a server, its body not read yet. `close` must be called when the body was not read to its end."""

    __slots__ = ("_connection", "_done", "_error", "_mapping", "_parts", "_size", "_waiter", "headers", "status")

    def __init__(self, connection: Connection, status: int, headers: RawHeaders) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self._mapping: Mapping[str, str] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._done = False
        self._error: UpstreamBrokenError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def mapping(self) -> Mapping[str, str]:
        """The headers by their names in lower case; of one that is there twice the last."""
        if self._mapping is None:
            found = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in self.headers}
            self._mapping = MappingProxyType(found)
        return self._mapping

    def header(self, name: str) -> str:
        """Return a header's value by its name in lower case, "" without one."""
        return self.mapping.get(name, "")

    async def read(self) -> bytes:
        """Return the whole body; UpstreamBrokenError when it does not come to its end."""
        if self._done and len(self._parts) == 1:
            return self._parts.pop()
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, never held back; raises as `read`."""
        while True:
            if self._parts:
                data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts.clear()
                if self._size > HIGH_WATER_BYTES:
                    self._connection.resume()
                self._size = 0
                yield data
            elif self._error is not None:
                raise self._error
            elif self._done:
                return
            else:
                self._waiter = self._connection.loop.create_future()
                await self._waiter

    def close(self) -> None:
        """Drop the connection unless the body is at its end; the server then stops working for us."""
        if not self._done and self._error is None:
            self._connection.abort("closed by us")

    def feed(self, data: bytes) -> None:
        """Take bytes of the body from the connection."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER_BYTES:
            self._connection.pause()
        self._wake()

    def finish(self, error: UpstreamBrokenError | None) -> None:
        """Take the end of the body from the connection."""
        if error is None:
            self._done = True
        else:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Connection(asyncio.Protocol):
    """A connection that serves one request after another. `give_back` is called when it may take the next one.

    `silence_seconds` is the patience between two bytes of the server while it owes some.
    """

    def __init__(self, give_back: Callable[[Connection], None], *, silence_seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.idle_since = 0.0
        self._give_back = give_back
        self._silence = silence_seconds
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._waiting: asyncio.Future[UpstreamReply] | None = None
        self._reply: UpstreamReply | None = None
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> UpstreamReply:
        """Send a request and return the reply when its headers are there.

        Raises:
            UpstreamBrokenError: the connection ended without a reply. TimeoutError: no reply in time.
        """
        if self._transport is None:
            raise UpstreamBrokenError("not connected", sent=False)
        self._waiting = self.loop.create_future()
        self._heard = self.loop.time()
        if self._watch is None:
            self._watch = self.loop.call_later(self._silence, self._check_silence)
        self._transport.write(request)
        try:
            return await self._waiting
        except asyncio.CancelledError:
            self.abort("given up")
            raise

    def abort(self, why: str) -> None:
        """End the connection at once."""
        self._fail(UpstreamBrokenError(why))

    def close(self) -> None:
        """Close an idle connection."""
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        """Let the server wait."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Let the server go on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports are no subclass of asyncio's, though they do the same.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever waits; a body without a length ends here as it should."""
        reply = self._reply
        if reply is not None and exc is None and _ends_with_connection(reply):
            self._reply = None
            reply.finish(None)
        self._fail(UpstreamBrokenError(str(exc) if exc else "the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the server."""
        if self._waiting is None and self._reply is None:
            # Nobody asked: what it says can't be matched with a request.
            self.close()
            return
        self._heard = self.loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.abort(f"the server's reply is no HTTP: {error}")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header from the parser."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise UpstreamBrokenError("the headers of the reply are too long")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the end of the headers from the parser; an interim reply (1xx) is passed over."""
        headers, self._headers, self._header_bytes = self._headers, [], 0
        status = self._parser.get_status_code()
        waiting = self._waiting
        if status < 200 or waiting is None:
            return
        self._waiting = None
        self._reply = UpstreamReply(self, status, headers)
        if not waiting.done():
            waiting.set_result(self._reply)

    def on_body(self, body: bytes) -> None:
        """Take bytes of the body from the parser."""
        if self._reply is not None:
            self._reply.feed(body)

    def on_message_complete(self) -> None:
        """Take the end of the reply from the parser."""
        reply, self._reply = self._reply, None
        if reply is None:
            return
        if self._parser.should_keep_alive() and self.usable:
            self.idle_since = self.loop.time()
            self._give_back(self)
        else:
            self.close()
        reply.finish(None)

    def _check_silence(self) -> None:
        self._watch = None
        if self._waiting is None and self._reply is None:
            return
        left = self._heard + self._silence - self.loop.time()
        if left > 0:
            self._watch = self.loop.call_later(left, self._check_silence)
            return
        text = f"nothing came for {self._silence:g} s"
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(TimeoutError(text))
        self.abort(text)

    def _fail(self, error: UpstreamBrokenError) -> None:
        waiting, self._waiting = self._waiting, None
        reply, self._reply = self._reply, None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._transport is not None:
            self._transport.abort()
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        if reply is not None:
            reply.finish(error)


def _ends_with_connection(reply: UpstreamReply) -> bool:
    """Say whether a body has neither a length nor chunks, so that only the end of the connection ends it."""
    return not reply.header("content-length") and "chunked" not in reply.header("transfer-encoding").lower()
