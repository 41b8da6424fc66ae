import grpc
import pytest
from grpc import aio
from shammah_chassis import errors
from shammah_chassis.errors import InvalidInputError, OverloadedError, ShammahError, StorageFullError
from shammah_chassis.status import status_of, to_error, trailers_of

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ShammahError)]


def over_the_wire(error: ShammahError) -> ShammahError:
    failure = aio.AioRpcError(
        status_of(error), aio.Metadata(), aio.Metadata(*trailers_of(error)), details=error.message
    )
    return to_error(failure)


@pytest.mark.parametrize("kind", KINDS)
def test_each_named_error_comes_back_as_itself(kind: type[ShammahError]) -> None:
    back = over_the_wire(kind("what was wrong"))
    assert type(back) is kind
    assert (back.message, back.retry_after_seconds) == ("what was wrong", None)


def test_no_two_errors_share_a_code() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_a_class_without_a_code_of_its_own_comes_back_as_its_base() -> None:
    class DetailedError(InvalidInputError):
        def __init__(self, message: str, *, detail: str) -> None:
            super().__init__(message)
            self.detail = detail

    back = over_the_wire(DetailedError("what was wrong", detail="more"))
    assert type(back) is InvalidInputError and back.message == "what was wrong"


def test_a_retry_hint_survives_the_wire() -> None:
    assert over_the_wire(OverloadedError("full", retry_after_seconds=0.25)).retry_after_seconds == 0.25
    assert over_the_wire(OverloadedError("full", retry_after_seconds=0.0)).retry_after_seconds == 0.001


@pytest.mark.parametrize("status", list(grpc.StatusCode))
def test_a_status_of_a_foreign_server_becomes_a_named_error_too(status: grpc.StatusCode) -> None:
    back = to_error(aio.AioRpcError(status, aio.Metadata(), aio.Metadata()))
    assert back.message == status.name
    assert not isinstance(back, StorageFullError)
