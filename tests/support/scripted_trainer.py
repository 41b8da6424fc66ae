"""A trainer in gRPC whose answers are fields: what the gateway's tools see of the real one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from shammah.v1 import trainer_pb2, trainer_pb2_grpc, types_pb2
from shammah_chassis.errors import NotFoundError, ShammahError
from shammah_chassis.examples import Example


@dataclass
class ScriptedTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    """`dev` are the rows it hands out; `duplicates` and `near_exam` queries that it knows; `job` what a round is.

    `asked` are the request ids of the rounds that were asked for, `stopped` what was to be stopped; `refusal` is raised
    instead of starting a round. `known_requests` can be forgotten; `parked` counts by category. `gates` holds a call of
    that name back ("train", "check") until the event is set.
    """

    dev: list[Example] = field(default_factory=list)
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    duplicates: set[str] = field(default_factory=set)
    near_exam: set[str] = field(default_factory=set)
    job: types_pb2.Job = field(default_factory=lambda: types_pb2.Job(id="T1", state=types_pb2.JOB_STATE_RUNNING))
    asked: list[str] = field(default_factory=list)
    stopped: list[tuple[str, str]] = field(default_factory=list)
    refusal: ShammahError | None = None
    checked: list[list[str]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    known_requests: set[str] = field(default_factory=set)
    forgotten: list[str] = field(default_factory=list)
    parked: dict[str, int] = field(default_factory=dict)

    async def Train(self, request: trainer_pb2.TrainRequest, context: Any) -> trainer_pb2.TrainResponse:
        self.asked.append(request.request_id)
        if self.refusal is not None:
            raise self.refusal
        await self._pass("train")
        return trainer_pb2.TrainResponse(job=self.job)

    async def StopTrain(self, request: trainer_pb2.StopTrainRequest, context: Any) -> trainer_pb2.StopTrainResponse:
        self.stopped.append((request.id, request.request_id))
        if request.id != self.job.id and request.request_id not in self.asked:
            raise NotFoundError(f"no job {request.id}")
        self.job = types_pb2.Job(
            id=self.job.id, state=types_pb2.JOB_STATE_CANCELLED, error_code="training_stopped", error_message="stopped"
        )
        return trainer_pb2.StopTrainResponse(job=self.job)

    async def GetTrainJob(
        self, request: trainer_pb2.GetTrainJobRequest, context: Any
    ) -> trainer_pb2.GetTrainJobResponse:
        if request.id != self.job.id:
            raise NotFoundError(f"no job {request.id}")
        return trainer_pb2.GetTrainJobResponse(job=self.job)

    async def Status(self, request: trainer_pb2.StatusRequest, context: Any) -> trainer_pb2.StatusResponse:
        rows = [
            trainer_pb2.CategoryRows(category=name, train=train, dev=10, exam=10, new_train=new)
            for name, (train, new) in self.rows.items()
        ]
        return trainer_pb2.StatusResponse(categories=rows, queue_size=7, batch_size=32, device="cpu")

    async def SampleExamples(
        self, request: trainer_pb2.SampleExamplesRequest, context: Any
    ) -> trainer_pb2.SampleExamplesResponse:
        drawn = [row for row in self.dev if not request.categories or row.category in request.categories]
        return trainer_pb2.SampleExamplesResponse(
            example_json=[json.dumps(row.to_json()) for row in drawn[: request.count]]
        )

    async def CheckExamples(
        self, request: trainer_pb2.CheckExamplesRequest, context: Any
    ) -> trainer_pb2.CheckExamplesResponse:
        queries = [Example.from_json(json.loads(text)).query_text for text in request.example_json]
        self.checked.append(queries)
        await self._pass("check")
        return trainer_pb2.CheckExamplesResponse(verdicts=[self._judge(query) for query in queries])

    async def ForgetExamples(
        self, request: trainer_pb2.ForgetExamplesRequest, context: Any
    ) -> trainer_pb2.ForgetExamplesResponse:
        self.forgotten.append(request.id)
        if request.id not in self.known_requests:
            raise NotFoundError(f"no example of {request.id}")
        return trainer_pb2.ForgetExamplesResponse(examples=["e1"], messages=1, rollouts=2, releases=["R1"])

    async def UnparkExamples(
        self, request: trainer_pb2.UnparkExamplesRequest, context: Any
    ) -> trainer_pb2.UnparkExamplesResponse:
        found = {name: rows for name, rows in self.parked.items() if request.category in ("", name)}
        if not found:
            raise NotFoundError("no example is parked")
        for name in found:
            del self.parked[name]
        return trainer_pb2.UnparkExamplesResponse(examples=sum(found.values()), categories=sorted(found))

    async def _pass(self, name: str) -> None:
        if gate := self.gates.get(name):
            await gate.wait()

    def _judge(self, query: str) -> trainer_pb2.ExampleVerdict.ValueType:
        if query in self.duplicates:
            return trainer_pb2.EXAMPLE_VERDICT_DUPLICATE
        if query in self.near_exam:
            return trainer_pb2.EXAMPLE_VERDICT_NEAR_EXAM
        return trainer_pb2.EXAMPLE_VERDICT_NEW
