"""The HTTP application: every door's routes in one, and what is said for a path that nobody has.

It knows which doors there are, nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shammah_chassis.errors import NotFoundError
from shammah_chassis.scopes import Caller
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from shammah_gateway.http import batches, chat, count_tokens, feedback_route, models
from shammah_gateway.http.anthropic_wire import VERSION_HEADER
from shammah_gateway.http.door import Door, write_failure
from shammah_gateway.http.errors import MethodError, Style, tell_error
from shammah_gateway.http.headers import new_request_id
from shammah_gateway.http.messages import PATH, MessagesApp
from shammah_gateway.mcp.door import McpDoor
from shammah_gateway.mcp.words import PATH as MCP_PATH

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class _App(Starlette):
    """The routes; the one that carries nearly all traffic goes past the router, which costs a tenth of its time."""

    fast: Asgi

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST":
            await self.fast(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def make_app(door: Door, mcp: McpDoor | None = None) -> Starlette:
    """Return the application of all doors; without `mcp` there is no /mcp."""

    async def greet(request: Request, caller: Caller) -> Response:
        return PlainTextResponse("Shammah gateway\n")

    fast = MessagesApp(door)
    app = _App(
        routes=[
            door.route("GET", "/", greet, style="anthropic"),
            Route(PATH, fast, methods=["POST"]),
            *count_tokens.routes(door),
            *batches.routes(door),
            *chat.routes(door),
            *models.routes(door),
            *feedback_route.routes(door),
            *([Route(MCP_PATH, mcp)] if mcp else []),
        ],
        exception_handlers={404: _refuse_path, 405: _refuse_method},
    )
    app.fast = fast
    return app


async def _refuse_path(request: Request, error: Exception) -> Response:
    return write_failure(
        tell_error(NotFoundError(f"no such path: {request.url.path}"), _style(request), new_request_id())
    )


async def _refuse_method(request: Request, error: Exception) -> Response:
    told = MethodError(f"{request.method} is not allowed on {request.url.path}")
    response = write_failure(tell_error(told, _style(request), new_request_id()))
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def _style(request: Request) -> Style:
    """Return whose envelope a stranger's path gets: Anthropic's clients are known by their header."""
    path = request.url.path
    anthropic = path.startswith(PATH) or (VERSION_HEADER in request.headers and not path.startswith("/v1/chat"))
    return "anthropic" if anthropic else "openai"
