"""Client of the trainer: start and stop rounds, ask after them, draw and check examples. Named errors, plain values.

It does not know how anything is trained.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Sequence
from typing import Literal, TypeVar

import grpc
from shammah.v1 import trainer_pb2, trainer_pb2_grpc, types_pb2
from shammah_chassis.channels import channel
from shammah_chassis.errors import UnavailableError
from shammah_chassis.examples import Example, canonical_json
from shammah_chassis.status import to_error

Reply = TypeVar("Reply")
Verdict = Literal["new", "duplicate", "near_exam", "forbidden"]
SECONDS = 30.0
WAIT_SECONDS = 20.0
_VERDICTS: dict[int, Verdict] = {
    trainer_pb2.EXAMPLE_VERDICT_NEW: "new",
    trainer_pb2.EXAMPLE_VERDICT_DUPLICATE: "duplicate",
    trainer_pb2.EXAMPLE_VERDICT_NEAR_EXAM: "near_exam",
    trainer_pb2.EXAMPLE_VERDICT_FORBIDDEN: "forbidden",
}


class TrainerClient:
    """The trainer behind one target; "" means that there is none, and every call raises UnavailableError."""

    def __init__(self, target: str, token: str | None) -> None:
        self.target = target
        self._channel = channel(target, token) if target else None

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    async def train(self, reason: str, *, request_id: str = "") -> types_pb2.Job:
        """Start a round, or return the job of the one that runs; the same `request_id` is the same round again."""
        request = trainer_pb2.TrainRequest(reason=reason, request_id=request_id)
        return (await _named(self._stub().Train(request, timeout=SECONDS))).job

    async def stop(self, job: str, *, request_id: str = "") -> types_pb2.Job:
        """Stop a round, named by its job or by the request that began it; returns its job, ended if it ends soon.

        Raises:
            NotFoundError: no such round.
        """
        request = trainer_pb2.StopTrainRequest(id=job, request_id=request_id)
        return (await _named(self._stub().StopTrain(request, timeout=SECONDS))).job

    async def get_job(self, job: str, *, wait_seconds: float = WAIT_SECONDS) -> types_pb2.Job:
        """Return a job of the trainer, waiting at most `wait_seconds` for its end."""
        request = trainer_pb2.GetTrainJobRequest(id=job, wait_seconds=wait_seconds)
        return (await _named(self._stub().GetTrainJob(request, timeout=wait_seconds + SECONDS))).job

    async def status(self) -> trainer_pb2.StatusResponse:
        """Return queue, ledger and last round."""
        return await _named(self._stub().Status(trainer_pb2.StatusRequest(), timeout=SECONDS))

    async def sample(self, count: int, categories: Sequence[str], seed: int) -> list[Example]:
        """Draw at most `count` dev examples, of some categories or all (empty)."""
        request = trainer_pb2.SampleExamplesRequest(count=count, categories=categories, seed=seed)
        reply = await _named(self._stub().SampleExamples(request, timeout=SECONDS))
        return [Example.from_json(json.loads(text)) for text in reply.example_json]

    async def forget(self, name: str) -> trainer_pb2.ForgetExamplesResponse:
        """Remove what a request (or an example) of that id left in log and ledger.

        Raises:
            NotFoundError: there is nothing of it.
        """
        return await _named(self._stub().ForgetExamples(trainer_pb2.ForgetExamplesRequest(id=name), timeout=SECONDS))

    async def unpark(self, category: str) -> trainer_pb2.UnparkExamplesResponse:
        """Queue what is parked again, of one category or all ("").

        Raises:
            NotFoundError: nothing is parked, or nothing of that category.
        """
        request = trainer_pb2.UnparkExamplesRequest(category=category)
        return await _named(self._stub().UnparkExamples(request, timeout=SECONDS))

    async def check(self, examples: Sequence[Example]) -> list[Verdict]:
        """Say what ingestion would do with each example."""
        if not examples:
            return []
        rows = [canonical_json(example.to_json()) for example in examples]
        request = trainer_pb2.CheckExamplesRequest(example_json=rows)
        reply = await _named(self._stub().CheckExamples(request, timeout=SECONDS))
        return [_VERDICTS.get(verdict, "new") for verdict in reply.verdicts]

    def _stub(self) -> trainer_pb2_grpc.TrainerServiceAsyncStub:
        if self._channel is None:
            raise UnavailableError("no trainer is set up for this gateway")
        return trainer_pb2_grpc.TrainerServiceStub(self._channel)


async def _named(call: Awaitable[Reply]) -> Reply:
    try:
        return await call
    except grpc.aio.AioRpcError as failure:
        raise to_error(failure) from failure
