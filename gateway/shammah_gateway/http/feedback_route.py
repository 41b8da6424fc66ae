"""POST /v1/feedback: a rating of an answer that was given here, in HTTP. What it becomes is `feedback`."""

from __future__ import annotations

from typing import Any

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.scopes import Caller
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shammah_gateway.http.door import Door

RATINGS = {"good": 1, "bad": -1}
FIELDS = ("request_id", "rating", "correction")
# The ids of the replies that we write are the id of the query behind one of these.
_PREFIXES = ("chatcmpl-", "msg_", "req_")


def routes(door: Door) -> list[Route]:
    """Return the route that takes feedback."""

    async def rate(request: Request, caller: Caller) -> Response:
        query_id, rating, correction = read_feedback(await door.read_json(request))
        done = await door.gateway.feedback.rate(caller.name, query_id, rating, correction)
        return JSONResponse({"request_id": query_id, "effect": done.effect, "weight": done.weight})

    return [door.route("POST", "/v1/feedback", rate, style="openai")]


def read_feedback(body: dict[str, Any]) -> tuple[str, int, str]:
    """Return id of the query, rating (1 or -1) and correction ("" when there is none).

    `request_id` is what the header x-shammah-query-id of the reply says, or the id in a reply that was made here.

    Raises:
        InvalidInputError: a field that is missing, wrong or not known.
    """
    unknown = sorted(set(body) - set(FIELDS))
    if unknown:
        raise InvalidInputError(f"{unknown[0]}: unknown field; allowed: {', '.join(FIELDS)}")
    request_id, rating, correction = body.get("request_id"), body.get("rating"), body.get("correction")
    if not isinstance(request_id, str) or not request_id:
        raise InvalidInputError("request_id is missing: the header x-shammah-query-id of the answer, or its id")
    if not isinstance(rating, str) or rating not in RATINGS:
        raise InvalidInputError(f"rating is {rating!r}; allowed: {', '.join(RATINGS)}")
    if correction is not None and not isinstance(correction, str):
        raise InvalidInputError("correction must be a text: the right answer")
    for prefix in _PREFIXES:
        request_id = request_id.removeprefix(prefix)
    return request_id, RATINGS[rating], correction or ""
