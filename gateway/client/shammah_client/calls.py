"""Every call of the gateway as a plain value: its method, its request, how its reply is read, and how patient to be.

Both clients send the same calls; this file knows neither channels nor loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

from google.protobuf.message import Message as Proto
from shammah.v1 import gateway_pb2 as pb
from shammah.v1 import types_pb2

from shammah_client import results, states
from shammah_client.examples import Example, OfferedExample, Turns, read_turns
from shammah_client.reading import read_message

T = TypeVar("T")
R = TypeVar("R", bound=Proto)
SERVICE = "/shammah.v1.GatewayService/"
# Seconds. A teacher may think for minutes; a tool waits at most 25 s itself; the rest is quick.
ASK_SECONDS, TOOL_SECONDS, QUICK_SECONDS = 120.0, 60.0, 15.0
# A gateway waits up to 300 s until its pods hold a release: past that it says itself why it gave up.
ORDER_SECONDS = 330.0
# The longest that the gateway waits for a job in one call.
WAIT_SECONDS = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One call. `idempotent`: sent twice it does no more than once."""

    method: str
    request: Proto
    reply: type[Proto]
    read: Callable[[Proto], T]
    timeout: float
    idempotent: bool

    @property
    def path(self) -> str:
        """The full name of the method."""
        return SERVICE + self.method


def _call(
    method: str, request: Proto, reply: type[Proto], kind: type[T], *, timeout: float, idempotent: bool = False
) -> Call[T]:
    def read(message: Proto) -> T:
        return read_message(kind, message)

    return Call(method=method, request=request, reply=reply, read=read, timeout=timeout, idempotent=idempotent)


class AskOptions(TypedDict, total=False):
    """What a caller may choose for one query; what is left out is the gateway's choice.

    `alpha`: a stricter share of bad answers than the release's; `conversation`: the key by which its queries stick to
    one author; `no_learn`: neither example nor audit; `local_only`: never the teacher; `allow_degraded`: without a
    teacher a labelled local answer is welcome; `want_attempt`: the student's attempt too; `grader`, `category`: what
    the caller knows of the query.
    """

    max_tokens: int
    temperature: float
    release: str
    alpha: float
    conversation: str
    no_learn: bool
    local_only: bool
    allow_degraded: bool
    want_attempt: bool
    role_timeout_seconds: float
    grader: str
    category: str


def ask(query: Turns, options: AskOptions) -> Call[results.Answer]:
    """Answer a query. A repeat would ask, and pay, the teacher twice.

    Raises:
        TypeError: an option that does not exist.
    """
    unknown = sorted(set(options) - AskOptions.__optional_keys__)
    if unknown:
        known = ", ".join(sorted(AskOptions.__optional_keys__))
        raise TypeError(f"ask() has no option {unknown[0]!r}; there are: {known}")
    turns = [types_pb2.Message(role=turn.role, content=turn.content) for turn in read_turns(query)]
    request = pb.AskRequest(messages=turns, **options)
    return _call("Ask", request, pb.AskResponse, results.Answer, timeout=ASK_SECONDS)


def query_local_model(query: str, max_tokens: int) -> Call[results.LocalResponse]:
    """Tool query_local_model."""
    request = pb.QueryLocalModelRequest(query=query, max_tokens=max_tokens)
    kind = results.LocalResponse
    return _call("QueryLocalModel", request, pb.QueryLocalModelResponse, kind, timeout=TOOL_SECONDS, idempotent=True)


def compare_responses(query: str, teacher_response: str | None, job: str) -> Call[results.Comparison]:
    """Tool compare_responses; without a response the teacher is asked, which costs."""
    request = pb.CompareResponsesRequest(query=query, teacher_response=teacher_response, job=job)
    free = teacher_response is not None or bool(job)
    reply, kind = pb.CompareResponsesResponse, results.Comparison
    return _call("CompareResponses", request, reply, kind, timeout=TOOL_SECONDS, idempotent=free)


def generate_training_data(
    category: str, count: int, difficulty: str, focus: str, examples: Sequence[OfferedExample], job: str
) -> Call[results.GeneratedData]:
    """Tool generate_training_data."""
    offered = [
        pb.OfferedExample(query=one.query, response=one.response, category=one.category, grader=one.grader)
        for one in examples
    ]
    request = pb.GenerateTrainingDataRequest(
        category=category, count=count, difficulty=difficulty, focus=focus, examples=offered, job=job
    )
    reply, kind = pb.GenerateTrainingDataResponse, results.GeneratedData
    return _call("GenerateTrainingData", request, reply, kind, timeout=TOOL_SECONDS, idempotent=bool(job))


def analyze_model(test_count: int, categories: Sequence[str], example_budget: int, job: str) -> Call[results.Analysis]:
    """Tool analyze_model."""
    request = pb.AnalyzeModelRequest(
        test_count=test_count, categories=categories, example_budget=example_budget, job=job
    )
    reply, kind = pb.AnalyzeModelResponse, results.Analysis
    return _call("AnalyzeModel", request, reply, kind, timeout=TOOL_SECONDS, idempotent=bool(job))


