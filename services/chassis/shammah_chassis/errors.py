"""Named errors of every part, free of any transport.

Each class carries a stable `code` (the word that clients see) and a `status`, the name of the gRPC status it maps to.
The one table that turns it into a wire status is in `shammah_chassis.interceptors`. Knows neither grpc nor HTTP.
"""

from __future__ import annotations

from typing import ClassVar


class ShammahError(Exception):
    """Base of all named errors.

    The message is meant for the caller: it says what was wrong and what is allowed.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class InvalidInputError(ShammahError):
    """A request that no retry will mend: out of range, empty, malformed."""

    code = "invalid_input"
    status = "INVALID_ARGUMENT"


class TooLongError(InvalidInputError):
    """A text beyond its limit; the message names both lengths."""

    code = "too_long"


class NotFoundError(ShammahError):
    """An id that nobody knows: release, version, job, category."""

    code = "not_found"
    status = "NOT_FOUND"


class UnknownReleaseError(NotFoundError):
    """A release that this process does not hold or the store does not have."""

    code = "unknown_release"


class UnauthenticatedError(ShammahError):
    """No token, or a token that nobody issued."""

    code = "unauthenticated"
    status = "UNAUTHENTICATED"


class ForbiddenError(ShammahError):
    """A known token without the scope that the call needs; the message names it."""

    code = "forbidden"
    status = "PERMISSION_DENIED"


class OverloadedError(ShammahError):
    """A bounded queue is full; `retry_after_seconds` is a hint."""

    code = "overloaded"
    status = "RESOURCE_EXHAUSTED"


class UnavailableError(ShammahError):
    """A part that is needed is away."""

    code = "unavailable"
    status = "UNAVAILABLE"


class DeadlineError(ShammahError):
    """A part that was too late."""

    code = "late"
    status = "DEADLINE_EXCEEDED"


class ConflictError(ShammahError):
    """A compare-and-set that somebody else won, or a lease that another holds."""

    code = "conflict"
    status = "ABORTED"


class PreconditionError(ShammahError):
    """The state does not allow it now, e.g. nothing to train on."""

    code = "precondition"
    status = "FAILED_PRECONDITION"


class ArtifactError(ShammahError):
    """An artifact that may not be used: digest, size, role, format or shape is wrong."""

    code = "bad_artifact"
    status = "DATA_LOSS"


class StorageFullError(ShammahError):
    """The disk (or a byte limit) is full; nothing was half published."""

    code = "storage_full"
    status = "RESOURCE_EXHAUSTED"


class TeacherError(ShammahError):
    """The teacher gave no usable answer; no example is made of it."""

    code = "teacher_unavailable"
    status = "UNAVAILABLE"


class TeacherAuthError(TeacherError):
    """The teacher refused our key."""

    code = "teacher_auth"
    status = "FAILED_PRECONDITION"


class TeacherTimeoutError(TeacherError):
    """The teacher was too late."""

    code = "teacher_timeout"
    status = "DEADLINE_EXCEEDED"


class TeacherRefusedError(TeacherError):
    """The teacher declined to answer (stop_reason refusal)."""

    code = "teacher_refused"
    status = "FAILED_PRECONDITION"


class TeacherTruncatedError(TeacherError):
    """The teacher's answer was cut (max_tokens, or a stream that ended early)."""

    code = "teacher_truncated"
    status = "OUT_OF_RANGE"


class BudgetError(ShammahError):
    """A hard budget (teacher calls or money) is spent."""

    code = "budget_exhausted"
    status = "RESOURCE_EXHAUSTED"
