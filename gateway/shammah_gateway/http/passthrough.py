"""The pass-through: a request's bytes to an upstream, the reply's bytes back, metered on the way.

What the upstream says is not changed: status, headers, errors and events go on as they came. Only two things are
added: who answered, and the error event of a stream that broke. It knows the Messages API's shapes by `capture` only.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from shammah_chassis.errors import ShammahError, TeacherError, TeacherTimeoutError, UnavailableError
from starlette.types import Receive, Send

from shammah_gateway.consent.counts import TrafficCounts
from shammah_gateway.http.capture import Captured, StreamCapture, read_json_answer
from shammah_gateway.http.errors import anthropic_error
from shammah_gateway.http.headers import PASSED_OVER, new_request_id
from shammah_gateway.http.passage import CREDENTIALS, Passage, reply_headers
from shammah_gateway.http.upstream import UpstreamBrokenError, UpstreamClient, UpstreamReply
from shammah_gateway.money.ledger import Hold, Ledger
from shammah_gateway.teachers.faults import Fault, cut_off, lose_connection, read_event_fault, read_fault, run_late
from shammah_gateway.teachers.upstreams import Protocol, UpstreamCall

_STREAM = "text/event-stream"
# One of these is among the last bytes of a stream that is whole, or that says itself why it is not.
_ENDS = (b'"message_stop"', b"event: error")
# The faults of a caller who brings its own key say nothing about the server.
_OF_THE_KEY = frozenset({"auth", "billing", "rate_limit"})


@dataclass(slots=True)
class Opened:
    """A reply that began. `fault` is what its status says; None when it is an answer.

    `passed_over` are the upstreams that were asked before and failed.
    """

    reply: UpstreamReply
    call: UpstreamCall
    fault: Fault | None
    hold: Hold | None = None
    passed_over: tuple[str, ...] = ()

    def headers(self, passage: Passage, *, stream: bool) -> list[tuple[bytes, bytes]]:
        """Return the headers of the reply to the caller: the upstream's, and who made it."""
        author = passage.author
        if self.passed_over:
            author = {**author, PASSED_OVER: ",".join(self.passed_over)}
        return reply_headers(self.reply.headers, author, stream=stream)