def train(*, wait: bool, job: str) -> Call[results.Round]:
    """Tool train."""
    request = pb.GatewayServiceTrainRequest(wait=wait, job=job)
    reply, kind = pb.GatewayServiceTrainResponse, results.Round
    return _call("Train", request, reply, kind, timeout=TOOL_SECONDS, idempotent=bool(job))


def get_job(job: str, wait_seconds: float) -> Call[results.Job]:
    """State of a job."""

    def read(message: Proto) -> results.Job:
        assert isinstance(message, pb.GetJobResponse)
        return read_message(results.Job, message.job)

    request = pb.GetJobRequest(id=job, wait_seconds=wait_seconds)
    timeout = wait_seconds + QUICK_SECONDS
    return Call(method="GetJob", request=request, reply=pb.GetJobResponse, read=read, timeout=timeout, idempotent=True)


def send_feedback(query_id: str, rating: int, correction: str) -> Call[results.Feedback]:
    """Rate an answer; the same rating sent twice is a duplicate."""
    request = pb.SendFeedbackRequest(query_id=query_id, rating=rating, correction=correction)
    return _call("SendFeedback", request, pb.SendFeedbackResponse, results.Feedback, timeout=QUICK_SECONDS)


def submit_examples(examples: Sequence[Example]) -> Call[results.Submitted]:
    """Put examples on the stream; an example's id is its content, so a repeat adds nothing."""
    request = pb.SubmitExamplesRequest(example_json=[one.to_json() for one in examples])
    reply, kind = pb.SubmitExamplesResponse, results.Submitted
    return _call("SubmitExamples", request, reply, kind, timeout=TOOL_SECONDS, idempotent=True)


def list_releases() -> Call[tuple[states.Release, ...]]:
    """Releases, newest first."""

    def read(message: Proto) -> tuple[states.Release, ...]:
        assert isinstance(message, pb.ListReleasesResponse)
        return tuple(read_message(states.Release, one) for one in message.releases)

    return Call(
        method="ListReleases",
        request=pb.ListReleasesRequest(),
        reply=pb.ListReleasesResponse,
        read=read,
        timeout=QUICK_SECONDS,
        idempotent=True,
    )


def promote_release(release: str, *, force: bool) -> Call[states.Promotion]:
    """Make a release the champion."""
    request = pb.PromoteReleaseRequest(release=release, force=force)
    # Promotion waits until every pod holds the release.
    return _call("PromoteRelease", request, pb.PromoteReleaseResponse, states.Promotion, timeout=ORDER_SECONDS)


def rollback_release(release: str) -> Call[states.Rollback]:
    """Go back to an earlier release; "" for the one before the champion, so a repeat would go back twice."""
    request = pb.RollbackReleaseRequest(release=release)
    return _call("RollbackRelease", request, pb.RollbackReleaseResponse, states.Rollback, timeout=ORDER_SECONDS)


def pin_release(release: str, *, pinned: bool) -> Call[states.Release]:
    """Keep a release, or stop keeping it."""

    def read(message: Proto) -> states.Release:
        assert isinstance(message, pb.PinReleaseResponse)
        return read_message(states.Release, message.release)

    request = pb.PinReleaseRequest(release=release, pinned=pinned)
    reply = pb.PinReleaseResponse
    return Call(method="PinRelease", request=request, reply=reply, read=read, timeout=QUICK_SECONDS, idempotent=True)


def forget_request(request: str) -> Call[states.Forgotten]:
    """Remove what a request (or an example) of that id left behind."""
    message, reply = pb.ForgetRequestRequest(id=request), pb.ForgetRequestResponse
    return _call("ForgetRequest", message, reply, states.Forgotten, timeout=ASK_SECONDS, idempotent=True)


def unpark_examples(category: str) -> Call[states.Unparked]:
    """Queue parked examples again, of one category or all ("")."""
    message, reply = pb.GatewayServiceUnparkExamplesRequest(category=category), pb.GatewayServiceUnparkExamplesResponse
    return _call("UnparkExamples", message, reply, states.Unparked, timeout=ASK_SECONDS)


def take_checkpoint() -> Call[states.CheckpointTaken]:
    """Keep a checkpoint of now."""
    request, reply = pb.TakeCheckpointRequest(), pb.TakeCheckpointResponse
    return _call("TakeCheckpoint", request, reply, states.CheckpointTaken, timeout=QUICK_SECONDS)


def get_status() -> Call[states.Status]:
    """State of the whole."""
    request, reply = pb.GetStatusRequest(), pb.GetStatusResponse
    return _call("GetStatus", request, reply, states.Status, timeout=QUICK_SECONDS, idempotent=True)
