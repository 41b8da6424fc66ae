"""Named errors as the two protocols tell them: status, headers and JSON envelope.

The one table from named errors to HTTP. It knows no route.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from shammah_chassis.errors import (
    BudgetError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    ShammahError,
    TeacherAuthError,
    TeacherError,
    TeacherRefusedError,
    TeacherTimeoutError,
    TeacherTruncatedError,
    UnauthenticatedError,
    UnavailableError,
)

Style = Literal["anthropic", "openai"]


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one kind of error is told: Anthropic's status and type, OpenAI's status, type and code.

    `retry`: whether another try may help; the SDKs of both believe the header x-should-retry.
    """

    status: int
    kind: str
    openai_status: int
    openai_kind: str
    openai_code: str | None = None
    retry: bool = False


_INVALID = _Shape(400, "invalid_request_error", 400, "invalid_request_error")
_SERVER = _Shape(500, "api_error", 500, "server_error", retry=True)
_NO_ANSWER = _Shape(502, "api_error", 502, "server_error")
# The first class that fits counts, so a subclass stands before its base.
_SHAPES: tuple[tuple[type[ShammahError], _Shape], ...] = (
    (InvalidInputError, _INVALID),
    (PreconditionError, _INVALID),
    (UnauthenticatedError, _Shape(401, "authentication_error", 401, "invalid_request_error", "invalid_api_key")),
    (ForbiddenError, _Shape(403, "permission_error", 403, "invalid_request_error", "permission_denied")),
    (NotFoundError, _Shape(404, "not_found_error", 404, "invalid_request_error", "not_found")),
    (OverloadedError, _Shape(529, "overloaded_error", 503, "server_error", "overloaded", retry=True)),
    # No retry mends a spent budget. 402 is Anthropic's, 429 insufficient_quota OpenAI's word for it.
    (BudgetError, _Shape(402, "billing_error", 429, "insufficient_quota", "insufficient_quota")),
    # Our key, not the caller's: a 401 would blame the wrong one.
    (TeacherAuthError, _NO_ANSWER),
    (TeacherTimeoutError, _Shape(504, "timeout_error", 504, "server_error", "timeout")),
    (TeacherRefusedError, _NO_ANSWER),
    (TeacherTruncatedError, _NO_ANSWER),
    (TeacherError, _Shape(502, "api_error", 502, "server_error", retry=True)),
    (DeadlineError, _Shape(504, "timeout_error", 504, "server_error", "timeout", retry=True)),
    (ConflictError, _Shape(409, "conflict_error", 409, "invalid_request_error", "conflict", retry=True)),
    (UnavailableError, _Shape(503, "api_error", 503, "server_error", "unavailable", retry=True)),
)


class TooLargeError(InvalidInputError):
    """A request body beyond its limit."""

    code = "request_too_large"


class MethodError(InvalidInputError):
    """A known path with a method that it does not have."""

    code = "method_not_allowed"


class UnsupportedError(InvalidInputError):
    """The student can't do what a forced-local request asks for; `details` go into the envelope as they are."""

    code = "unsupported"

    def __init__(
        self, message: str, *, retry_after_seconds: float | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.details = dict(details or {})


class NotOfferedError(ShammahError):
    """A route of the protocol that only an upstream can serve, and there is none."""

    code = "not_offered"
    status = "UNIMPLEMENTED"


_OWN: tuple[tuple[type[ShammahError], _Shape], ...] = (
    (TooLargeError, _Shape(413, "request_too_large", 413, "invalid_request_error", "request_too_large")),
    (MethodError, _Shape(405, "invalid_request_error", 405, "invalid_request_error", "method_not_allowed")),
    (NotOfferedError, _Shape(501, "api_error", 501, "server_error", "not_offered")),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as HTTP tells it."""

    status: int
    body: bytes
    headers: dict[str, str]


def tell_error(error: ShammahError, style: Style, request_id: str) -> Failure:
    """Return status, JSON envelope and headers of an error in the form of a protocol."""
    shape = _find_shape(error)
    openai = style == "openai"
    body = _openai_body(error, shape) if openai else anthropic_error(error, request_id)
    headers = {
        "content-type": "application/json",
        "x-request-id" if openai else "request-id": request_id,
        "x-should-retry": "true" if shape.retry else "false",
    }
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_seconds)))
    return Failure(shape.openai_status if openai else shape.status, json.dumps(body).encode(), headers)


def anthropic_error(error: ShammahError, request_id: str) -> dict[str, Any]:
    """Return the envelope of the Messages API; it is also the data of an SSE event `error`."""
    details = getattr(error, "details", None) or {"error_code": error.code}
    told = {"type": _find_shape(error).kind, "message": error.message, "details": details}
    return {"type": "error", "error": told, "request_id": request_id}


def openai_error(error: ShammahError) -> dict[str, Any]:
    """Return the envelope of OpenAI's API; it is also the data of a failed stream's last chunk."""
    return _openai_body(error, _find_shape(error))


def _openai_body(error: ShammahError, shape: _Shape) -> dict[str, Any]:
    code = shape.openai_code or error.code
    param = getattr(error, "param", None)
    return {"error": {"message": error.message, "type": shape.openai_kind, "param": param, "code": code}}


def _find_shape(error: ShammahError) -> _Shape:
    return next((shape for kind, shape in (*_OWN, *_SHAPES) if isinstance(error, kind)), _SERVER)
