"""gRPC shell of the trainer: messages to plain values and back. The work is the engine's."""

from __future__ import annotations

import json

from grpc import aio
from shammah.v1 import trainer_pb2, trainer_pb2_grpc, types_pb2
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Example
from shammah_chassis.metrics import Reading
from shammah_chassis.serving import ServiceParts

from shammah_trainer.config import TrainerSettings
from shammah_trainer.engine import TrainerEngine
from shammah_trainer.ingest import Outcome
from shammah_trainer.jobs import JobState, TrainJob
from shammah_trainer.readings import encode_result, measure_resident_bytes

SERVICE_NAME = "shammah.v1.TrainerService"
MOST_CHECKED = 1000
MOST_ID_CHARS = 128
_STATES: dict[JobState, types_pb2.JobState.ValueType] = {
    "queued": types_pb2.JOB_STATE_QUEUED,
    "running": types_pb2.JOB_STATE_RUNNING,
    "done": types_pb2.JOB_STATE_DONE,
    "failed": types_pb2.JOB_STATE_FAILED,
    "cancelled": types_pb2.JOB_STATE_CANCELLED,
}
_VERDICTS: dict[Outcome, trainer_pb2.ExampleVerdict.ValueType] = {
    "new": trainer_pb2.EXAMPLE_VERDICT_NEW,
    "duplicate": trainer_pb2.EXAMPLE_VERDICT_DUPLICATE,
    "near_exam": trainer_pb2.EXAMPLE_VERDICT_NEAR_EXAM,
    "forbidden": trainer_pb2.EXAMPLE_VERDICT_FORBIDDEN,
    # An exam row that may not be one: near a train row, or without a grader.
    "near_train": trainer_pb2.EXAMPLE_VERDICT_FORBIDDEN,
    "ungraded_exam": trainer_pb2.EXAMPLE_VERDICT_FORBIDDEN,
}


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """Serves the trainer."""

    def __init__(self, engine: TrainerEngine) -> None:
        self._engine = engine

    async def Train(
        self,
        request: trainer_pb2.TrainRequest,
        context: aio.ServicerContext[trainer_pb2.TrainRequest, trainer_pb2.TrainResponse],
    ) -> trainer_pb2.TrainResponse:
        """Start a round now, or return the job of the one that runs."""
        job = await self._engine.train(request.reason, request.request_id)
        return trainer_pb2.TrainResponse(job=_encode_job(job))

    async def StopTrain(
        self,
        request: trainer_pb2.StopTrainRequest,
        context: aio.ServicerContext[trainer_pb2.StopTrainRequest, trainer_pb2.StopTrainResponse],
    ) -> trainer_pb2.StopTrainResponse:
        """Stop a round."""
        job = await self._engine.stop_train(request.id, request.request_id)
        return trainer_pb2.StopTrainResponse(job=_encode_job(job))

    async def GetTrainJob(
        self,
        request: trainer_pb2.GetTrainJobRequest,
        context: aio.ServicerContext[trainer_pb2.GetTrainJobRequest, trainer_pb2.GetTrainJobResponse],
    ) -> trainer_pb2.GetTrainJobResponse:
        """Return the state of a job, after waiting a little for its end if asked to."""
        job = await self._engine.get_job(request.id, request.wait_seconds)
        return trainer_pb2.GetTrainJobResponse(job=_encode_job(job))

    async def Status(
        self,
        request: trainer_pb2.StatusRequest,
        context: aio.ServicerContext[trainer_pb2.StatusRequest, trainer_pb2.StatusResponse],
    ) -> trainer_pb2.StatusResponse:
        """Return queue, ledger and last round."""
        status = await self._engine.read_status()
        return trainer_pb2.StatusResponse(
            categories=[
                trainer_pb2.CategoryRows(
                    category=name,
                    train=rows["train"],
                    dev=rows["dev"],
                    exam=rows["exam"],
                    new_train=rows["new_train"],
                )
                for name, rows in sorted(status.categories.items())
            ],
            queue_size=status.queue_size,
            parked=status.parked.rows,
            parked_reason=status.parked.reason,
            batch_size=status.batch_size,
            ledger_sequence=status.ledger_sequence,
            acked_sequence=status.acked_sequence,
            dead_letters=status.dead_letters,
            last_round=_encode_job(status.last_round) if status.last_round else None,
            resident_bytes=status.resident_bytes,
            device=status.device,
        )

    async def SampleExamples(
        self,
        request: trainer_pb2.SampleExamplesRequest,
        context: aio.ServicerContext[trainer_pb2.SampleExamplesRequest, trainer_pb2.SampleExamplesResponse],
    ) -> trainer_pb2.SampleExamplesResponse:
        """Draw dev examples."""
        drawn = await self._engine.sample(request.count, list(request.categories), request.seed)
        rows = [json.dumps(example.to_json(), ensure_ascii=False) for example in drawn]
        return trainer_pb2.SampleExamplesResponse(example_json=rows)

    async def CheckExamples(
        self,
        request: trainer_pb2.CheckExamplesRequest,
        context: aio.ServicerContext[trainer_pb2.CheckExamplesRequest, trainer_pb2.CheckExamplesResponse],
    ) -> trainer_pb2.CheckExamplesResponse:
        """Say what ingestion would do with each example."""
        if len(request.example_json) > MOST_CHECKED:
            raise InvalidInputError(f"{len(request.example_json)} examples; allowed: at most {MOST_CHECKED} a call")
        outcomes = await self._engine.check([_decode_example(text) for text in request.example_json])
        return trainer_pb2.CheckExamplesResponse(verdicts=[_VERDICTS[outcome] for outcome in outcomes])

    async def ForgetExamples(
        self,
        request: trainer_pb2.ForgetExamplesRequest,
        context: aio.ServicerContext[trainer_pb2.ForgetExamplesRequest, trainer_pb2.ForgetExamplesResponse],
    ) -> trainer_pb2.ForgetExamplesResponse:
        """Remove what a request left, and name the releases that learned from it."""
        if not 1 <= len(request.id) <= MOST_ID_CHARS:
            raise InvalidInputError(f"an id has 1 to {MOST_ID_CHARS} characters, this one {len(request.id)}")
        erasure = await self._engine.forget(request.id)
        return trainer_pb2.ForgetExamplesResponse(
            examples=erasure.forgotten.examples,
            messages=erasure.forgotten.messages,
            rollouts=erasure.forgotten.rollouts,
            releases=erasure.releases,
        )

    async def UnparkExamples(
        self,
        request: trainer_pb2.UnparkExamplesRequest,
        context: aio.ServicerContext[trainer_pb2.UnparkExamplesRequest, trainer_pb2.UnparkExamplesResponse],
    ) -> trainer_pb2.UnparkExamplesResponse:
        """Queue parked examples again."""
        queued = await self._engine.unpark(request.category)
        categories = sorted({example.category for example in queued})
        return trainer_pb2.UnparkExamplesResponse(examples=len(queued), categories=categories)


async def build(settings: TrainerSettings) -> ServiceParts:
    """Put the trainer together; it goes on starting in the background."""
    engine = TrainerEngine(settings)
    engine.start()
    add = trainer_pb2_grpc.add_TrainerServiceServicer_to_server
    return ServiceParts(
        servicers=[(add, TrainerServicer(engine))],
        service_names=[SERVICE_NAME],
        ready=lambda: engine.ready,
        close=[engine.close],
        readings=[Reading("shammah_trainer_resident_bytes", "Resident size of the trainer.", measure_resident_bytes)],
    )


def _decode_example(text: str) -> Example:
    try:
        return Example.from_json(json.loads(text))
    except ValueError as error:
        raise InvalidInputError(f"example is not JSON: {error}") from None


def _encode_job(job: TrainJob) -> types_pb2.Job:
    return types_pb2.Job(
        id=job.id,
        kind="train",
        state=_STATES[job.state],
        progress=job.progress,
        stage=job.stage,
        error_code=job.error_code,
        error_message=job.error_message,
        result_json=encode_result(job),
        created_at=job.created_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
    )
