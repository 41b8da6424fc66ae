"""Named errors: the same words as the gateway's own."""

from __future__ import annotations

import grpc
import pytest
from shammah_chassis import errors as theirs
from shammah_chassis.status import status_of, trailers_of
from shammah_client import errors
from shammah_client.errors import name_error


def kinds_of(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds_of(child))]


SENT = [kind for kind in kinds_of(theirs.ShammahError) if kind.__module__ == theirs.__name__]


@pytest.mark.parametrize("kind", SENT, ids=lambda kind: kind.__name__)
def test_every_error_of_the_gateway_has_its_name_here(kind: type[theirs.ShammahError]) -> None:
    sent = kind("so it was", retry_after_seconds=1.5)
    named = name_error(status_of(sent), sent.message, trailers_of(sent))
    assert (type(named).__name__, named.code) == (kind.__name__, kind.code)
    assert (named.message, named.retry_after_seconds) == ("so it was", 1.5)
    assert type(named).__mro__[1].__name__ == kind.__mro__[1].__name__


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineError),
        (grpc.StatusCode.UNAUTHENTICATED, errors.UnauthenticatedError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.UnavailableError),
        (grpc.StatusCode.DATA_LOSS, errors.ShammahError),
    ],
)
def test_a_status_without_our_code_has_a_name_too(status: grpc.StatusCode, kind: type[errors.ShammahError]) -> None:
    named = name_error(status, None, [("x-shammah-code", "from the future"), ("retry-after-ms", "soon")])
    assert type(named) is kind
    assert (named.message, named.retry_after_seconds) == (status.name, None)
