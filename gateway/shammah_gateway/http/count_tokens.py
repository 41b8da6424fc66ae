"""POST /v1/messages/count_tokens: passed on, as only the teacher knows how it counts. It costs nothing."""

from __future__ import annotations

from dataclasses import replace

from shammah_chassis.scopes import Caller
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shammah_gateway.http.anthropic_wire import VERSION_HEADER, check_version, read_model_name
from shammah_gateway.http.door import Door, parse_object
from shammah_gateway.http.errors import NotOfferedError
from shammah_gateway.http.messages import OUR_WORD
from shammah_gateway.http.relay import RelayedResponse, make_passage
from shammah_gateway.http.splice import replace_top_level


def routes(door: Door) -> list[Route]:
    """Return the route."""
    way = door.passthrough("messages")

    async def count(request: Request, caller: Caller) -> Response:
        check_version(request.headers.get(VERSION_HEADER, ""))
        if way is None:
            raise NotOfferedError("tokens are counted by the teacher, and none is set up that counts them")
        body = await door.read_body(request)
        keep = door.settings.http_credentials == "client"
        passage = make_passage(request, caller, body, keep_credentials=keep)
        if OUR_WORD in body and not door.read_wish(read_model_name(parse_object(body))).model:
            passage = replace(passage, rename=lambda model: replace_top_level(body, "model", model))
        return RelayedResponse(await way.open(passage))

    return [door.route("POST", "/v1/messages/count_tokens", count, style="anthropic")]
