"""The event bus: the example log, dead letters and a small key-value bucket, on NATS JetStream.

Every write carries a message id and is repeated with the same id until it is confirmed or the budget is spent, so an
acknowledged message is there once and an unacknowledged one may be sent again. Transport only: it does not know
what an example or a release is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import nats
import nats.errors
import nats.js.errors

from shammah_chassis.bus_values import KvEntry, LogMessage, LogState, Published
from shammah_chassis.errors import ConflictError, InvalidInputError, UnauthenticatedError, UnavailableError
from shammah_chassis.kv_watch import watch_key
from shammah_chassis.nats_calls import ATTEMPT_SECONDS, BUDGET_SECONDS, call_nats
from shammah_chassis.streams import BUCKET, DEAD_SUBJECT, EXAMPLE_SUBJECTS, EXAMPLES, ensure_streams

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

    from shammah_chassis.examples import Envelope

__all__ = ["Bus", "KvEntry", "LogMessage", "LogState", "Published"]

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# Room for what is in flight at a disconnection: two of the largest messages.
_PENDING_BYTES = 16 << 20


class Bus:
    """One connection to NATS, which reconnects for ever. Made by `connect`."""

    def __init__(self, client: Client, *, url: str, token: str | None, attempt_seconds: float) -> None:
        self._client = client
        self._js = client.jetstream(timeout=attempt_seconds)
        self._url = url
        self._token = token
        self._connections = 0

    @classmethod
    async def connect(
        cls, url: str, *, token: str | None = None, timeout: float = 5.0, attempt_seconds: float = ATTEMPT_SECONDS
    ) -> Bus:
        """Connect to `url` ("nats://host:port", or "nats://TOKEN@host:port"), waiting at most `timeout` seconds.

        `attempt_seconds` bounds one attempt of a call.

        Raises:
            UnavailableError: nobody answers there.
            UnauthenticatedError: the server refuses the token.
        """
        refused: list[Exception] = []
        reconnected: list[Callable[[], None]] = []

        async def note_error(error: Exception) -> None:
            if "authorization" in str(error).lower():
                refused.append(error)
            _LOG.debug("nats: %s", error)

        async def note_reconnection() -> None:
            for callback in reconnected:
                callback()

        client = nats.NATS()
        try:
            await asyncio.wait_for(
                client.connect(
                    url,
                    token=token,
                    error_cb=note_error,
                    reconnected_cb=note_reconnection,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.1,
                    connect_timeout=2,
                    ping_interval=20,
                    pending_size=_PENDING_BYTES,
                    drain_timeout=5,
                ),
                timeout,
            )
        except (nats.errors.Error, TimeoutError, OSError) as error:
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()
            where = _without_secret(url)
            if refused or isinstance(error, nats.errors.AuthorizationError):
                raise UnauthenticatedError(f"NATS at {where} refuses the token") from error
            raise UnavailableError(f"no NATS at {where} within {timeout:g} s: {error}") from error
        bus = cls(client, url=url, token=token, attempt_seconds=attempt_seconds)
        reconnected.append(bus._count_connection)
        return bus

    async def another(self, *, attempt_seconds: float) -> Bus:
        """Open a second connection to the same server, for a bulk transfer that must not delay this one."""
        return await Bus.connect(self._url, token=self._token, attempt_seconds=attempt_seconds)

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream context, for the other modules of the chassis."""
        return self._js

    @property
    def client(self) -> Client:
        """The nats-py client, for the other modules of the chassis."""
        return self._client

    @property
    def connected(self) -> bool:
        """Whether the connection stands at this moment."""
        return bool(self._client.is_connected)

    async def close(self) -> None:
        """Flush and close the connection; nothing is raised when the server is away."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self._client.drain()
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await self._client.close()

    async def call(self, attempt: Callable[[], Awaitable[T]], what: str, *, budget: float = BUDGET_SECONDS) -> T:
        """Run a repeatable call with retries and named errors; see `call_nats`."""
        return await call_nats(attempt, what=what, connected=lambda: self._reachable, budget=budget)

    async def ensure(self, max_bytes: int | None = None, *, replicas: int = 1) -> None:
        """Make the streams EXAMPLES and DEAD and the bucket, if they are missing.

        `max_bytes` bounds the example log; None leaves the present bound (4 GiB when the log is new).
        """
        await self.call(lambda: ensure_streams(self._js, max_bytes=max_bytes, replicas=replicas), "ensure streams")

    async def publish_envelope(self, source: str, envelope: Envelope) -> Published:
        """Append an envelope to the log under `examples.new.<source>`.

        Raises:
            UnavailableError: not confirmed within 5 s; it may be stored, sending it again makes no second one.
            StorageFullError: the log is at its byte limit or the disk is full; it is not stored.
            InvalidInputError: `source` is no plain word.
        """
        if not _SOURCE.fullmatch(source):
            raise InvalidInputError(f"source {source!r} is not allowed; allowed: 1-64 letters, digits, '_', '-'")
        headers = {"Nats-Msg-Id": envelope.message_id, "Nats-Expected-Stream": EXAMPLES}
        subject = f"examples.new.{source}"
        data = envelope.encode()
        ack = await self.call(
            lambda: self._js.publish(subject, data, timeout=ATTEMPT_SECONDS, headers=dict(headers)), subject
        )
        return Published(sequence=ack.seq, duplicate=bool(ack.duplicate))

    async def dead_letter(self, data: bytes, reason: str, sequence: int) -> None:
        """Keep a message that can't be used, with the reason and its log sequence, for people to look at."""
        headers = {
            "Nats-Msg-Id": f"{sequence}-{hashlib.sha256(data).hexdigest()}",
            "Shammah-Reason": " ".join(reason.split())[:1000] or "unknown",
            "Shammah-Sequence": str(sequence),
        }
        await self.call(
            lambda: self._js.publish(DEAD_SUBJECT, data, timeout=ATTEMPT_SECONDS, headers=dict(headers)), DEAD_SUBJECT
        )

    async def log_state(self) -> LogState:
        """Return what the example log holds. A last sequence that goes back means that the disk lost messages."""
        try:
            info = await self.call(lambda: self._js.stream_info(EXAMPLES), "log state")
        except nats.js.errors.NotFoundError as error:
            raise UnavailableError("the example log is not made yet", retry_after_seconds=1.0) from error
        return LogState(
            first_sequence=info.state.first_seq,
            last_sequence=info.state.last_seq,
            messages=info.state.messages,
            bytes=info.state.bytes,
            max_bytes=info.config.max_bytes or -1,
            made=round(info.created.timestamp() * 1e6) if info.created else 0,
        )

    async def last_sequence(self) -> int:
        """Return the sequence of the newest message of the log, 0 when it is empty."""
        return (await self.log_state()).last_sequence

    async def read_log(self, from_sequence: int = 1) -> AsyncIterator[LogMessage]:
        """Yield the messages from `from_sequence` up to the newest at the time of the call, in order."""
        newest = await self.last_sequence()
        wanted = max(1, from_sequence)
        while wanted <= newest:
            start = wanted
            try:
                message = await self.call(
                    lambda start=start: self._js.get_msg(EXAMPLES, seq=start, subject=EXAMPLE_SUBJECTS, next=True),  # type: ignore[misc]
                    f"read log at {wanted}",
                )
            except nats.js.errors.NotFoundError:
                return
            if message.seq > newest:
                return
            yield LogMessage(sequence=message.seq, data=message.data or b"")
            wanted = message.seq + 1

    async def kv_get(self, key: str) -> KvEntry | None:
        """Return the value of a key as its leader has it, or None."""
        subject = _kv_subject(key)
        try:
            message = await self.call(lambda: self._js.get_last_msg(f"KV_{BUCKET}", subject), f"get {key}")
        except nats.js.errors.NotFoundError:
            return None
        if message.headers and message.headers.get("KV-Operation"):
            return None
        return KvEntry(value=(message.data or b"").decode(), revision=message.seq)

    async def kv_create(self, key: str, value: str) -> int:
        """Write a key that has no value yet and return its revision; ConflictError when it has one."""
        return await self._kv_put(key, value, 0)

    async def kv_update(self, key: str, value: str, revision: int) -> int:
        """Replace the value of that `revision` and return the new one; ConflictError when it is not the newest."""
        return await self._kv_put(key, value, revision)

    async def _kv_put(self, key: str, value: str, revision: int) -> int:
        message_id = uuid.uuid4().hex
        headers = {"Nats-Msg-Id": message_id, "Nats-Expected-Last-Subject-Sequence": str(revision)}
        subject = _kv_subject(key)
        try:
            ack = await self.call(
                lambda: self._js.publish(subject, value.encode(), timeout=ATTEMPT_SECONDS, headers=dict(headers)),
                f"set {key}",
            )
        except ConflictError:
            # An attempt whose answer was lost has changed the revision: the server compares it before it looks for
            # duplicates, so its repetition loses against itself. The id tells whose value is there.
            message = await self.call(lambda: self._js.get_last_msg(f"KV_{BUCKET}", subject), f"get {key}")
            if (message.headers or {}).get("Nats-Msg-Id") != message_id:
                raise
            return int(message.seq)
        return int(ack.seq)

    async def kv_watch(self, key: str) -> AsyncIterator[KvEntry]:
        """Yield the value of a key now (if it has one) and after each change, for ever, through restarts of the server.

        Changes that follow each other fast may be seen as the last one only.
        """
        async for entry in watch_key(self, key):
            yield entry

    @property
    def connections(self) -> int:
        """How often the connection was made again; a watch made before is then doubtful."""
        return self._connections

    @property
    def _reachable(self) -> bool:
        # A closed client is let through, so that the call fails at once instead of after the whole budget.
        return bool(self._client.is_connected or self._client.is_closed)

    def _count_connection(self) -> None:
        self._connections += 1


def _kv_subject(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise InvalidInputError(f"key {key!r} is not allowed; allowed: letters, digits, '_', '-', '.'")
    return f"$KV.{BUCKET}.{key}"


def _without_secret(url: str) -> str:
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]
