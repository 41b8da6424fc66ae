"""Named errors in the words of the two protocols."""

from __future__ import annotations

import json

import pytest
from shammah_chassis import errors as named
from shammah_chassis.errors import ShammahError
from shammah_gateway.http.errors import NotOfferedError, TooLargeError, UnsupportedError, tell_error


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (named.InvalidInputError("x"), 400, "invalid_request_error"),
        (named.TooLongError("x"), 400, "invalid_request_error"),
        (named.PreconditionError("x"), 400, "invalid_request_error"),
        (named.UnauthenticatedError("x"), 401, "authentication_error"),
        (named.BudgetError("x"), 402, "billing_error"),
        (named.ForbiddenError("x"), 403, "permission_error"),
        (named.UnknownReleaseError("x"), 404, "not_found_error"),
        (TooLargeError("x"), 413, "request_too_large"),
        (named.OverloadedError("x"), 529, "overloaded_error"),
        (named.StorageFullError("x"), 500, "api_error"),
        (NotOfferedError("x"), 501, "api_error"),
        (named.TeacherError("x"), 502, "api_error"),
        (named.TeacherAuthError("x"), 502, "api_error"),
        (named.UnavailableError("x"), 503, "api_error"),
        (named.TeacherTimeoutError("x"), 504, "timeout_error"),
    ],
)
def test_anthropic_status_and_type(error: ShammahError, status: int, kind: str) -> None:
    told = tell_error(error, "anthropic", "req_1")
    body = json.loads(told.body)
    assert (told.status, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["error"]["message"] == "x" and body["error"]["details"] == {"error_code": error.code}
    assert body["request_id"] == told.headers["request-id"] == "req_1"


def test_openai_has_its_own_envelope() -> None:
    told = tell_error(named.BudgetError("spent"), "openai", "req_1")
    body = json.loads(told.body)
    assert told.status == 429 and told.headers["x-request-id"] == "req_1"
    assert body["error"] == {
        "message": "spent",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (named.OverloadedError("x"), "true"),
        (named.TeacherError("x"), "true"),
        # Neither another try nor a wait mends these.
        (named.BudgetError("x"), "false"),
        (named.TeacherAuthError("x"), "false"),
        (named.InvalidInputError("x"), "false"),
    ],
)
def test_clients_are_told_whether_to_try_again(error: ShammahError, retry: str) -> None:
    assert tell_error(error, "anthropic", "r").headers["x-should-retry"] == retry


def test_a_pause_is_a_whole_number_of_seconds() -> None:
    told = tell_error(named.UnavailableError("x", retry_after_seconds=1.2), "anthropic", "r")
    assert told.headers["retry-after"] == "2"
    assert "retry-after" not in tell_error(named.UnavailableError("x"), "anthropic", "r").headers


def test_details_of_the_protocol_stand_in_the_envelope_as_they_are() -> None:
    error = UnsupportedError("x", details={"error_code": "thread_unsupported_request", "unsupported": []})
    body = json.loads(tell_error(error, "anthropic", "r").body)
    assert body["error"]["details"] == {"error_code": "thread_unsupported_request", "unsupported": []}
