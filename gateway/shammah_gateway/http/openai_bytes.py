"""The way of a chat completion to an upstream of the same protocol: its bytes, there and back as they are, metered."""

from __future__ import annotations

import asyncio

from shammah_chassis.errors import TeacherError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shammah_gateway.http.capture import Captured
from shammah_gateway.http.door import Door
from shammah_gateway.http.errors import openai_error
from shammah_gateway.http.json_text import JsonReply
from shammah_gateway.http.openai_answer import REQUEST_ID
from shammah_gateway.http.openai_call import ChatCall, Finish, Forwarded
from shammah_gateway.http.openai_capture import ChunkCapture, read_completion
from shammah_gateway.http.openai_relay import NO_RETRY, OF_OUR_KEY, translate_error
from shammah_gateway.http.openai_reply import write_frame
from shammah_gateway.http.openai_wire import ChatInputError
from shammah_gateway.http.passage import Passage, forward_headers
from shammah_gateway.http.passthrough import Opened, PassThrough
from shammah_gateway.http.splice import replace_top_level
from shammah_gateway.http.upstream import UpstreamBrokenError
from shammah_gateway.money.usage import bound_usage
from shammah_gateway.teachers.faults import cut_off

# What a server may write at most where the caller gave no limit: for a cap in USD.
UNBOUNDED_TOKENS = 128_000


class BytesWay:
    """A `Way`."""

    def __init__(self, door: Door, way: PassThrough) -> None:
        self._door = door
        self._way = way
        self._own_key = door.settings.http_credentials == "own"

    def make_passage(self, call: ChatCall) -> Passage:
        """As `Way.make_passage`."""
        body, named = call.body, call.wish.model
        ledger = self._door.ledger
        capped = ledger is not None and ledger.caps.any_usd
        count = call.chat.raw.get("n")
        if capped and not (count is None or (isinstance(count, int) and 1 <= count <= 128)):
            raise ChatInputError(f"n is {count!r}; allowed: 1 to 128", param="n")
        most = (call.chat.max_tokens or UNBOUNDED_TOKENS) * (count or 1) if capped else 0
        return Passage(
            method="POST",
            target="/chat/completions",
            headers=forward_headers(call.http.scope["headers"]),
            body=body,
            caller=call.caller,
            author={},
            keep_credentials=not self._own_key,
            rename=None if named else (lambda model: replace_top_level(body, "model", model)),
            models=(named,) if named else self._door.teacher_models,
            worst=bound_usage(len(body), most) if capped else None,
        )

    async def open(self, passage: Passage) -> Opened:
        """As `Way.open`."""
        return await self._way.open(passage)

    async def read_whole(self, forwarded: Forwarded) -> tuple[Response, Captured | None]:
        """As `Way.read_whole`."""
        opened, passage = forwarded.opened, forwarded.passage
        reply = opened.reply
        try:
            body = await reply.read()
        except UpstreamBrokenError as error:
            opened.call.fail(cut_off(str(error)))
            self._give_up(opened, passage)
            raise TeacherError(f"the reply of teacher {opened.call.upstream.name} broke off: {error}") from error
        except asyncio.CancelledError:
            opened.call.drop()
            self._give_up(opened, passage)
            raise
        raw = opened.headers(passage, stream=True)
        if opened.fault is not None and reply.status in OF_OUR_KEY and self._own_key:
            status, told = translate_error(reply.status, body, own_key=True)
            return JsonReply(told, status, {REQUEST_ID: forwarded.request_id, **NO_RETRY}), None
        response = Response(body, reply.status)
        response.raw_headers = [*_without_id(raw), *response.raw_headers]
        response.headers[REQUEST_ID] = forwarded.request_id
        if opened.fault is not None:
            return response, None
        opened.call.succeed()
        captured = read_completion(body)
        self._way.book(opened, passage, captured)
        return response, captured

    def _give_up(self, opened: Opened, passage: Passage) -> None:
        """Close the books on an answer that nobody saw; an error was not billed."""
        if opened.fault is None:
            self._way.book(opened, passage, Captured())

    def stream(self, forwarded: Forwarded, finish: Finish) -> Response:
        """As `Way.stream`."""
        return _StreamedBytes(self._way, forwarded, finish)


class _StreamedBytes(Response):
    """A stream of the upstream, passed on as it comes."""

    def __init__(self, way: PassThrough, forwarded: Forwarded, finish: Finish) -> None:
        super().__init__(headers={REQUEST_ID: forwarded.request_id})
        self._way = way
        self._forwarded = forwarded
        self._finish = finish
        self._capture = ChunkCapture(want_text=forwarded.passage.want_text)
        self._broken = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opened, passage = self._forwarded.opened, self._forwarded.passage
        reply = opened.reply
        gone = asyncio.ensure_future(receive())
        # Whoever waits for the upstream's next bytes is woken by this.
        gone.add_done_callback(lambda _: reply.close())
        left = True
        try:
            headers = _without_id(opened.headers(passage, stream=True))
            headers.append((REQUEST_ID.encode(), self._forwarded.request_id.encode()))
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await self._pass_on(send)
            left = gone.done()
            if not left:
                await self._end(send)
        finally:
            gone.cancel()
            reply.close()
            captured = self._capture.read()
            self._report(captured, left=left)
            self._way.book(opened, passage, captured)
        await self._finish(captured)

    async def _pass_on(self, send: Send) -> None:
        try:
            async for chunk in self._forwarded.opened.reply.chunks():
                self._capture.feed(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except UpstreamBrokenError as error:
            self._broken = str(error)

    async def _end(self, send: Send) -> None:
        """End the stream; one that broke says so, as its end would pass for that of the answer."""
        body = b""
        if not self._capture.ended:
            self._broken = self._broken or "the stream ended before the answer did"
            gap = b"" if self._capture.between_events else b"\n\n"
            body = gap + write_frame(openai_error(TeacherError(f"the teacher's stream broke off: {self._broken}")))
        await send({"type": "http.response.body", "body": body})

    def _report(self, captured: Captured, *, left: bool) -> None:
        """Tell the breaker how it went."""
        call = self._forwarded.opened.call
        if left:
            call.drop()
        elif self._broken or captured.error_type:
            call.fail(cut_off(self._broken or captured.error_message))
        else:
            call.succeed()


def _without_id(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an upstream without its own id of the request: ours takes its place."""
    return [(name, value) for name, value in headers if name.lower() not in (b"x-request-id", b"content-length")]