class PassThrough:
    """Passes requests on to the upstreams of one protocol.

    `ledger` None: no money is counted; `counts` None: nor who sent how many bytes where.
    """

    def __init__(
        self,
        client: UpstreamClient,
        ledger: Ledger | None,
        protocol: Protocol = "messages",
        *,
        counts: TrafficCounts | None = None,
    ) -> None:
        self._client = client
        self._protocol: Protocol = protocol
        self._ledger = ledger
        self._counts = counts

    async def open(self, passage: Passage) -> Opened:
        """Send a request to the first upstream that takes it, and return its reply as soon as that begins.

        The reply may be an error of the upstream: then it is that of the last one that was asked.

        Raises:
            BudgetError, StorageFullError: a cap is reached. UnavailableError: no upstream may be asked now.
            TeacherError, TeacherTimeoutError: no upstream gave any reply.
        """
        hold = self._take(passage)
        try:
            opened = await self._open_any(passage)
        except BaseException as error:
            # Who broke off without a reply may have been billed; what was not sent was not.
            self._close(hold, billed=not isinstance(error, UnavailableError))
            raise
        opened.hold = hold
        if opened.fault is not None:
            self._close(hold, billed=False)
        return opened

    async def relay(self, opened: Opened, passage: Passage, receive: Receive, send: Send) -> Captured:
        """Pass a reply on to the client and return what it said; it is booked whatever happens on the way.

        A client that hangs up ends the upstream's work on a stream too: no more is billed than was made.

        Raises:
            TeacherError: the body of the reply is broken, and nothing was sent yet.
        """
        if opened.reply.header("content-type").startswith(_STREAM):
            return await _StreamRelay(self, opened, passage).run(receive, send)
        try:
            body = await opened.reply.read()
        except BaseException as error:
            opened.call.fail(cut_off(str(error)))
            self._close(opened.hold, billed=opened.fault is None)
            if isinstance(error, UpstreamBrokenError):
                raise TeacherError(f"the reply of teacher {opened.call.upstream.name} broke off: {error}") from error
            raise
        headers = opened.headers(passage, stream=False)
        await send({"type": "http.response.start", "status": opened.reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        if opened.fault is not None:
            return Captured()
        opened.call.succeed()
        if not passage.metered:
            return Captured()
        captured = read_json_answer(body, encoding=opened.reply.header("content-encoding"))
        self.book(opened, passage, captured)
        return captured

    def book(self, opened: Opened, passage: Passage, captured: Captured) -> None:
        """Book what an answer cost; one of which nothing was seen stays charged as far as it was bounded."""
        if self._ledger is None or opened.hold is None:
            return
        if not captured.known:
            self._ledger.give_up(opened.hold)
            return
        model = captured.model or opened.call.upstream.model
        self._ledger.book("answer", model=model, usage=captured.usage, caller=passage.caller.name, hold=opened.hold)

    async def _open_any(self, passage: Passage) -> Opened:
        tried: list[str] = []
        failed: Opened | None = None
        error: ShammahError | None = None
        while True:
            try:
                call = self._client.upstreams.choose(self._protocol, tried=tried)
            except UnavailableError as none_left:
                if failed is not None:
                    return failed
                raise error or none_left from none_left
            if failed is not None:
                failed.reply.close()
            outcome = await self._try(call, passage)
            if isinstance(outcome, ShammahError):
                failed, error = None, outcome
            elif outcome.fault is None or not outcome.fault.elsewhere:
                outcome.passed_over = tuple(tried)
                return outcome
            else:
                failed = outcome
            tried.append(call.upstream.name)

    async def _try(self, call: UpstreamCall, passage: Passage) -> Opened | ShammahError:
        """Ask one upstream; returns its reply, or why there is none."""
        name = call.upstream.name
        try:
            reply = await self._send(call, passage)
        except TimeoutError as late:
            call.fail(run_late(str(late)))
            return TeacherTimeoutError(f"teacher {name} did not answer in time")
        except UpstreamBrokenError as broken:
            call.fail(lose_connection(str(broken)))
            kind = TeacherError if broken.sent else UnavailableError
            return kind(f"teacher {name} can't be reached: {broken}")
        if reply.status < 400:
            return Opened(reply, call, None)
        fault = read_fault(reply.status, reply.mapping)
        if fault is not None and not (passage.keep_credentials and fault.kind in _OF_THE_KEY):
            call.fail(fault)
        else:
            call.succeed()
        return Opened(reply, call, fault)

    async def _send(self, call: UpstreamCall, passage: Passage) -> UpstreamReply:
        upstream = call.upstream
        headers = passage.headers.copy()
        if not passage.keep_credentials:
            for name in CREDENTIALS:
                headers.popall(name, None)
            headers.update(upstream.headers)
        headers["accept-encoding"] = "identity"
        if self._counts is not None:
            self._counts.add(passage.caller.name, f"sent {upstream.host}", size=len(passage.body or b""))
        try:
            return await self._client.send(
                passage.method, upstream.base_url, passage.target, headers, passage.body_for(upstream.model)
            )
        except asyncio.CancelledError:
            call.drop()
            raise

    def _take(self, passage: Passage) -> Hold | None:
        if self._ledger is None or not passage.metered:
            return None
        return self._ledger.take("answer", caller=passage.caller.name, models=passage.models, worst=passage.worst)

    def _close(self, hold: Hold | None, *, billed: bool) -> None:
        if self._ledger is None or hold is None:
            return
        if billed:
            self._ledger.give_up(hold)
        else:
            self._ledger.release(hold)


class _StreamRelay:
    """Passes one event stream on."""

    def __init__(self, owner: PassThrough, opened: Opened, passage: Passage) -> None:
        self._owner = owner
        self._opened = opened
        self._passage = passage
        self._encoding = opened.reply.header("content-encoding")
        self._capture = StreamCapture(want_text=passage.want_text, encoding=self._encoding)
        self._broken = ""
        self._hung_up = False

    async def run(self, receive: Receive, send: Send) -> Captured:
        reply = self._opened.reply
        gone = asyncio.ensure_future(receive())
        # Whoever waits for the upstream's next bytes is woken by this.
        gone.add_done_callback(lambda _: reply.close())
        try:
            headers = self._opened.headers(self._passage, stream=True)
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            try:
                async for chunk in reply.chunks():
                    self._capture.feed(chunk)
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except UpstreamBrokenError as error:
                self._broken = str(error)
            self._hung_up = gone.done()
            if not self._hung_up:
                await self._end(send)
        except asyncio.CancelledError:
            self._hung_up = True
            raise
        finally:
            gone.cancel()
            reply.close()
            captured = self._capture.read()
            self._report(captured)
            self._owner.book(self._opened, self._passage, captured)
        return captured

    async def _end(self, send: Send) -> None:
        """End the stream to the client as whole as it came.

        A stream that broke between two events ends with an error event: a clean end would pass for a whole answer with
        some clients. Within an event only a broken connection is left to say it: the server closes it, as the answer
        is not completed here.
        """
        tail = self._capture.tail()
        if not self._broken and (self._encoding or any(word in tail for word in _ENDS)):
            await send({"type": "http.response.body", "body": b""})
            return
        self._broken = self._broken or "the stream ended before the answer did"
        if self._encoding or not (tail == b"" or tail.endswith((b"\n\n", b"\r\n\r\n"))):
            return
        told = TeacherError(f"the teacher's stream broke off: {self._broken}")
        data = json.dumps(anthropic_error(told, new_request_id()))
        await send({"type": "http.response.body", "body": f"event: error\ndata: {data}\n\n".encode()})

    def _report(self, captured: Captured) -> None:
        """Tell the breaker how it went."""
        call = self._opened.call
        if self._hung_up:
            call.drop()
        elif captured.error_type:
            call.fail(read_event_fault(captured.error_type, captured.error_message))
        elif self._broken:
            call.fail(cut_off(self._broken))
        else:
            call.succeed()
