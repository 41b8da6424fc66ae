"""What went wrong with one call to a remote teacher, in words that retry, breaker and fallback share.

Sources: HTTP status, headers and error types of the Messages API and of OpenAI-style servers. It makes no call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

from shammah_chassis.errors import TeacherAuthError, TeacherError, TeacherTimeoutError, TeacherTruncatedError

FaultKind = Literal["connection", "timeout", "rate_limit", "overloaded", "server", "cut", "auth", "billing", "invalid"]
# 409 is a conflict inside the server (the SDKs retry it too); 504 and 408: the server itself was too late.
_BY_STATUS: dict[int, FaultKind] = {
    401: "auth", 402: "billing", 403: "auth", 408: "timeout", 409: "server", 429: "rate_limit",
    503: "overloaded", 504: "timeout", 529: "overloaded",
}  # fmt: skip
_BY_TYPE: dict[str, FaultKind] = {
    "rate_limit_error": "rate_limit",
    "overloaded_error": "overloaded",
    "api_error": "server",
    "timeout_error": "timeout",
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "billing",
    "invalid_request_error": "invalid",
    "not_found_error": "invalid",
    "request_too_large": "invalid",
}
_PASSING = frozenset({"connection", "timeout", "rate_limit", "overloaded", "server", "cut"})


class TeacherCutOffError(TeacherTruncatedError):
    """The connection ended before the answer did: another try or another teacher may give the whole one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed call. `status` is 0 where none was received; `retry`: the same server may be asked again.

    `unseen`: the server may have done the work, and bill it, though we saw no end of it.
    """

    kind: FaultKind
    detail: str = ""
    status: int = 0
    retry: bool = False
    retry_after_seconds: float | None = None
    unseen: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether the fault is the server's: another one may be asked, and the breaker counts it."""
        return self.kind != "invalid"

    def __str__(self) -> str:
        status = f" (HTTP {self.status})" if self.status else ""
        return f"{self.kind.replace('_', ' ')}{status}" + (f": {self.detail}" if self.detail else "")


class AttemptError(Exception):
    """One call failed by `fault`; whoever made the call may be able to try again."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def read_fault(status: int, headers: Mapping[str, str], detail: str = "") -> Fault | None:
    """Return the fault of an HTTP reply; None below 400.

    `headers` with lower-case names (or a case-insensitive mapping). `x-should-retry` beats the status.
    """
    if status < 400:
        return None
    kind = _BY_STATUS.get(status) or ("server" if status >= 500 else "invalid")
    told = headers.get("x-should-retry", "")
    retry = told == "true" if told in ("true", "false") else kind in _PASSING
    return Fault(kind, detail, status, retry, read_retry_after(headers))


def read_event_fault(error_type: str, detail: str = "") -> Fault:
    """Return the fault of an error that came inside of a stream (its HTTP status was 200)."""
    kind = _BY_TYPE.get(error_type, "server")
    return Fault(kind, detail or error_type, retry=kind in _PASSING, unseen=True)


def lose_connection(detail: str, *, sent: bool = False) -> Fault:
    """Return the fault of a connection that failed before a reply; `sent`: the request may have arrived."""
    return Fault("connection", detail, retry=True, unseen=sent)


def run_late(detail: str) -> Fault:
    """Return the fault of our own patience running out: no time is left, and the call may have been billed."""
    return Fault("timeout", detail, unseen=True)


def cut_off(detail: str) -> Fault:
    """Return the fault of a reply that ended before the answer did."""
    return Fault("cut", detail, retry=True, unseen=True)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how long the server asks to wait, in seconds: `retry-after-ms`, else `retry-after` (number or date)."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) * scale
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def name_error(who: str, fault: Fault) -> TeacherError:
    """Return the named error that a caller sees."""
    where = f" (HTTP {fault.status})" if fault.status else ""
    told = f": {fault.detail}" if fault.detail else ""
    wait = fault.retry_after_seconds
    match fault.kind:
        case "auth":
            return TeacherAuthError(f"teacher {who} refused our key{where}{told}")
        case "timeout":
            return TeacherTimeoutError(f"teacher {who} was too late{where}{told}", retry_after_seconds=wait)
        case "cut":
            return TeacherCutOffError(f"the answer of teacher {who} was cut off{told}")
        case "connection":
            return TeacherError(f"teacher {who} can't be reached{told}")
        case kind:
            return TeacherError(
                f"teacher {who} failed, {kind.replace('_', ' ')}{where}{told}", retry_after_seconds=wait
            )
