"""The way of a chat completion to an upstream of the Messages API: translated there, and back while it comes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from multidict import CIMultiDict
from shammah_chassis.errors import TeacherError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shammah_gateway.http.anthropic_wire import VERSION_HEADER, VERSIONS
from shammah_gateway.http.capture import Captured
from shammah_gateway.http.door import Door
from shammah_gateway.http.json_text import JsonReply, write_json
from shammah_gateway.http.names import CLAUDE_PREFIX, ModelWish
from shammah_gateway.http.openai_answer import REQUEST_ID, make_head
from shammah_gateway.http.openai_call import ChatCall, Finish, Forwarded
from shammah_gateway.http.openai_claude import write_claude_body
from shammah_gateway.http.openai_relay import NO_RETRY, OF_OUR_KEY, TranslatedStream, WholeReply, translate_error
from shammah_gateway.http.openai_reply import ChunkWriter, write_claude_completion
from shammah_gateway.http.openai_stream import ChunkTranslator
from shammah_gateway.http.openai_wire import check_supported
from shammah_gateway.http.passage import CREDENTIALS, Passage
from shammah_gateway.http.passthrough import Opened, PassThrough
from shammah_gateway.money.usage import bound_usage

# The sampling fields that the caller set and that Claude does not take.
DROPPED = "x-shammah-dropped"
# Claude wants a limit; OpenAI's callers often give none and expect the whole answer.
DEFAULT_MAX_TOKENS = 16_000


class TranslatedWay:
    """A `Way`."""

    def __init__(self, door: Door, way: PassThrough) -> None:
        self._door = door
        self._way = way
        self._own_key = door.settings.http_credentials == "own"

    def make_passage(self, call: ChatCall) -> Passage:
        """As `Way.make_passage`."""
        chat, headers = call.chat, call.http.headers
        check_supported(chat)
        model = _model_for_claude(call.wish)
        written = write_claude_body(chat, model=model, default_max_tokens=DEFAULT_MAX_TOKENS)
        sent = CIMultiDict({"content-type": "application/json", VERSION_HEADER: VERSIONS[-1]})
        if not self._own_key:
            sent.update({name: headers[name] for name in CREDENTIALS if name in headers})
        body = _encode(written)
        ledger = self._door.ledger
        capped = ledger is not None and ledger.caps.any_usd
        return Passage(
            method="POST",
            target="/v1/messages",
            headers=sent,
            body=body,
            caller=call.caller,
            author={DROPPED: ",".join(chat.sampling)} if chat.sampling else {},
            keep_credentials=not self._own_key,
            rename=None if model else (lambda name: _encode({**written, "model": name})),
            models=(model,) if model else self._door.teacher_models,
            worst=bound_usage(len(body), written["max_tokens"]) if capped else None,
        )

    async def open(self, passage: Passage) -> Opened:
        """As `Way.open`."""
        return await self._way.open(passage)

    async def read_whole(self, forwarded: Forwarded) -> tuple[Response, Captured | None]:
        """As `Way.read_whole`."""
        whole = WholeReply()
        captured = await self._way.relay(forwarded.opened, forwarded.passage, forwarded.call.http.receive, whole.send)
        headers = {**whole.headers, REQUEST_ID: forwarded.request_id}
        if forwarded.opened.fault is not None:
            status, told = translate_error(whole.status, whole.body, own_key=self._own_key)
            if whole.status in OF_OUR_KEY:
                headers |= NO_RETRY
            return JsonReply(told, status, headers), None
        head = make_head(forwarded.query_id, forwarded.call.chat.model)
        try:
            reply = write_claude_completion(head, json.loads(whole.body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TeacherError("the teacher's reply is not of its protocol") from error
        return JsonReply(reply, headers=headers), captured

    def stream(self, forwarded: Forwarded, finish: Finish) -> Response:
        """As `Way.stream`."""
        return _StreamedReply(self._way, forwarded, finish)


class _StreamedReply(Response):
    """A stream of the upstream, translated while it comes."""

    def __init__(self, way: PassThrough, forwarded: Forwarded, finish: Finish) -> None:
        super().__init__(headers={REQUEST_ID: forwarded.request_id})
        self._way = way
        self._forwarded = forwarded
        self._finish = finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        forwarded = self._forwarded
        chat = forwarded.call.chat
        writer = ChunkWriter(make_head(forwarded.query_id, chat.model), include_usage=chat.include_usage)
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        stream = TranslatedStream(send, ChunkTranslator(writer), headers)
        captured = await self._way.relay(forwarded.opened, forwarded.passage, receive, stream.send)
        await stream.end()
        await self._finish(captured)


def _model_for_claude(wish: ModelWish) -> str:
    """Return the id that the caller wants from Claude; "" for the one that is set.

    An id of another maker that the settings map to auto says nothing to Claude; one that nobody mapped is Claude's to
    refuse.
    """
    return wish.model if wish.mode == "upstream" or wish.model.startswith(CLAUDE_PREFIX) else ""


def _encode(body: Mapping[str, Any]) -> bytes:
    return write_json(body)
