"""The gRPC door of the gateway: proto to plain values and back, nothing else.

Scopes and errors are the interceptor's; what happens is `gateway` and the tools.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message as Proto
from shammah.v1 import gateway_pb2 as pb
from shammah.v1 import gateway_pb2_grpc
from shammah_chassis.errors import PreconditionError
from shammah_chassis.releases import Release
from shammah_chassis.scopes import current_caller

from shammah_gateway.consent.calls import Outcome
from shammah_gateway.forget import forget_request
from shammah_gateway.gateway import Gateway
from shammah_gateway.offers import Sieve
from shammah_gateway.status import read_status
from shammah_gateway.tools.registry import call_tool
from shammah_gateway.tools.schemas import JobView, TrainResult
from shammah_gateway.wire import read_arguments, read_ask, read_request_id, write_answer, write_release, write_result

SERVICE_NAME = "shammah.v1.GatewayService"
Reply = TypeVar("Reply", bound=Proto)
Context = grpc.aio.ServicerContext[Any, Any]


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    """Every rpc of the gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def Ask(self, request: pb.AskRequest, context: Context) -> pb.AskResponse:
        """Answer a query."""
        return write_answer(await self._gateway.ask(read_ask(request, current_caller())))

    async def QueryLocalModel(self, request: pb.QueryLocalModelRequest, context: Context) -> pb.QueryLocalModelResponse:
        """Tool query_local_model."""
        return await self._call("query_local_model", request, context, pb.QueryLocalModelResponse())

    async def CompareResponses(
        self, request: pb.CompareResponsesRequest, context: Context
    ) -> pb.CompareResponsesResponse:
        """Tool compare_responses."""
        return await self._call("compare_responses", request, context, pb.CompareResponsesResponse())

    async def GenerateTrainingData(
        self, request: pb.GenerateTrainingDataRequest, context: Context
    ) -> pb.GenerateTrainingDataResponse:
        """Tool generate_training_data."""
        return await self._call("generate_training_data", request, context, pb.GenerateTrainingDataResponse())

    async def AnalyzeModel(self, request: pb.AnalyzeModelRequest, context: Context) -> pb.AnalyzeModelResponse:
        """Tool analyze_model."""
        return await self._call("analyze_model", request, context, pb.AnalyzeModelResponse())

    async def Train(self, request: pb.GatewayServiceTrainRequest, context: Context) -> pb.GatewayServiceTrainResponse:
        """Tool train."""
        return await self._call("train", request, context, pb.GatewayServiceTrainResponse())

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """State of a job of the caller."""
        jobs = self._gateway.jobs
        record = jobs.get(request.id, current_caller().name)
        if request.wait_seconds > 0:
            await jobs.wait(record, request.wait_seconds)
        # Any result with a job will do to carry it over.
        filled = write_result(TrainResult(job=JobView.of(record)), pb.GatewayServiceTrainResponse())
        return pb.GetJobResponse(job=filled.job)

    async def SendFeedback(self, request: pb.SendFeedbackRequest, context: Context) -> pb.SendFeedbackResponse:
        """Rate an answer."""
        done = await self._gateway.feedback.rate(
            current_caller().name, request.query_id, request.rating, request.correction
        )
        return pb.SendFeedbackResponse(effect=done.effect, weight=done.weight)

    async def SubmitExamples(self, request: pb.SubmitExamplesRequest, context: Context) -> pb.SubmitExamplesResponse:
        """Put recorded examples on the stream."""
        async with self._noted("submit_examples", request) as told:
            trusted = "admin" in current_caller().scopes
            sieve, spooled = await self._gateway.submit(request.example_json, trusted=trusted)
            told["queued"] = len(sieve.passed)
        return pb.SubmitExamplesResponse(queued=len(sieve.passed), rejected=_write_rejected(sieve), spooled=spooled)

    async def ListReleases(self, request: pb.ListReleasesRequest, context: Context) -> pb.ListReleasesResponse:
        """Releases, newest first."""
        found = await self._gateway.releases.list_releases()
        return pb.ListReleasesResponse(releases=[self._describe(release) for release in found])

    async def PromoteRelease(self, request: pb.PromoteReleaseRequest, context: Context) -> pb.PromoteReleaseResponse:
        """Make a release the champion."""
        async with self._noted("promote", request) as told:
            champion, previous = await self._gateway.releases.promote(request.release, force=request.force)
            told.update(champion=champion, previous=previous)
        return pb.PromoteReleaseResponse(champion=champion, previous=previous)

    async def RollbackRelease(self, request: pb.RollbackReleaseRequest, context: Context) -> pb.RollbackReleaseResponse:
        """Go back to an earlier release."""
        started = time.monotonic()
        async with self._noted("rollback", request) as told:
            champion, previous = await self._gateway.releases.rollback(request.release)
            told.update(champion=champion, previous=previous)
        return pb.RollbackReleaseResponse(champion=champion, previous=previous, seconds=time.monotonic() - started)

    async def PinRelease(self, request: pb.PinReleaseRequest, context: Context) -> pb.PinReleaseResponse:
        """Keep a release, or stop keeping it."""
        async with self._noted("pin", request) as told:
            release = await self._gateway.releases.pin(request.release, pinned=request.pinned)
            told.update(release=release.id, pinned=request.pinned)
        return pb.PinReleaseResponse(release=self._describe(release))

    async def ForgetRequest(self, request: pb.ForgetRequestRequest, context: Context) -> pb.ForgetRequestResponse:
        """Remove what a request left, wherever it is."""
        async with self._noted("forget", request) as told:
            reply = await forget_request(self._gateway, request.id)
            told.update(request=request.id, examples=len(reply.examples), releases=list(reply.releases))
        return reply

    async def UnparkExamples(
        self, request: pb.GatewayServiceUnparkExamplesRequest, context: Context
    ) -> pb.GatewayServiceUnparkExamplesResponse:
        """Queue parked examples again."""
        async with self._noted("unpark", request) as told:
            reply = await self._gateway.trainer.unpark(request.category)
            told.update(examples=reply.examples, categories=list(reply.categories))
        return pb.GatewayServiceUnparkExamplesResponse(examples=reply.examples, categories=reply.categories)

    async def TakeCheckpoint(self, request: pb.TakeCheckpointRequest, context: Context) -> pb.TakeCheckpointResponse:
        """Keep a checkpoint of now."""
        async with self._noted("checkpoint", request) as told:
            checkpoint = await self._gateway.housekeeper.take_checkpoint("on demand")
            if checkpoint is None:
                raise PreconditionError("no release serves yet: there is nothing to keep a checkpoint of")
            told.update(checkpoint=checkpoint.id, release=checkpoint.release)
        return pb.TakeCheckpointResponse(id=checkpoint.id, release=checkpoint.release)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        """State of the whole."""
        return await read_status(self._gateway)

    def _noted(self, name: str, request: Proto) -> AbstractAsyncContextManager[Outcome]:
        """Note an order in the audit log before it is carried out, and what came of it after."""
        return self._gateway.consent.calls.watch(
            "order", name, caller=current_caller().name, arguments=read_arguments(request)
        )

    async def _call(self, name: str, request: Proto, context: Context, reply: Reply) -> Reply:
        result = await call_tool(
            self._gateway.tools,
            current_caller(),
            name,
            read_arguments(request),
            request_id=read_request_id(context.invocation_metadata()),
        )
        return write_result(result, reply)

    def _describe(self, release: Release) -> pb.ReleaseInfo:
        champion = self._gateway.releases.desired
        return write_release(
            release,
            state=self._gateway.release_state(release.id, release.verdict),
            pinned=champion is not None and release.id in champion.pinned,
        )


def _write_rejected(sieve: Sieve) -> Sequence[pb.Rejected]:
    return [pb.Rejected(reason=reason, count=count, example=sample) for reason, count, sample in sieve.rejected]
