"""What the cascade needs from outside, as protocols: the three roles, the releases, a teacher, a place for examples.

It knows no transport. `roles`, `champions`, `teachers` and `recorder` are the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shammah_chassis.examples import Example, Message
from shammah_chassis.releases import Release

from shammah_gateway.values import Compared, Generated, Judged, Routed


class Roles(Protocol):
    """The three serving roles. Each call names its release and its patience in seconds.

    Raises (all): DeadlineError late, OverloadedError full, UnavailableError away or no pod holds the release.
    """

    async def route(self, release: str, query: str, *, timeout: float) -> Routed:
        """Judge a query before any work is done."""
        ...

    async def generate(
        self, release: str, messages: Sequence[Message], *, max_tokens: int, temperature: float, timeout: float
    ) -> Generated:
        """Let the student respond."""
        ...

    async def validate(
        self,
        release: str,
        query: str,
        response: str,
        *,
        category: str,
        statistics: Mapping[str, float] | None,
        timeout: float,
    ) -> Judged:
        """Judge a response; `statistics` None for a text that the student did not write."""
        ...

    async def compare(
        self,
        release: str,
        query: str,
        response_a: str,
        response_b: str,
        *,
        category: str,
        statistics_a: Mapping[str, float] | None,
        timeout: float,
    ) -> Compared:
        """Compare two responses; `statistics_a` are those of the first, when the student wrote it."""
        ...


class Releases(Protocol):
    """Where a query finds the release that serves it."""

    def champion(self) -> Release | None:
        """Return the release that serves now; None until every role holds one."""
        ...

    async def find(self, release: str) -> Release:
        """Return a release by its id; raises UnknownReleaseError."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of examples: how many went to the log (or the spool)."""

    queued: int
    spooled: bool


class ExampleSink(Protocol):
    """Where examples go."""

    async def record(self, source: str, examples: Sequence[Example]) -> Recorded:
        """Queue examples; never loses one silently. Raises StorageFullError when neither log nor spool takes it."""
        ...
