"""Calls of the five tools over gRPC that survive a gateway which is killed and started again.

A call carries a request id: sent again, it gives the same job again, nothing is done twice. A job is followed by the
tool's own `job` argument. It knows no journal and no planner.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message as Proto
from shammah.v1 import gateway_pb2, gateway_pb2_grpc, types_pb2
from shammah_chassis.channels import channel
from shammah_chassis.errors import InvalidInputError, NotFoundError, ShammahError, UnavailableError
from shammah_chassis.status import CODE_KEY, to_error

from shammah_gateway.cli.console import as_dict
from shammah_gateway.cli.manage import ENDED, TOOL_CALLS
from shammah_gateway.cli.paths import Connection
from shammah_gateway.teach.ending import TeachingEndError
from shammah_gateway.wire import REQUEST_ID_KEY

# A tool waits 25 s at most; beyond this the connection is dead, not slow.
CALL_SECONDS = 90.0
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a gateway that is away is waited for, and one that says "unavailable" (it has just started), in seconds.

    Pauses double from `first_pause` to `last_pause`.
    """

    away: float = 180.0
    unavailable: float = 20.0
    first_pause: float = 0.2
    last_pause: float = 3.0


class GatewayLink:
    """A link to one gateway; `find` says where it is now (asked again after each failure). An async context manager."""

    def __init__(self, find: Callable[[], Connection], *, patience: Patience | None = None) -> None:
        self._find = find
        self._patience = patience or Patience()
        self._connection: Connection | None = None
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> GatewayLink:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def call(
        self, tool: str, arguments: dict[str, Any], *, request_id: str, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Call a tool and follow its job to the end; returns its result, without the job.

        Raises:
            InvalidInputError: no such tool, or an argument that it does not have.
            TeachingEndError: the gateway stayed away. ShammahError: the named error of the tool or of its job.
        """
        if tool not in TOOL_CALLS:
            raise InvalidInputError(f"no tool {tool!r}; there are {', '.join(TOOL_CALLS)}")
        method, kind = TOOL_CALLS[tool]
        try:
            request = ParseDict(arguments, kind())
        except ParseError as error:
            allowed = ", ".join(field.name for field in kind.DESCRIPTOR.fields)
            raise InvalidInputError(f"{tool}: {error}; allowed arguments: {allowed}") from error
        answer = await self._send(method, request, request_id)
        while _has_job(answer) and answer.job.state not in ENDED:
            if progress is not None:
                progress(answer.job.progress, answer.job.stage)
            try:
                answer = await self._send(method, kind(job=answer.job.id))
            except NotFoundError:
                # A gateway that forgot the job (it kept no state) is asked by the request id, which starts it anew.
                answer = await self._send(method, request, request_id)
        if _has_job(answer) and answer.job.state != types_pb2.JOB_STATE_DONE:
            raise name_failure(answer.job)
        result = as_dict(answer)
        result.pop("job", None)
        return result

    async def read_status(self) -> gateway_pb2.GetStatusResponse:
        """Return the state of the whole. Raises as `call`."""
        answer: gateway_pb2.GetStatusResponse = await self._send("GetStatus", gateway_pb2.GetStatusRequest())
        return answer

    async def _send(self, method: str, request: Proto, request_id: str = "") -> Any:  # noqa: ANN401 - any reply
        """Send one call; again and again while the gateway is away, as long as the patience lasts."""
        begun = time.monotonic()
        pause = self._patience.first_pause
        while True:
            try:
                return await self._try(method, request, request_id)
            except grpc.aio.AioRpcError as failure:
                error: ShammahError = to_error(failure)
                lost = is_lost(failure)
            except UnavailableError as nowhere:
                # Nothing runs on the data folder now.
                error, lost = nowhere, True
            if not lost and type(error) is not UnavailableError:
                raise error
            limit = self._patience.away if lost else self._patience.unavailable
            if time.monotonic() - begun + pause > limit:
                if lost:
                    raise TeachingEndError("unreachable", f"the gateway is away: {error.message}") from error
                raise error
            if lost:
                await self._close()
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._patience.last_pause)

    async def _try(self, method: str, request: Proto, request_id: str) -> object:
        stub = await self._open()
        metadata = ((REQUEST_ID_KEY, request_id),) if request_id else None
        call: Awaitable[object] = getattr(stub, method)(request, timeout=CALL_SECONDS, metadata=metadata)
        return await call

    async def _open(self) -> gateway_pb2_grpc.GatewayServiceAsyncStub:
        if self._channel is None:
            self._connection = self._find()
            self._channel = channel(self._connection.target, self._connection.token)
        return gateway_pb2_grpc.GatewayServiceStub(self._channel)

    async def _close(self) -> None:
        opened, self._channel = self._channel, None
        if opened is not None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await opened.close()


def is_lost(failure: grpc.aio.AioRpcError) -> bool:
    """Say whether a call failed on its way: by a status without a code of ours. The call may have been received."""
    named = dict(tuple(failure.trailing_metadata() or ())).get(CODE_KEY)
    return named is None and failure.code() in _LOST


def name_failure(job: types_pb2.Job) -> ShammahError:
    """Return the named error that a job failed with."""
    kinds: list[type[ShammahError]] = [ShammahError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    known = {kind.code: kind for kind in kinds if "code" in vars(kind) and kind is not TeachingEndError}
    if job.state == types_pb2.JOB_STATE_CANCELLED:
        return ShammahError(f"job {job.id} was cancelled: {job.error_message or 'by somebody'}")
    return known.get(job.error_code, ShammahError)(job.error_message or f"job {job.id} failed")


def _has_job(answer: Any) -> bool:  # noqa: ANN401 - any reply
    return "job" in answer.DESCRIPTOR.fields_by_name and answer.HasField("job")
