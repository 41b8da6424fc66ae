from __future__ import annotations

from email.utils import formatdate

import pytest
from shammah_chassis.errors import TeacherAuthError, TeacherError, TeacherTimeoutError, TeacherTruncatedError
from shammah_gateway.teachers.faults import cut_off, name_error, read_event_fault, read_fault, read_retry_after


@pytest.mark.parametrize(
    ("status", "kind", "retry", "elsewhere"),
    [
        (400, "invalid", False, False),
        (401, "auth", False, True),
        (402, "billing", False, True),
        (403, "auth", False, True),
        (404, "invalid", False, False),
        (408, "timeout", True, True),
        (409, "server", True, True),
        (413, "invalid", False, False),
        (422, "invalid", False, False),
        (429, "rate_limit", True, True),
        (500, "server", True, True),
        (502, "server", True, True),
        (503, "overloaded", True, True),
        (504, "timeout", True, True),
        (529, "overloaded", True, True),
    ],
)
def test_a_status_says_what_may_be_done(status: int, kind: str, retry: bool, elsewhere: bool) -> None:
    fault = read_fault(status, {})
    assert fault is not None
    assert (fault.kind, fault.retry, fault.elsewhere) == (kind, retry, elsewhere)


def test_a_success_is_no_fault() -> None:
    assert read_fault(200, {"retry-after": "3"}) is None
    assert read_fault(304, {}) is None


@pytest.mark.parametrize(
    ("status", "told", "retry"), [(500, "false", False), (400, "true", True), (500, "maybe", True)]
)
def test_the_servers_word_on_retries_beats_the_status(status: int, told: str, retry: bool) -> None:
    fault = read_fault(status, {"x-should-retry": told})
    assert fault is not None and fault.retry is retry


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "300"}, 300.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "300"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": formatdate(0, usegmt=True)}, 0.0),
        ({}, None),
    ],
)
def test_the_wait_that_is_asked_for_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers) == seconds


def test_an_error_inside_of_a_stream_is_read_by_its_type() -> None:
    assert (read_event_fault("overloaded_error").kind, read_event_fault("overloaded_error").retry) == (
        "overloaded",
        True,
    )
    assert read_event_fault("invalid_request_error").retry is False
    assert read_event_fault("something_new").kind == "server"


@pytest.mark.parametrize(
    ("status", "error"), [(401, TeacherAuthError), (504, TeacherTimeoutError), (429, TeacherError), (402, TeacherError)]
)
def test_a_fault_becomes_a_named_error_with_the_servers_words(status: int, error: type[TeacherError]) -> None:
    fault = read_fault(status, {"retry-after": "7"}, "the words")
    assert fault is not None
    named = name_error("claude", fault)
    assert type(named) is error
    assert "claude" in named.message and "the words" in named.message and str(status) in named.message
    if error is not TeacherAuthError:
        assert named.retry_after_seconds == 7


def test_a_cut_answer_is_a_truncated_one() -> None:
    assert isinstance(name_error("claude", cut_off("half a line")), TeacherTruncatedError)
