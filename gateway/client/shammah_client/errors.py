"""Named errors of a gateway, and how a failed gRPC call becomes one.

The gateway sends the code of an error as trailing metadata `x-shammah-code` and a hint when to come again as
`retry-after-ms`; a status without them came from the transport. It does not know which call failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import grpc

CODE_KEY = "x-shammah-code"
RETRY_KEY = "retry-after-ms"


class ShammahError(Exception):
    """Base of all errors of this package; an error of the gateway that no name fits is one itself.

    `code` is the stable word of the error, `message` says what was wrong and what is allowed, `retry_after_seconds`
    is the gateway's hint, if it gave one.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class InvalidInputError(ShammahError):
    """A request that no retry will mend."""

    code = "invalid_input"


class TooLongError(InvalidInputError):
    """A text beyond its limit; the message names both lengths."""

    code = "too_long"


class NotFoundError(ShammahError):
    """An id that nobody knows: release, job, query, category."""

    code = "not_found"


class UnknownReleaseError(NotFoundError):
    """A release that the gateway does not have."""

    code = "unknown_release"


class UnauthenticatedError(ShammahError):
    """No token, or a token that nobody issued."""

    code = "unauthenticated"


class ForbiddenError(ShammahError):
    """The token lacks the scope that the call needs; the message names it."""

    code = "forbidden"


class OverloadedError(ShammahError):
    """A bounded queue is full."""

    code = "overloaded"


class StorageFullError(ShammahError):
    """The gateway's disk or byte limit is full."""

    code = "storage_full"


class BudgetError(ShammahError):
    """A hard budget of teacher calls or money is spent."""

    code = "budget_exhausted"


class UnavailableError(ShammahError):
    """The gateway, or a part that it needs, is away."""

    code = "unavailable"


class DeadlineError(ShammahError):
    """The answer did not come within the deadline."""

    code = "late"


class ConflictError(ShammahError):
    """Somebody else changed it first."""

    code = "conflict"


class PreconditionError(ShammahError):
    """The state does not allow it now, e.g. nothing to train on."""

    code = "precondition"


class ArtifactError(ShammahError):
    """A release whose files may not be used."""

    code = "bad_artifact"


class TeacherError(ShammahError):
    """The teacher gave no usable answer."""

    code = "teacher_unavailable"


class TeacherAuthError(TeacherError):
    """The teacher refused the gateway's key."""

    code = "teacher_auth"


class TeacherTimeoutError(TeacherError):
    """The teacher was too late."""

    code = "teacher_timeout"


class TeacherRefusedError(TeacherError):
    """The teacher declined to answer."""

    code = "teacher_refused"


class TeacherTruncatedError(TeacherError):
    """The teacher's answer was cut."""

    code = "teacher_truncated"


# For a status without our code: from the transport, or from a server that is not a gateway.
_BY_STATUS: dict[grpc.StatusCode, type[ShammahError]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: ForbiddenError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInputError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
}


def name_error(
    status: grpc.StatusCode, details: str | None, trailers: Iterable[tuple[str, str | bytes]]
) -> ShammahError:
    """Return the named error of a failed call: by the code that the gateway sent, else by the gRPC status."""
    sent = dict(trailers)
    kind = _by_code().get(str(sent.get(CODE_KEY, "")), _BY_STATUS.get(status, ShammahError))
    hint = str(sent.get(RETRY_KEY, ""))
    seconds = int(hint) / 1000 if hint.isdecimal() else None
    return kind(details or status.name, retry_after_seconds=seconds)


def _by_code() -> dict[str, type[ShammahError]]:
    return {kind.code: kind for kind in _kinds(ShammahError)}


def _kinds(root: type[ShammahError]) -> Iterator[type[ShammahError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
