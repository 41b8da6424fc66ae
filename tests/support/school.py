"""A scripted gateway that behaves as one with a student: what is taught and trained shows in the next analysis.

It outlives its server, as a data folder does: stop the server, start another one for the same school, and a request id
that it knows gets the same answer without the work being done again.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message as Proto
from grpc import aio
from shammah.v1 import gateway_pb2 as pb
from shammah.v1 import types_pb2
from shammah_chassis.errors import InvalidInputError, NotFoundError, PreconditionError, ShammahError
from shammah_chassis.status import status_of, trailers_of
from shammah_gateway.cli.paths import Connection
from shammah_gateway.teach.link import Patience
from shammah_gateway.teach.run import Claude, Place
from support.scripted_gateway import ScriptedGateway

REQUEST_ID = "x-shammah-request-id"
TESTED = 25
QUICK = Patience(away=10.0, unavailable=0.3, first_pause=0.01, last_pause=0.05)


@dataclass
class Pupil:
    """One category: accuracy rises by `rise` for each 50 examples up to `most`; certified from `certified_at` on."""

    accuracy: float = 0.2
    rise: float = 0.4
    most: float = 0.96
    certified_at: float = 0.9
    stock: int = 1000
    rows_missing: int = 0


@dataclass
class School(ScriptedGateway):
    """`faults` by method, used up one a call: an error, a gRPC status, or "lost" (the work is done, the answer is not
    sent) or "job" (the work goes on as a job that is asked for twice)."""

    pupils: dict[str, Pupil] = field(default_factory=lambda: {"colour": Pupil(), "animal": Pupil()})
    known: bool = True
    teacher: str = "recorded"
    usd_each: Decimal = Decimal(0)
    faults: dict[str, list[ShammahError | grpc.StatusCode | str]] = field(default_factory=dict)
    answers: dict[str, Proto] = field(default_factory=dict)
    jobs: dict[str, tuple[Proto, int]] = field(default_factory=dict)
    worked: Counter[str] = field(default_factory=Counter)
    queued: Counter[str] = field(default_factory=Counter)
    taught: Counter[str] = field(default_factory=Counter)
    usd: Decimal = Decimal(0)
    on_call: Callable[[str], None] = lambda method: None

    async def serve(self, method: str, request: Proto, context: aio.ServicerContext[Any, Any]) -> Proto:
        headers = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        self.asked.append((method, request))
        self.metadata.append(headers)
        self.on_call(method)
        job = getattr(request, "job", "")
        faults = self.faults.get(method, [])
        fault = faults.pop(0) if faults and not job else None
        try:
            if isinstance(fault, ShammahError):
                raise fault
            if isinstance(fault, grpc.StatusCode):
                await context.abort(fault, "told to fail")
            if fault == "hang":
                await asyncio.Event().wait()
            reply = self._follow(job) if job else self._answer(method, request, headers.get(REQUEST_ID, ""), fault)
        except ShammahError as error:
            await context.abort(status_of(error), error.message, trailers_of(error))
        if fault == "lost":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was cut")
        return reply

    def _answer(self, method: str, request: Any, request_id: str, fault: object) -> Proto:
        if method == "GetStatus":
            return self._status()
        if request_id and request_id in self.answers:
            return self.answers[request_id]
        reply: Any = {
            "AnalyzeModel": self._analyze,
            "GenerateTrainingData": self._generate,
            "Train": self._train,
            "QueryLocalModel": self._query,
            "CompareResponses": self._compare,
        }[method](request)
        self.worked[method] += 1
        if fault == "job":
            name = f"job {len(self.jobs)}"
            self.jobs[name] = (reply, 2)
            reply = type(reply)(job=types_pb2.Job(id=name, state=types_pb2.JOB_STATE_RUNNING, stage="at work"))
        if request_id:
            self.answers[request_id] = reply
        return reply

    def _follow(self, job: str) -> Proto:
        if job not in self.jobs:
            raise NotFoundError(f"there is no job {job!r} of yours")
        reply, left = self.jobs[job]
        self.jobs[job] = (reply, left - 1)
        if left > 1:
            running = types_pb2.Job(id=job, state=types_pb2.JOB_STATE_RUNNING, progress=0.5, stage="at work")
            waiting: Proto = type(reply)(job=running)
            return waiting
        done = type(reply)()
        done.CopyFrom(reply)
        done.job.CopyFrom(types_pb2.Job(id=job, state=types_pb2.JOB_STATE_DONE, progress=1.0))  # type: ignore[attr-defined]
        return done

    def _status(self) -> pb.GetStatusResponse:
        detail = f"{self.teacher}: no limit of calls" if self.teacher else "none is set up"
        spent = [pb.MoneySpent(purpose="teach", calls=1, usd=str(self.usd)), pb.MoneySpent(purpose="answer", usd="9")]
        money = pb.Money(spent=spent, baseline_model="claude-sonnet-5-5")
        return pb.GetStatusResponse(parts=[pb.PartStatus(name="teacher", ready=True, detail=detail)], money=money)

    def _analyze(self, request: pb.AnalyzeModelRequest) -> pb.AnalyzeModelResponse:
        if not self.known:
            raise PreconditionError("there are no dev examples yet: teach some first")
        if unknown := sorted(set(request.categories) - set(self.pupils)):
            raise NotFoundError(f"category {unknown[0]!r} is not known; known: {', '.join(self.pupils)}")
        rows = []
        for name, pupil in self.pupils.items():
            good = round(TESTED * pupil.accuracy)
            certified = pupil.accuracy >= pupil.certified_at and pupil.rows_missing == 0
            rows.append(
                pb.CategoryAnalysis(
                    category=name,
                    tested=TESTED,
                    accuracy=pupil.accuracy,
                    local_good=good if certified else 0,
                    certified=certified,
                    rows_missing=pupil.rows_missing,
                    expected_gain=(1 - pupil.accuracy) / 2 if pupil.rise else 0.01,
                    recommended_examples=50,
                )
            )
        mean = sum(pupil.accuracy for pupil in self.pupils.values()) / len(self.pupils)
        return pb.AnalyzeModelResponse(local_success=mean, tested=TESTED * len(rows), categories=rows)

    def _generate(self, request: pb.GenerateTrainingDataRequest) -> pb.GenerateTrainingDataResponse:
        pupil = self.pupils.get(request.category)
        if pupil is None:
            raise NotFoundError(f"category {request.category!r} is not known; known: {', '.join(self.pupils)}")
        if not 10 <= request.count <= 100:
            raise InvalidInputError(f"count is {request.count}; allowed: 10 to 100")
        made = min(request.count, pupil.stock)
        pupil.stock -= made
        self.queued[request.category] += made
        self.usd += made * self.usd_each
        self.known = True
        rejected = [pb.Rejected(reason="duplicate", count=2, example="x")] if made else []
        return pb.GenerateTrainingDataResponse(queued=made, rejected=rejected, queue_size=sum(self.queued.values()))

    def _train(self, request: pb.GatewayServiceTrainRequest) -> pb.GatewayServiceTrainResponse:
        if not self.queued:
            raise PreconditionError("nothing to train on")
        exam = []
        for name, count in self.queued.items():
            pupil, before = self.pupils[name], self.pupils[name].accuracy
            pupil.accuracy = max(before, min(pupil.most, before + pupil.rise * count / 50))
            self.taught[name] += count
            exam.append(pb.CategoryExam(category=name, rows=60, before=before, after=pupil.accuracy))
        trained = sum(self.queued.values())
        self.queued.clear()
        return pb.GatewayServiceTrainResponse(
            exam=exam, verdict="promoted", release=f"R{self.worked['Train']}", examples_trained=trained, swapped_at=1.0
        )

    def _query(self, request: pb.QueryLocalModelRequest) -> pb.QueryLocalModelResponse:
        return pb.QueryLocalModelResponse(response="blue", quality=0.5, hallucination_risk=1)

    def _compare(self, request: pb.CompareResponsesRequest) -> pb.CompareResponsesResponse:
        return pb.CompareResponsesResponse(
            local_response="blue", teacher_response=request.teacher_response or "blue", verdict="agree", reason="same"
        )


@dataclass
class Quiet:
    """A watcher that keeps what it is told."""

    ended: list[tuple[str, bool]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)

    def begin(self, step: int, tool: str, arguments: Any) -> None: ...

    def progress(self, share: float, stage: str) -> None:
        self.stages.append(stage)

    def end(self, outcome: Any, tool: str, *, cost: Decimal, replayed: bool) -> None:
        self.ended.append((tool, replayed))

    def say(self, text: str) -> None:
        self.said.append(text)


def make_place(root: Path, school: School, *, claude: Claude | None = None, patience: Patience = QUICK) -> Place:
    """Where sessions against a school run; its address is asked again each time."""
    find = lambda: Connection(target=school.address, token="t")  # noqa: E731
    return Place(root=root, find=find, patience=patience, claude=claude or Claude(key="right-key"))


def read_lines(root: Path, session: str) -> list[dict[str, Any]]:
    """The lines of a session's journal."""
    return [json.loads(line) for line in (root / session / "journal.jsonl").read_text("utf-8").splitlines()]
