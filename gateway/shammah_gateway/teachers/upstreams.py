"""The servers that client traffic is passed to by bytes, in order, each behind its breaker. It has no transport.

    tried: list[str] = []
    while True:
        call = upstreams.choose("messages", tried=tried)     # UnavailableError: none is left
        ... connect to call.upstream.base_url with call.upstream.headers, wait for status and headers ...
        fault = read_fault(status, headers)                  # or lose_connection(text), run_late(text)
        if fault is None: call.succeed(); break              # from the first byte on it is this one
        call.fail(fault)
        if not fault.elsewhere: break                        # the client's own mistake: hand the reply on
        tried.append(call.upstream.name)

A breaker is that of the teacher of the same name: what the SDK saw counts here, and the other way round.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from shammah_chassis.errors import UnavailableError

from shammah_gateway.teachers.breaker import Breaker, BreakerState, Permit
from shammah_gateway.teachers.faults import Fault

Protocol = Literal["messages", "chat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One server. `base_url` has no slash at its end; below it are `/v1/messages` or `/chat/completions`.

    `headers` are the gateway's own credentials, names in lower case, to be sent in the place of the caller's; empty
    where there are none. They are not shown by repr. `model` is the id to name where the client named none of its own.
    """

    name: str
    protocol: Protocol
    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    model: str = ""

    @property
    def host(self) -> str:
        """Where it is, for logs."""
        return read_host(self.base_url)


def read_host(url: str) -> str:
    """Return an address without its scheme, and without a name and password in it."""
    return url.partition("://")[2].rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """The leave to make one call. Report once; `drop` when the client hung up before the outcome was known."""

    upstream: Upstream
    _permit: Permit

    def succeed(self) -> None:
        """Report that the server answered (its 4xx about the request itself too)."""
        self._permit.succeed()

    def fail(self, fault: Fault) -> None:
        """Report that the server failed, before the first byte or in the middle of the stream."""
        self._permit.fail(fault)

    def drop(self) -> None:
        """Report that the outcome is not known."""
        self._permit.drop()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamState:
    """One server and whether calls get through, for status."""

    name: str
    protocol: Protocol
    base_url: str
    state: BreakerState
    reason: str


class Upstreams:
    """Servers in order. With the client's own credentials only the first may be used: a key is not shown around."""

    def __init__(self, pairs: Sequence[tuple[Upstream, Breaker]], *, only_first: bool = False) -> None:
        self._pairs = tuple(pairs)
        self._only_first = only_first

    def choose(self, protocol: Protocol = "messages", *, tried: Collection[str] = ()) -> UpstreamCall:
        """Return the leave for a call to the first server that speaks `protocol`, is not in `tried` and is not open.

        Raises:
            UnavailableError: there is none; the message says why of each, `retry_after_seconds` when the next may be.
        """
        reasons: list[str] = []
        waits: list[float] = []
        for upstream, breaker in self._of(protocol):
            if upstream.name in tried:
                reasons.append(f"{upstream.name}: failed just now" + _tell(breaker.last_fault))
                continue
            permit = breaker.enter()
            if permit is not None:
                return UpstreamCall(upstream, permit)
            reasons.append(f"{upstream.name}: {breaker.reason}")
            waits.append(breaker.wait_seconds)
        if not reasons:
            raise UnavailableError(f"no upstream that speaks {protocol!r} is set up")
        wait = min(waits) if waits else None
        raise UnavailableError(f"no upstream can be asked ({'; '.join(reasons)})", retry_after_seconds=wait)

    def states(self) -> tuple[UpstreamState, ...]:
        """Return each server with its state."""
        return tuple(
            UpstreamState(
                name=upstream.name,
                protocol=upstream.protocol,
                base_url=upstream.base_url,
                state=breaker.state,
                reason=breaker.reason,
            )
            for upstream, breaker in self._pairs
        )

    def _of(self, protocol: Protocol) -> Sequence[tuple[Upstream, Breaker]]:
        pairs = [pair for pair in self._pairs if pair[0].protocol == protocol]
        return pairs[:1] if self._only_first else pairs


def _tell(fault: Fault | None) -> str:
    return f", {fault}" if fault is not None else ""
