"""The load generator of the gateway's benchmark: raw keep-alive HTTP over uvloop, in a process of its own.

It reads commands, a JSON object a line, and prints a JSON result a line; both sides are described at `run`. It knows no
gateway: whatever it is pointed at gets the same bytes.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import uvloop

_EVENT = b"event: "


@dataclass(slots=True)
class Timed:
    """What one target's requests took: seconds each, their wall time together, and first bytes of streams."""

    seconds: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    wall: float = 0.0

    def to_json(self) -> dict[str, float]:
        cuts = statistics.quantiles(self.seconds, n=100) if len(self.seconds) > 1 else self.seconds * 100
        return {
            "requests": len(self.seconds),
            "per_second": len(self.seconds) / self.wall,
            "p50_ms": statistics.median(self.seconds) * 1e3,
            "p99_ms": cuts[98] * 1e3,
            "first_p50_ms": statistics.median(self.firsts) * 1e3 if self.firsts else 0.0,
        }


class Client(asyncio.Protocol):
    """One connection; sends the next request as soon as the last reply is whole, until `more` says no."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._parts: list[bytes] = []
        self._head = b""
        self._left = 0
        self._timed = Timed()
        self._more: Callable[[], bool] = bool
        self._begun = 0.0
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._write = transport.write

    def begin(self, timed: Timed, more: Callable[[], bool]) -> asyncio.Future[None]:
        """Send requests until `more` returns False; the future is then done."""
        self._timed, self._more = timed, more
        self._done = asyncio.get_running_loop().create_future()
        self._send()
        return self._done

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(f"{self._target.url}: the server closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        if not self._head:
            data = b"".join([*self._parts, data])
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._parts = [data]
                return
            self._head, data = data[:end].lower(), data[end:]
            self._parts = []
            length = _read_header(self._head, b"content-length")
            self._left = int(length) if length else -1
        if data:
            if self._left < 0 and not self._parts:
                self._note_first()
            self._parts.append(data)
        if self._is_whole():
            self._end()

    def _is_whole(self) -> bool:
        if self._left < 0:
            tail = self._parts[-1] if self._parts else b""
            if 0 < len(tail) < 5 and len(self._parts) > 1:
                tail = self._parts[-2] + tail
            return tail.endswith(b"0\r\n\r\n")
        return sum(map(len, self._parts)) >= self._left

    def _note_first(self) -> None:
        sent = _read_header(self._head, b"x-sent-ns")
        if sent:
            self._timed.firsts.append((time.perf_counter_ns() - int(sent)) / 1e9)

    def _end(self) -> None:
        self._timed.seconds.append(time.perf_counter() - self._begun)
        fault = self._target.check(self._head, self._parts)
        self._head, self._parts = b"", []
        if fault:
            self._done.set_exception(ValueError(fault))
        elif self._more():
            self._send()
        else:
            self._done.set_result(None)

    def _send(self) -> None:
        self._begun = time.perf_counter()
        self._write(next(self._target.requests))


class Target:
    """Where requests go and what a good reply is."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.url = str(given["url"])
        host, _, path = self.url.removeprefix("http://").partition("/")
        self.host, port = host.split(":")
        self.port = int(port)
        head = "".join(f"{name}: {value}\r\n" for name, value in given["headers"].items())
        written = [json.dumps(body, separators=(",", ":")).encode() for body in given["bodies"]]
        self.requests = cycle(
            f"POST /{path} HTTP/1.1\r\nhost: {host}\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body
            for body in written
        )
        self._events = int(given.get("events", 0))
        self._expected = [text.encode() for text in given.get("expected", [])]

    def check(self, head: bytes, parts: list[bytes]) -> str:
        """Return what is wrong with a reply, "" when nothing."""
        body = b"".join(parts)
        if not head.startswith(b"http/1.1 200"):
            return f"{self.url} answered {(head + body)[:600]!r}"
        for text in self._expected:
            if text not in head and text not in body:
                return f"{self.url}: no {text!r} in {(head + body)[:1200]!r}"
        if self._events and body.count(_EVENT) != self._events:
            return f"{self.url} sent {body.count(_EVENT)} events, expected {self._events}"
        return ""


def _read_header(head: bytes, name: bytes) -> bytes:
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


async def run(command: dict[str, Any]) -> list[dict[str, float]]:
    """Measure targets by turns.

    A command has `targets` (`url`, `headers`, `bodies`; `expected` texts of each reply; `events` of each stream),
    `clients`, `seconds` and `requests` (a turn ends at the first of them that is not 0), `turns` and `warm` requests.
    Each target gets its turn after the other; the result has a row of `Timed.to_json` for each.
    """
    loop = asyncio.get_running_loop()
    targets = [Target(given) for given in command["targets"]]
    clients, timed = [], [Timed() for _ in targets]
    for target in targets:
        opened = [
            await loop.create_connection(lambda aim=target: Client(aim), target.host, target.port)
            for _ in range(command["clients"])
        ]
        clients.append([client for _, client in opened])
        await _turn(clients[-1], Timed(), seconds=0, requests=command.get("warm", 0))
    for _ in range(command.get("turns", 1)):
        for ours, result in zip(clients, timed, strict=True):
            await _turn(ours, result, seconds=command.get("seconds", 0), requests=command.get("requests", 0))
    for ours in clients:
        for client in ours:
            client.close()
    return [one.to_json() for one in timed]


async def _turn(clients: list[Client], timed: Timed, *, seconds: float, requests: int) -> None:
    if not seconds and not requests:
        return
    begun = time.perf_counter()
    limit = begun + seconds if seconds else float("inf")
    # Each client has one under way already when it asks for more.
    left = requests - len(clients) if requests else 1 << 60

    def more() -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and time.perf_counter() < limit

    used = clients[:requests] if requests else clients
    await asyncio.gather(*(client.begin(timed, more) for client in used))
    timed.wall += time.perf_counter() - begun


def main() -> None:
    """Serve commands until standard input is closed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            try:
                result: object = {"rows": runner.run(run(json.loads(line)))}
            except (OSError, ValueError) as error:
                result = {"error": str(error)}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
