"""The registry of the five tools: name, words, scope, schemas, functions. Every face (gRPC, CLI, MCP) goes through it.

Never a sixth tool. It knows no transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from shammah_chassis.errors import ForbiddenError, InvalidInputError, NotFoundError
from shammah_chassis.scopes import Caller, require_scope

from shammah_gateway.consent.calls import read_outcome
from shammah_gateway.job_record import JobRecord
from shammah_gateway.jobs import OnProgress, Work
from shammah_gateway.tools import words
from shammah_gateway.tools.analyze import analyze, check_analysis
from shammah_gateway.tools.compare import check_comparison, compare
from shammah_gateway.tools.context import LongWork, ToolContext, bind_work, run_job, show_job
from shammah_gateway.tools.generate import check_generation, generate, stop_generation
from shammah_gateway.tools.query import query_local_model
from shammah_gateway.tools.schemas import (
    AnalyzeInput,
    AnalyzeResult,
    CompareInput,
    CompareResult,
    GenerateInput,
    GenerateResult,
    OfferedInput,
    QueryInput,
    QueryResult,
    TrainInput,
    TrainResult,
)
from shammah_gateway.tools.train import check_training, follow_round, stop_round

MAX_REQUEST_ID_CHARS = 128
# These change nothing and send nothing: their line in the audit log is not waited for.
HARMLESS = frozenset({"query_local_model", "analyze_model"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool; either `answer` answers at once, or `long` is run as a job."""

    name: str
    description: str
    scope: str
    input_model: type[BaseModel]
    result_model: type[BaseModel]
    answer: Callable[[ToolContext, Caller, Any], Awaitable[BaseModel]] | None = None
    long: LongWork | None = None

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the input."""
        return self.input_model.model_json_schema()

    @property
    def result_schema(self) -> dict[str, Any]:
        """The JSON schema of the result."""
        return self.result_model.model_json_schema()


TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        tool.name: tool
        for tool in (
            Tool(
                name="query_local_model",
                description=words.QUERY,
                scope="ask",
                input_model=QueryInput,
                result_model=QueryResult,
                answer=query_local_model,
            ),
            Tool(
                name="compare_responses",
                description=words.COMPARE,
                scope="compare",
                input_model=CompareInput,
                result_model=CompareResult,
                long=LongWork(check=check_comparison, run=compare),
            ),
            Tool(
                name="generate_training_data",
                description=words.GENERATE,
                scope="generate",
                input_model=GenerateInput,
                result_model=GenerateResult,
                long=LongWork(check=check_generation, run=generate, stop=stop_generation),
            ),
            Tool(
                name="analyze_model",
                description=words.ANALYZE,
                scope="analyze",
                input_model=AnalyzeInput,
                result_model=AnalyzeResult,
                long=LongWork(check=check_analysis, run=analyze),
            ),
            Tool(
                name="train",
                description=words.TRAIN,
                scope="train",
                input_model=TrainInput,
                result_model=TrainResult,
                long=LongWork(
                    check=check_training,
                    run=follow_round,
                    stop=stop_round,
                    exclusive=True,
                    patient=lambda asked: asked.wait,
                ),
            ),
        )
    }
)


async def call_tool(
    context: ToolContext,
    caller: Caller,
    name: str,
    arguments: Mapping[str, Any],
    *,
    request_id: str = "",
    on_progress: OnProgress | None = None,
) -> BaseModel:
    """Check scope and input of a tool and run it.

    A call that is given up (its task is cancelled) leaves its job running. Whoever wants it stopped chooses a
    `request_id`, finds the job by `context.jobs.find(caller.name, name, request_id)` and cancels it there.

    Raises:
        NotFoundError: no such tool. ForbiddenError: the scope is missing.
        InvalidInputError: names each wrong field and what is allowed; and whatever the tool raises.
        StorageFullError: the call can't be noted in the audit log.
    """
    tool = find_tool(name)
    require_scope(caller, tool.scope)
    check_request_id(request_id)
    asked = read_input(tool, arguments)
    consent = context.consent if context is not None else None
    if consent is None:
        return await _answer(context, caller, tool, asked, request_id=request_id, on_progress=on_progress)
    given = asked.model_dump(mode="json", exclude_defaults=True)
    if consent.masker is not None:
        given = await consent.mask_arguments(given)
        asked = read_input(tool, given)
    waits = name not in HARMLESS and not given.get("job")
    async with consent.calls.watch("tool", name, caller=caller.name, arguments=given, waits=waits) as told:
        result = await _answer(context, caller, tool, asked, request_id=request_id, on_progress=on_progress)
        told.update(read_outcome(result.model_dump(mode="json")))
    return result


async def _answer(
    context: ToolContext,
    caller: Caller,
    tool: Tool,
    asked: BaseModel,
    *,
    request_id: str,
    on_progress: OnProgress | None,
) -> BaseModel:
    """Answer at once, show a job, or start one."""
    name = tool.name
    if tool.long is None or tool.answer is not None:
        assert tool.answer is not None, f"{name} does nothing"
        return await tool.answer(context, caller, asked)
    job, cancel = str(getattr(asked, "job", "")), bool(getattr(asked, "cancel", False))
    if job:
        return await show_job(context, caller, name, job, tool.result_model, cancel=cancel, on_progress=on_progress)
    if cancel:
        raise InvalidInputError("cancel stops a job: give its id in 'job'")
    return await run_job(
        context, caller, name, asked, tool.long, tool.result_model, request_id=request_id, on_progress=on_progress
    )


def find_tool(name: str) -> Tool:
    """Return a tool; NotFoundError, with the known ones, for any other name."""
    tool = TOOLS.get(name)
    if tool is None:
        raise NotFoundError(f"there is no tool {name!r}; known: {', '.join(TOOLS)}")
    return tool


def read_input(tool: Tool, arguments: Mapping[str, Any]) -> BaseModel:
    """Return the checked input of a tool; InvalidInputError says which fields are wrong and what is allowed."""
    try:
        return tool.input_model.model_validate(dict(arguments))
    except ValidationError as error:
        raise InvalidInputError(describe(error, tool)) from error


def check_request_id(request_id: str) -> None:
    """Raise InvalidInputError unless it is empty or at most 128 printable ASCII characters."""
    plain = request_id.isascii() and request_id.isprintable()
    if len(request_id) > MAX_REQUEST_ID_CHARS or not plain:
        raise InvalidInputError(
            f"the request id has {len(request_id)} characters; allowed: at most {MAX_REQUEST_ID_CHARS}, printable ASCII"
        )


def resume_jobs(context: ToolContext) -> list[JobRecord]:
    """Let the jobs that a restart interrupted go on, or fail where their owners may not any more; returns them."""

    def make(record: JobRecord) -> Work:
        tool = find_tool(record.kind)
        if tool.long is None:
            raise InvalidInputError(f"{record.kind} is no long tool")
        asked = read_input(tool, record.arguments)
        return bind_work(context, _find_owner(context, record) or record.caller, asked, tool.long, resumed=True)

    return context.jobs.resume(make, lambda record: _check_owner(context, record))


def revoke_jobs(context: ToolContext) -> None:
    """Stop the jobs whose owners may not have them run any more: the table of tokens has changed."""
    for record in context.jobs.running():
        try:
            _check_owner(context, record)
        except ForbiddenError as error:
            context.jobs.revoke(record, error)


def _find_owner(context: ToolContext, record: JobRecord) -> Caller | None:
    """Return the owner of a job with the scopes of now; of then, where no table of tokens is at hand."""
    return context.consent.tokens.find(record.owner) if context.consent is not None else record.caller


def _check_owner(context: ToolContext, record: JobRecord) -> None:
    """Raise ForbiddenError when the owner of a job is gone, or may not call its tool any more."""
    owner = _find_owner(context, record)
    if owner is None:
        raise ForbiddenError(f"the token of {record.owner!r} was removed, and with it goes what it asked for")
    require_scope(owner, find_tool(record.kind).scope)


def describe(error: ValidationError, tool: Tool) -> str:
    """Return what is wrong with an input, in words."""
    faults = []
    for item in error.errors():
        where = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            # Only an example is a thing in a thing.
            model = tool.input_model if len(item["loc"]) == 1 else OfferedInput
            faults.append(f"unknown field {where!r}; allowed: {', '.join(model.model_fields)}")
        else:
            faults.append(f"{where}: {item['msg']}")
    return "; ".join(faults)
