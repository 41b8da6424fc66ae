"""`ModelService`: tells gateways which versions this pod holds, now and at each change.

Transport only: the state is in `HeldVersions`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from grpc import aio
from shammah.v1 import models_pb2, models_pb2_grpc

from shammah_chassis.held import HeldVersions, HeldVersionState, HoldState

SERVICE_NAME = "shammah.v1.ModelService"
_STATES = {
    HoldState.FETCHING: models_pb2.HOLD_STATE_FETCHING,
    HoldState.LOADING: models_pb2.HOLD_STATE_LOADING,
    HoldState.READY: models_pb2.HOLD_STATE_READY,
    HoldState.LEAVING: models_pb2.HOLD_STATE_LEAVING,
    HoldState.FAILED: models_pb2.HOLD_STATE_FAILED,
}


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Serves the state of one pod."""

    def __init__(self, held: HeldVersions[Any]) -> None:
        self._held = held

    async def ListVersions(
        self,
        request: models_pb2.ListVersionsRequest,
        context: aio.ServicerContext[models_pb2.ListVersionsRequest, models_pb2.ListVersionsResponse],
    ) -> models_pb2.ListVersionsResponse:
        """Return what is held now."""
        return models_pb2.ListVersionsResponse(role=self._held.role, versions=self._describe())

    async def WatchVersions(
        self,
        request: models_pb2.WatchVersionsRequest,
        context: aio.ServicerContext[models_pb2.WatchVersionsRequest, models_pb2.WatchVersionsResponse],
    ) -> AsyncIterator[models_pb2.WatchVersionsResponse]:
        """Send what is held now and after each change of a state, until the caller leaves or the pod stops."""
        seen = -1
        while not self._held.closed:
            seen = await self._held.wait_change(seen)
            yield models_pb2.WatchVersionsResponse(role=self._held.role, versions=self._describe())

    def _describe(self) -> list[models_pb2.HeldVersion]:
        return [_to_proto(held) for held in self._held.snapshot()]


def _to_proto(held: HeldVersionState) -> models_pb2.HeldVersion:
    return models_pb2.HeldVersion(
        release=held.release,
        version=held.version,
        state=_STATES[held.state],
        error_code=held.error_code,
        error_message=held.error_message,
        leases=held.leases,
        resident_bytes=held.resident_bytes,
    )
