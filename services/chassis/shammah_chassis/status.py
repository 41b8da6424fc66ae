"""The one table between named errors and gRPC: status, details, and the trailing metadata that carries the rest.

`describe` goes out of a server, `to_error` comes back in at a client. It does not know which call failed.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from shammah_chassis.errors import (
    ConflictError,
    DeadlineError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    ShammahError,
    UnauthenticatedError,
    UnavailableError,
)

CODE_KEY = "x-shammah-code"
RETRY_KEY = "retry-after-ms"

# For a status that came without our code: from the transport, or from a server that is not ours.
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


def status_of(error: ShammahError) -> grpc.StatusCode:
    """Return the gRPC status of a named error."""
    return grpc.StatusCode[error.status]


def trailers_of(error: ShammahError) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata of a named error: its code, and the retry hint in milliseconds if it has one."""
    trailers: tuple[tuple[str, str], ...] = ((CODE_KEY, error.code),)
    if error.retry_after_seconds is not None:
        trailers += ((RETRY_KEY, str(max(1, round(error.retry_after_seconds * 1000)))),)
    return trailers


def to_error(failure: grpc.aio.AioRpcError) -> ShammahError:
    """Return the named error that a failed call stands for, with its message and its retry hint."""
    trailers = dict(tuple(failure.trailing_metadata() or ()))
    # A class without a code of its own is its base with more detail, which the wire does not carry.
    known = {kind.code: kind for kind in _all_errors() if "code" in vars(kind)}
    kind = known.get(str(trailers.get(CODE_KEY, "")), _BY_STATUS.get(failure.code(), ShammahError))
    hint = str(trailers.get(RETRY_KEY, ""))
    seconds = int(hint) / 1000 if hint.isdecimal() else None
    return kind(failure.details() or failure.code().name, retry_after_seconds=seconds)


def _all_errors(root: type[ShammahError] = ShammahError) -> Iterator[type[ShammahError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _all_errors(kind)
