"""The MCP server of the five tools: what is listed is the registry, what is called is `call_tool`.

It imports the MCP SDK, so it is imported at the first request only (`mcp.door`). It knows no HTTP beyond the request
that a call came with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import anyio
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, Tool
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel
from shammah_chassis.errors import ConflictError, InvalidInputError, UnauthenticatedError
from shammah_chassis.scopes import Caller
from shammah_chassis.ulid import new_ulid

from shammah_gateway.mcp.calls import Call, Calls, Key, StoppingError, request_key, session_key
from shammah_gateway.mcp.results import write_error, write_result
from shammah_gateway.mcp.words import INSTRUCTIONS, REQUEST_ID_META, SERVER_NAME, SERVER_TITLE
from shammah_gateway.tools.definitions import input_schema, mcp_tools

# Under this name the door puts the caller into the ASGI scope.
CALLER_SCOPE = "shammah.caller"
SESSION_HEADER = "mcp-session-id"
MAX_REQUEST_ID = 128
# The tools change with the program only; a client may keep the list for an hour.
LIST_TTL_MS = 3_600_000
_LEAST_STEP = 1e-6

OnProgress = Callable[[float, str], Awaitable[None]]


class CallTool(Protocol):
    """Runs a tool of the registry for a caller."""

    async def __call__(
        self,
        caller: Caller,
        name: str,
        arguments: Mapping[str, Any],
        *,
        request_id: str,
        on_progress: OnProgress | None,
    ) -> BaseModel:
        """Return the tool's result; raises its named errors."""
        ...


def make_server(
    call_tool: CallTool, calls: Calls, definitions: Sequence[Mapping[str, Any]] | None = None
) -> Server[Any]:
    """Return the server; what it runs is known to `calls`. `definitions` are listed instead of the registry's."""
    tools = [Tool.model_validate(entry) for entry in (mcp_tools() if definitions is None else definitions)]

    async def on_list(context: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def on_call(context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        try:
            return await _run(context, params, call_tool, calls)
        except Exception as error:
            return write_error(error)

    return Server(
        SERVER_NAME,
        version=version("shammah-gateway"),
        title=SERVER_TITLE,
        instructions=INSTRUCTIONS,
        cache_hints={"tools/list": CacheHint(ttl_ms=LIST_TTL_MS, scope="public")},
        get_tool_input_schema=input_schema,
        on_list_tools=on_list,
        on_call_tool=on_call,
    )


async def _run(
    context: ServerRequestContext[Any], params: CallToolRequestParams, call_tool: CallTool, calls: Calls
) -> CallToolResult:
    caller = _read_caller(context)
    given = read_request_id(context.meta)
    waiting = anyio.CancelScope()
    call = Call(
        caller=caller,
        tool=params.name,
        request_id=given or f"mcp-{new_ulid()}",
        keys=_keys(context, caller, given),
        cancel=waiting.cancel,
    )
    calls.begin(call)
    try:
        with waiting:
            result = await call_tool(
                caller,
                params.name,
                params.arguments or {},
                request_id=call.request_id,
                on_progress=_report_to(context),
            )
            return write_result(result)
    except asyncio.CancelledError:
        # In the era without sessions a closed stream IS the cancellation. A call with a request id is kept all the
        # same: its client can come back for it, and cancel it by that id.
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS and not given:
            call.cancelled = True
        raise
    finally:
        calls.end(call)
    if calls.closing and not call.cancelled:
        raise StoppingError("the gateway stops; its jobs go on when it is started again", retry_after_seconds=5.0)
    raise ConflictError("cancelled by the client")


def _report_to(context: ServerRequestContext[Any]) -> OnProgress | None:
    """Return what tells the client of progress, if it asked for that. The share told always grows, as MCP demands."""
    if not context.meta or context.meta.get("progress_token") is None:
        return None
    told = -1.0

    async def report(share: float, stage: str) -> None:
        nonlocal told
        told = max(share, told + _LEAST_STEP)
        await context.session.report_progress(told, 1.0, stage)

    return report


def read_request_id(meta: Mapping[str, Any] | None) -> str:
    """Return the client's own key of a call, "" when it gave none.

    Raises:
        InvalidInputError: no text, longer than 128, or not printable ASCII.
    """
    given = (meta or {}).get(REQUEST_ID_META, "")
    if not isinstance(given, str) or len(given) > MAX_REQUEST_ID or not (given.isascii() and given.isprintable()):
        raise InvalidInputError(
            f"_meta {REQUEST_ID_META!r}: allowed is a text of at most 128 printable ASCII characters"
        )
    return given


def _keys(context: ServerRequestContext[Any], caller: Caller, given: str) -> tuple[Key, ...]:
    session = context.request.headers.get(SESSION_HEADER, "") if context.request is not None else ""
    keys = [session_key(caller, session, context.request_id)] if session else []
    return (*keys, request_key(caller, given)) if given else tuple(keys)


def _read_caller(context: ServerRequestContext[Any]) -> Caller:
    caller = context.request.scope.get(CALLER_SCOPE) if context.request is not None else None
    if not isinstance(caller, Caller):
        raise UnauthenticatedError("no caller: this call came by no door")
    return caller
