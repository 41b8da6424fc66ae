"""Replies of an upstream as responses of ordinary routes: passed on as they come, or read and changed in one field.

For the routes that are not measured by the thousand a second. It books nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shammah_chassis.errors import TeacherError
from shammah_chassis.scopes import Caller
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shammah_gateway.http.headers import author_headers
from shammah_gateway.http.passage import Passage, forward_headers, reply_headers, target_of
from shammah_gateway.http.passthrough import Opened
from shammah_gateway.http.upstream import UpstreamBrokenError

Tee = Callable[[bytes], None]
AUTHOR: Mapping[str, str] = author_headers(route="teacher", reason="requested")


def make_passage(request: Request, caller: Caller, body: bytes | None, *, keep_credentials: bool) -> Passage:
    """Return a request that is passed on but not metered."""
    return Passage(
        method=request.method,
        target=target_of(request.scope),
        headers=forward_headers(request.scope["headers"]),
        body=body,
        caller=caller,
        author=AUTHOR,
        keep_credentials=keep_credentials,
        metered=False,
    )


class RelayedResponse(Response):
    """An upstream's reply, passed on as it comes; `tee` sees each chunk, `ended` is called when all of it was sent."""

    def __init__(self, opened: Opened, *, tee: Tee | None = None, ended: Callable[[], None] | None = None) -> None:
        super().__init__(status_code=opened.reply.status)
        self._opened = opened
        self._tee = tee
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the reply."""
        reply = self._opened.reply
        try:
            headers = reply_headers(reply.headers, AUTHOR, stream=False)
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            async for chunk in reply.chunks():
                if self._tee is not None:
                    self._tee(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except UpstreamBrokenError:
            # Not completed: the server closes the connection, and the client sees that the body is not whole.
            return
        finally:
            reply.close()
        await send({"type": "http.response.body", "body": b""})
        if self._opened.fault is None and self._ended is not None:
            self._ended()


async def read_whole(opened: Opened) -> bytes:
    """Return the body of an upstream's reply; TeacherError when it broke off."""
    try:
        return await opened.reply.read()
    except UpstreamBrokenError as error:
        raise TeacherError(f"the reply of teacher {opened.call.upstream.name} broke off: {error}") from error


async def read_changed(opened: Opened, change: Callable[[bytes], bytes]) -> Response:
    """Return an upstream's reply with its body changed; an error is passed on as it is. Raises as `read_whole`."""
    body = await read_whole(opened)
    if opened.fault is None:
        body = change(body)
    response = Response(body, opened.reply.status)
    length = response.raw_headers
    headers = reply_headers(opened.reply.headers, AUTHOR, stream=True)
    response.raw_headers = [*headers, *length]
    return response
