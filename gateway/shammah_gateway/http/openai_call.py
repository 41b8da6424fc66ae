"""One request of chat completions on its way, and what a way to a teacher must offer. Values and an interface only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from shammah_chassis.scopes import Caller
from starlette.requests import Request
from starlette.responses import Response

from shammah_gateway.cascade import Decision
from shammah_gateway.http.capture import Captured
from shammah_gateway.http.headers import Options
from shammah_gateway.http.names import ModelWish
from shammah_gateway.http.openai_wire import ChatRequest
from shammah_gateway.http.passage import Passage
from shammah_gateway.http.passthrough import Opened

Finish = Callable[[Captured], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall:
    """A request; `number` is its id, "req_..."."""

    http: Request
    caller: Caller
    body: bytes
    number: str
    chat: ChatRequest
    wish: ModelWish
    options: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """A forwarded request whose reply begins; `decision` None: the cascade was not asked."""

    call: ChatCall
    opened: Opened
    passage: Passage
    decision: Decision | None

    @property
    def query_id(self) -> str:
        """The id that the ids of request and reply are made of."""
        return self.decision.query_id if self.decision else self.call.number.removeprefix("req_")

    @property
    def request_id(self) -> str:
        """The id of the request."""
        return f"req_{self.query_id}"


class Way(Protocol):
    """A way to a teacher: by its own protocol, or by another one that is translated."""

    def make_passage(self, call: ChatCall) -> Passage:
        """Return what is sent; its `author` has only what this way adds to the reply.

        Raises:
            ChatInputError: it can't be said in the protocol of this way.
        """
        ...

    async def open(self, passage: Passage) -> Opened:
        """As `PassThrough.open`."""
        ...

    async def read_whole(self, forwarded: Forwarded) -> tuple[Response, Captured | None]:
        """Return a reply that is no stream, and what it said; None when it is an error of the upstream.

        Raises:
            TeacherError: it broke off, or is not of its protocol.
        """
        ...

    def stream(self, forwarded: Forwarded, finish: Finish) -> Response:
        """Return a reply that sends a stream on while it comes; `finish` is called after the end."""
        ...
