"""POST /v1/messages: the local answer where the cascade gives one, else the teacher's own bytes.

It decides nothing about quality: `frontdesk` does. A plain request for one of the teacher's own models is passed on
unread: it is learned from after the reply was sent.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from shammah_chassis.errors import InvalidInputError, NotFoundError, ShammahError, TeacherError
from shammah_chassis.logs import request_id as logged_request_id
from shammah_chassis.scopes import Caller
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from shammah_gateway.cascade import NO_TEACHER, PASSING, Decision
from shammah_gateway.checks import MAX_ANSWER_TOKENS
from shammah_gateway.http.anthropic_wire import (
    VERSION_HEADER,
    MessagesRequest,
    check_version,
    read_messages,
    read_model_name,
    write_events,
    write_message,
)
from shammah_gateway.http.auth import ROUTE_SCOPES, read_credential
from shammah_gateway.http.bodies import read_body, send_failure, send_json, send_stream
from shammah_gateway.http.capture import Captured
from shammah_gateway.http.door import Door, parse_object
from shammah_gateway.http.errors import UnsupportedError
from shammah_gateway.http.headers import (
    NO_TRAIN,
    OWN_PREFIX,
    SESSION,
    Options,
    answer_headers,
    author_headers,
    new_request_id,
    read_options,
)
from shammah_gateway.http.names import ModelWish
from shammah_gateway.http.passage import Passage, forward_headers, target_of
from shammah_gateway.http.passthrough import Opened, PassThrough
from shammah_gateway.http.splice import replace_top_level
from shammah_gateway.money.usage import bound_usage
from shammah_gateway.values import Answer, Query

PATH = "/v1/messages"
OUR_WORD = b"shammah"
THREAD_ERROR = "thread_unsupported_request"
_SCOPE = ROUTE_SCOPES["POST", PATH]
_NO_OPTIONS = Options()
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Call:
    """One request on its way. `request` None: it was not read, or it has a shape that only the teacher may judge."""

    scope: Scope
    receive: Receive
    send: Send
    number: str
    headers: Mapping[str, str]
    caller: Caller
    body: bytes
    wish: ModelWish | None = None
    options: Options = _NO_OPTIONS
    request: MessagesRequest | None = None
    problem: InvalidInputError | None = None


class MessagesApp:
    """The route as an ASGI application: it carries nearly all traffic, so it is as thin as can be."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._gateway = door.gateway
        self._settings = door.settings
        self._pass = door.passthrough("messages")
        self._keeps_key = door.settings.http_credentials == "client"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        number = new_request_id()
        logged_request_id.set(number)
        begun = ended = False

        async def note(message: MutableMapping[str, Any]) -> None:
            nonlocal begun, ended
            begun = True
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            await self._serve(scope, receive, note, number)
        except ClientDisconnect:
            return
        except Exception as error:
            failure = self._door.tell(error, "anthropic", number)
            if not begun:
                await send_failure(send, failure)
            elif not ended:
                raise  # the server ends the connection: a second reply would be taken for that of the next request
            # Else the client has its whole answer, and the connection is already its next request's.

    async def _serve(self, scope: Scope, receive: Receive, send: Send, number: str) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        caller = self._door.gatekeeper.admit(read_credential(headers), _SCOPE)
        check_version(headers.get(VERSION_HEADER, ""))
        body = await read_body(receive, headers.get("content-length", ""), self._settings.http_max_body_bytes)
        call = _Call(scope, receive, send, number, headers, caller, body)
        if self._pass is not None and self._goes_unread(call):
            await self._pass_unread(self._pass, call)
            return
        self._read(call)
        if call.options.local_only:
            await self._answer_locally(call)
        elif self._pass is None:
            await self._answer_by_asking(call)
        else:
            await self._answer_or_pass(self._pass, call)

    def _goes_unread(self, call: _Call) -> bool:
        """Say whether nothing in the request can concern us: no name of ours, no wish, no cap that needs its size."""
        settings, ledger = self._settings, self._door.ledger
        if OUR_WORD in call.body or (ledger is not None and (ledger.caps.any_usd or ledger.caps.at_cap == "degrade")):
            return False
        may_be_auto = bool(settings.http_auto_models) and settings.http_routing
        if may_be_auto and len(call.body) <= settings.http_routed_max_bytes:
            return False
        return not any(name.startswith(OWN_PREFIX) and name != NO_TRAIN for name in call.headers)

    def _read(self, call: _Call) -> None:
        """Read a request; InvalidInputError only where nobody could forward it."""
        raw = parse_object(call.body)
        call.wish = self._door.read_wish(read_model_name(raw))
        call.options = read_options(call.headers, call.wish)
        try:
            call.request = read_messages(raw)
        except InvalidInputError as problem:
            call.problem = problem

    async def _pass_unread(self, way: PassThrough, call: _Call) -> None:
        learns = self._settings.http_routing and not read_options(call.headers, ModelWish("upstream")).no_learn
        may_learn = learns and len(call.body) <= self._settings.http_routed_max_bytes and b'"tools"' not in call.body
        reason = "requested" if self._settings.http_routing else "routing_off"
        if call.headers.get(SESSION):
            call.options = Options(conversation=call.headers[SESSION])
            self._note_conversation(call)
        passage = self._make_passage(call, author_headers(route="teacher", reason=reason), want_text=may_learn)
        try:
            opened = await way.open(passage)
        except ShammahError:
            self._gateway.fail()
            raise
        captured = await way.relay(opened, passage, call.receive, call.send)
        if opened.fault is not None:
            self._gateway.fail()
        elif not (may_learn and captured.text and await self._learn_unread(call, captured)):
            self._gateway.pass_over(reason)

    async def _learn_unread(self, call: _Call, captured: Captured) -> bool:
        """Learn from an answer to a request that nobody read yet; False when it is not of the kind to learn from."""
        try:
            self._read(call)
            request = call.request
            if request is None or request.beyond:
                return False
            decision = await self._gateway.decide(_make_query(call, request, "requested"))
            await self._finish(decision, captured)
        except ShammahError as error:
            # The user has the answer; that nothing was learned concerns only us.
            _log.warning("nothing is learned from a forwarded answer: %s", error.message)
            return False
        return True

    async def _answer_locally(self, call: _Call) -> None:
        request = self._need_plain(call, "the local model")
        await self._write(call, request, await self._gateway.ask(_make_query(call, request, "")))

    async def _answer_by_asking(self, call: _Call) -> None:
        """Answer where no upstream takes bytes: a forwarded query is answered in the protocol all the same."""
        wish = call.wish
        if wish is not None and wish.mode == "upstream" and not self._door.is_teacher_model(wish.model):
            raise NotFoundError(f"model: {wish.model}")
        request = self._need_plain(call, "the teacher that is set up here")
        await self._write(call, request, await self._gateway.ask(_make_query(call, request, self._reason(call))))

    def _need_plain(self, call: _Call, who: str) -> MessagesRequest:
        """Return a request that is nothing but text; the error names what is more."""
        request = call.request
        if request is None:
            raise call.problem or InvalidInputError("the request can't be read")
        if request.threaded:
            # The SDK's tool runner sends the whole history again when it reads this word.
            raise UnsupportedError(
                f"{who} keeps no threads; send the whole conversation",
                details={"error_code": THREAD_ERROR, "unsupported": []},
            )
        if request.beyond:
            raise UnsupportedError(
                f"{who} takes text only; not supported: {', '.join(request.beyond)}",
                details={"error_code": "unsupported", "unsupported": list(request.beyond)},
            )
        return request

    async def _answer_or_pass(self, way: PassThrough, call: _Call) -> None:
        reason = self._reason(call)
        request = call.request
        decision: Decision | None = None
        if self._settings.http_routing and request is not None and not request.beyond:
            decision = await self._gateway.decide(_make_query(call, request, reason))
            if decision.local is not None:
                await self._write(call, request, decision.local)
                return
        else:
            self._note_conversation(call)
        passage = self._make_passage(
            call,
            _write_author(decision, reason or "uncertified"),
            want_text=decision is not None and not decision.query.no_learn,
        )
        try:
            opened = await way.open(passage)
        except NO_TEACHER as failure:
            await self._degrade(call, decision, failure)
            return
        if await self._replace_fault(call, decision, opened):
            return
        captured = await way.relay(opened, passage, call.receive, call.send)
        if opened.fault is not None:
            self._gateway.fail()
        elif decision is None:
            self._gateway.pass_over(reason or "uncertified")
        else:
            await self._finish(decision, captured)

    def _note_conversation(self, call: _Call) -> None:
        """Keep a conversation with the teacher whose turn nobody decides about: with tools, images, too much text."""
        turns = call.request.messages if call.request is not None else ()
        if turns or call.options.conversation:
            query = Query(messages=turns, user=call.caller.name, conversation=call.options.conversation)
            self._gateway.stay_with_teacher(query)

    def _reason(self, call: _Call) -> str:
        """Return why the teacher must answer; "" when the cascade is to decide."""
        if call.wish is not None and call.wish.mode != "auto":
            return "requested"
        if not self._settings.http_routing:
            return "routing_off"
        return "uncertified" if len(call.body) > self._settings.http_routed_max_bytes else ""

    async def _degrade(self, call: _Call, decision: Decision | None, failure: ShammahError) -> None:
        """Give another answer in the place of the teacher's, where there may be one; else raise the failure."""
        if decision is None or call.request is None:
            self._gateway.fail()
            raise failure
        by_others = self._has_others(call, failure)
        await self._write(call, call.request, await self._gateway.replace(decision, failure, by_others=by_others))

    def _has_others(self, call: _Call, failure: ShammahError) -> bool:
        return isinstance(failure, PASSING) and self._door.has_others("messages", call.wish)

    async def _replace_fault(self, call: _Call, decision: Decision | None, opened: Opened) -> bool:
        """Put another answer in the place of an upstream's error, where a teacher is left or the caller allows it."""
        fault = opened.fault
        if fault is None or not fault.elsewhere or decision is None:
            return False
        failure = TeacherError(f"the teacher failed: {fault}")
        if not (decision.query.allow_degraded or self._has_others(call, failure)):
            return False
        opened.reply.close()
        await self._degrade(call, decision, failure)
        return True

    async def _finish(self, decision: Decision, captured: Captured) -> None:
        await self._gateway.finish(
            decision,
            text=captured.text,
            model=captured.model,
            stop_reason=captured.stop_reason,
            input_tokens=captured.usage.prompt_tokens,
            output_tokens=captured.usage.output_tokens,
        )

    def _make_passage(self, call: _Call, author: Mapping[str, str], *, want_text: bool) -> Passage:
        body, wish, request = call.body, call.wish, call.request
        renames = wish is not None and not wish.model
        ledger = self._door.ledger
        worst = None
        if ledger is not None and ledger.caps.any_usd:
            limit = request.max_tokens if request is not None else MAX_ANSWER_TOKENS
            worst = bound_usage(len(body), limit, cached=b'"cache_control"' in body)
        return Passage(
            method="POST",
            target=target_of(call.scope),
            headers=forward_headers(call.scope["headers"]),
            body=body,
            caller=call.caller,
            author=author,
            keep_credentials=self._keeps_key,
            rename=(lambda model: replace_top_level(body, "model", model)) if renames else None,
            models=(wish.model,) if wish is not None and wish.model else self._door.teacher_models,
            worst=worst,
            want_text=want_text,
        )

    async def _write(self, call: _Call, request: MessagesRequest, answer: Answer) -> None:
        headers = {**answer_headers(answer), "request-id": f"req_{answer.query_id}"}
        if request.stream:
            await send_stream(call.send, b"".join(write_events(answer, request)), headers)
        else:
            await send_json(call.send, write_message(answer, request), headers)


def _make_query(call: _Call, request: MessagesRequest, reason: str) -> Query:
    options, caller = call.options, call.caller
    return Query(
        messages=request.messages,
        max_tokens=min(request.max_tokens, MAX_ANSWER_TOKENS),
        temperature=request.temperature,
        release=options.release,
        no_learn=options.no_learn,
        local_only=options.local_only,
        allow_degraded=options.allow_degraded,
        user=caller.name,
        may_audit="audit" in caller.scopes,
        alpha=options.alpha,
        conversation=options.conversation,
        forward_reason=reason,
    )


def _write_author(decision: Decision | None, reason: str) -> dict[str, str]:
    """Return the headers of a reply that is passed on."""
    if decision is None:
        return author_headers(route="teacher", reason=reason)
    trial = decision.trial
    return author_headers(
        route="teacher",
        reason=trial.reason,
        release=trial.versions.release,
        category=trial.category,
        confidence=trial.confidence if trial.versions.router else None,
        query_id=decision.query_id,
    )
