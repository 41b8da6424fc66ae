"""A Message Batch as values, and the desk that it is bought at, as a protocol. It buys nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from shammah_chassis.errors import TeacherError

from shammah_gateway.money.usage import Usage
from shammah_gateway.teachers.ports import TeacherAnswer, Wish

BatchMode = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """When a batch is used ("auto": from `from_count` examples on), its size of request, and how it is polled."""

    mode: BatchMode = "auto"
    from_count: int = 50
    per_request: int = 10
    first_pause_seconds: float = 5.0
    max_pause_seconds: float = 60.0


@dataclass(slots=True)
class BatchHandle:
    """Where a batch is remembered between its steps. `state` is JSON, {} before the first step.

    `save` makes it durable before it returns; `report` tells people how far it is.
    """

    state: dict[str, Any]
    save: Callable[[Mapping[str, Any]], None]
    report: Callable[[str], None]

    def keep(self, **changes: object) -> None:
        """Change the state and save it."""
        self.state = {**self.state, **changes}
        self.save(self.state)


class BatchLostError(TeacherError):
    """The server does not know the batch."""


class BatchUnsureError(TeacherError):
    """Nobody saw whether the batch was made."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of one request. `answer` None: why is in `problem`; `again`: it was not billed and may be asked again.

    `usage` and `model` are what was billed, None and "" where nothing was.
    """

    custom_id: str
    answer: TeacherAnswer | None = None
    problem: str = ""
    again: bool = False
    model: str = ""
    usage: Usage | None = None


@runtime_checkable
class BatchDesk(Protocol):
    """Where batches are bought: one teacher's. All raise TeacherAuthError, TeacherTimeoutError, TeacherError."""

    name: str
    policy: BatchPolicy

    async def open(self, wishes: Mapping[str, Wish]) -> str:
        """Make a batch of one request a custom id; returns its id. BatchUnsureError: nobody saw whether it was made."""
        ...

    async def find(self, key: str, count: int, since: float) -> str:
        """Return the id of a batch of `count` requests whose custom ids begin with `key`; "" when there is none."""
        ...

    async def look(self, batch: str) -> tuple[bool, str]:
        """Say whether a batch has ended, and how far it is in words. BatchLostError: there is none."""
        ...

    async def read(self, batch: str) -> Sequence[BatchResult]:
        """Return the results of a batch that has ended, in any order."""
        ...

    async def cancel(self, batch: str) -> None:
        """Ask for its end; what is done by then is billed."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...
