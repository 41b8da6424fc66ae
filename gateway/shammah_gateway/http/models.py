"""GET /v1/models: the names that choose who answers, in the shape of the protocol that asks.

It knows the names, not which models the teacher has: any other id is handed to the teacher as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from shammah_chassis.errors import NotFoundError
from shammah_chassis.scopes import Caller
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shammah_gateway.http.door import Door, Handler
from shammah_gateway.http.names import BASE_NAMES, CLAUDE_PREFIX, read_model

# The header that every Anthropic client sends and no OpenAI client does.
VERSION_HEADER = "anthropic-version"
# When these names were made, in seconds since 1970 (2026-11-22): clients sort by it.
CREATED = 1_795_305_600
OWNER = "shammah"
_TITLES = {
    "shammah-auto": "Shammah: local where that is good enough, else the teacher",
    "shammah-local": "Shammah: the local model only",
    "shammah-teacher": "Shammah: the teacher only",
}


def routes(door: Door) -> list[Route]:
    """Return the routes that list and describe models."""

    async def list_all(request: Request, caller: Caller) -> Response:
        return JSONResponse(write_models(anthropic=_is_anthropic(request)))

    async def describe(request: Request, caller: Caller) -> Response:
        return JSONResponse(write_model(request.path_params["model_id"], anthropic=_is_anthropic(request)))

    return [_both(door, "/v1/models", list_all), _both(door, "/v1/models/{model_id:path}", describe)]


def write_models(*, anthropic: bool) -> dict[str, Any]:
    """Return the list in one of the two shapes; there is always only one page."""
    names = [f"{CLAUDE_PREFIX}{name}" if anthropic else name for name in BASE_NAMES]
    rows = [write_model(name, anthropic=anthropic) for name in names]
    if anthropic:
        return {"data": rows, "has_more": False, "first_id": names[0], "last_id": names[-1]}
    return {"object": "list", "data": rows}


def write_model(name: str, *, anthropic: bool) -> dict[str, Any]:
    """Return one model in one of the two shapes; with or without an alpha or a release behind its name.

    Raises:
        NotFoundError: no name of ours. InvalidInputError: an alpha that is none.
    """
    wish = read_model(name)
    if wish.mode == "upstream":
        raise NotFoundError(f"model: {name} is not known; known: {', '.join(BASE_NAMES)}")
    if not anthropic:
        return {"id": name, "object": "model", "created": CREATED, "owned_by": OWNER}
    return {
        "type": "model",
        "id": name,
        "display_name": _TITLES[f"shammah-{wish.mode}"],
        "created_at": datetime.fromtimestamp(CREATED, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
    }


def _is_anthropic(request: Request) -> bool:
    return VERSION_HEADER in request.headers


def _both(door: Door, path: str, handler: Handler) -> Route:
    """Return a route whose errors, too, have the shape of who asks."""
    ends: dict[bool, Callable[[Request], Awaitable[Response]]] = {
        True: door.route("GET", path, handler, style="anthropic").endpoint,
        False: door.route("GET", path, handler, style="openai").endpoint,
    }

    async def endpoint(request: Request) -> Response:
        return await ends[_is_anthropic(request)](request)

    return Route(path, endpoint, methods=["GET"])
