"""What every HTTP route needs: who calls, the body within its limit, what the model name means, and how errors leave.

A route is made by `Door.route`, so none is without a scope and none can leak an exception. It knows no protocol's body.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shammah_chassis.errors import InvalidInputError, ShammahError
from shammah_chassis.logs import level_of
from shammah_chassis.logs import request_id as logged_request_id
from shammah_chassis.scopes import Caller
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.http.auth import ROUTE_SCOPES, Gatekeeper, read_credential
from shammah_gateway.http.errors import Failure, Style, TooLargeError, tell_error
from shammah_gateway.http.headers import new_request_id
from shammah_gateway.http.names import CLAUDE_PREFIX, ModelWish, read_model
from shammah_gateway.http.passthrough import PassThrough
from shammah_gateway.http.settings import HttpSettings
from shammah_gateway.http.upstream import UpstreamClient
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.teachers.upstreams import Protocol

ANY_MODEL = "*"
# The status that servers log for a client that went away; nobody receives it.
CLIENT_GONE = 499
Handler = Callable[[Request, Caller], Awaitable[Response]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """What the routes share.

    `upstream` None: nobody takes bytes, so forwarded queries go through `gateway.ask`. `ledger` None: nobody counts.
    `teacher_models` are the ids that the teachers are set to. `teacher_names` are all teachers in their
    order, also those that take no bytes. `state_dir` None: nothing is kept over a restart.
    """

    gateway: FrontDesk
    gatekeeper: Gatekeeper
    settings: HttpSettings
    upstream: UpstreamClient | None = None
    ledger: Ledger | None = None
    teacher_models: tuple[str, ...] = ()
    teacher_names: tuple[str, ...] = ()
    state_dir: Path | None = None

    def route(self, method: str, path: str, handler: Handler, *, style: Style) -> Route:
        """Return a route: the caller is known and may call it, and named errors leave in the protocol's envelope.

        Raises:
            KeyError: the route is not in ROUTE_SCOPES.
        """
        scope = ROUTE_SCOPES[method, path]

        async def endpoint(request: Request) -> Response:
            number = request.state.request_id = new_request_id()
            logged_request_id.set(number)
            try:
                caller = await self.authenticate(request, scope)
                response = await handler(request, caller)
            except ClientDisconnect:
                return Response(status_code=CLIENT_GONE)
            except Exception as error:
                return write_failure(self.tell(error, style, number))
            response.headers.setdefault("x-request-id" if style == "openai" else "request-id", number)
            return response

        return Route(path, endpoint, methods=[method])

    async def authenticate(self, request: Request, scope: str) -> Caller:
        """Return who calls; raises as `Gatekeeper.admit`."""
        return self.gatekeeper.admit(read_credential(request.headers), scope)

    def tell(self, error: Exception, style: Style, request_id: str) -> Failure:
        """Return any error as HTTP: the single place where an unexpected one becomes a plain "internal error"."""
        if not isinstance(error, ShammahError):
            _log.error("a request failed unexpectedly", exc_info=error)
            error = ShammahError("internal error")
        else:
            _log.log(level_of(error), "%s: %s", error.code, error.message)
        return tell_error(error, style, request_id)

    def read_wish(self, name: str) -> ModelWish:
        """Return what a model name asks for: an id that the settings map to auto is auto. Raises as `read_model`."""
        wish = read_model(name)
        auto = self.settings.http_auto_models
        if wish.mode == "upstream" and (ANY_MODEL in auto or name in auto):
            return ModelWish("auto", model=name)
        return wish

    def is_teacher_model(self, name: str) -> bool:
        """Say whether a teacher that takes no bytes may stand for this id: Claude's, or one that it is set to."""
        return name.startswith(CLAUDE_PREFIX) or name in self.teacher_models

    def has_others(self, protocol: Protocol, wish: ModelWish | None) -> bool:
        """Say whether a teacher is left where all upstreams of a protocol have failed.

        None is for a caller that named the model itself, or that brings its own key.
        """
        if wish is None or wish.mode == "upstream" or self.settings.http_credentials == "client":
            return False
        states = self.upstream.upstreams.states() if self.upstream is not None else ()
        return bool(set(self.teacher_names) - {state.name for state in states if state.protocol == protocol})

    def passthrough(self, protocol: Protocol) -> PassThrough | None:
        """Return the way to the upstreams that take the bytes of a protocol; None when there is none."""
        if self.upstream is None or not self.upstream.speaks(protocol):
            return None
        return PassThrough(self.upstream, self.ledger, protocol, counts=self.gateway.counts)

    async def read_body(self, request: Request) -> bytes:
        """Return the body; TooLargeError beyond the limit, before all of it was read."""
        limit = self.settings.http_max_body_bytes
        check_length(request.headers.get("content-length", ""), limit)
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
        return b"".join(parts)

    async def read_json(self, request: Request) -> dict[str, Any]:
        """Return the body as a JSON object; raises as `read_body`, and InvalidInputError when it is none."""
        return parse_object(await self.read_body(request))


def parse_object(body: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        InvalidInputError: not UTF-8, not JSON, or another kind of value.
    """
    try:
        value = json.loads(body)
    except RecursionError as error:
        raise InvalidInputError("the request body is nested too deeply") from error
    except ValueError as error:
        raise InvalidInputError(f"the request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInputError("the request body must be a JSON object")
    return value


def check_length(content_length: str, limit: int) -> None:
    """Raise TooLargeError when a request announces a body beyond the limit."""
    if content_length.isdecimal() and int(content_length) > limit:
        raise too_large(limit)


def too_large(limit: int) -> TooLargeError:
    """Return the error of a body beyond the limit."""
    return TooLargeError(f"the request body is too large; allowed: {limit} bytes")


def write_failure(failure: Failure) -> Response:
    """Return the reply of an error."""
    return Response(failure.body, failure.status, failure.headers)
