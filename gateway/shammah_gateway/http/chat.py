"""POST /v1/chat/completions: the local answer where the cascade gives one, else the teacher's, in OpenAI's shape.

It decides nothing about quality: `frontdesk` does. How a teacher is reached is `openai_call.Way`.
"""

from __future__ import annotations

from dataclasses import replace

from shammah_chassis.errors import NotFoundError, ShammahError, TeacherError
from shammah_chassis.examples import MAX_QUERY_CHARS
from shammah_chassis.scopes import Caller
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shammah_gateway.cascade import NO_TEACHER, PASSING, Decision
from shammah_gateway.checks import MAX_ANSWER_TOKENS
from shammah_gateway.http.capture import Captured
from shammah_gateway.http.door import Door
from shammah_gateway.http.errors import UnsupportedError
from shammah_gateway.http.headers import read_options
from shammah_gateway.http.openai_answer import EVENT_STREAM, write_answer, write_author
from shammah_gateway.http.openai_bytes import BytesWay
from shammah_gateway.http.openai_call import ChatCall, Forwarded, Way
from shammah_gateway.http.openai_translated import TranslatedWay
from shammah_gateway.http.openai_wire import (
    ChatInputError,
    ChatRequest,
    check_supported,
    read_chat,
    read_opening,
    read_text_turns,
)
from shammah_gateway.teachers.upstreams import Protocol
from shammah_gateway.values import Query

PATH = "/v1/chat/completions"


def routes(door: Door) -> list[Route]:
    """Return the route."""
    return [door.route("POST", PATH, ChatCompletions(door).answer, style="openai")]


class ChatCompletions:
    """Answers chat completions."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._gateway = door.gateway
        self._settings = door.settings
        self._protocol = _find_protocol(door)
        self._way = _find_way(door, self._protocol)

    async def answer(self, request: Request, caller: Caller) -> Response:
        """Answer one request; raises named errors."""
        body = await self._door.read_body(request)
        chat = read_chat(body)
        wish = self._door.read_wish(chat.model)
        call = ChatCall(
            http=request,
            caller=caller,
            body=body,
            number=request.state.request_id,
            chat=chat,
            wish=wish,
            options=read_options(request.headers, wish),
        )
        if call.options.local_only:
            return await self._ask(call, "the local model", "")
        if self._way is None:
            return await self._ask_teacher(call)
        return await self._answer_or_forward(self._way, call)

    async def _ask(self, call: ChatCall, who: str, reason: str) -> Response:
        """Answer where nobody takes more than text."""
        chat = call.chat
        check_supported(chat)
        if chat.beyond_text:
            raise UnsupportedError(f"{who} takes text only; not supported: {', '.join(chat.beyond_text)}")
        return write_answer(await self._gateway.ask(_make_query(call, reason)), chat)

    async def _ask_teacher(self, call: ChatCall) -> Response:
        wish = call.wish
        if wish.mode == "upstream" and not self._door.is_teacher_model(wish.model):
            raise NotFoundError(f"model: {wish.model} is not known here")
        return await self._ask(call, "the teacher that is set up here", self._reason(call))

    async def _answer_or_forward(self, way: Way, call: ChatCall) -> Response:
        reason = self._reason(call)
        # First of all: what can't be forwarded is refused at once, and not only when the student declines.
        passage = way.make_passage(call)
        decision: Decision | None = None
        if self._settings.http_routing and _is_plain(call.chat):
            decision = await self._gateway.decide(_make_query(call, reason))
            if decision.local is not None:
                return write_answer(decision.local, call.chat)
        else:
            self._gateway.stay_with_teacher(_make_opening(call))
        passage = replace(
            passage,
            author={**write_author(decision, reason or "uncertified"), **passage.author},
            want_text=decision is not None and not decision.query.no_learn,
        )
        try:
            opened = await way.open(passage)
        except NO_TEACHER as failure:
            return await self._degrade(call, decision, failure)
        if opened.fault is not None and opened.fault.elsewhere and decision:
            fault = TeacherError(f"the teacher failed: {opened.fault}")
            if decision.query.allow_degraded or self._has_others(call, fault):
                opened.reply.close()
                return await self._degrade(call, decision, fault)
        return await self._reply(way, Forwarded(call=call, opened=opened, passage=passage, decision=decision))

    async def _reply(self, way: Way, forwarded: Forwarded) -> Response:
        """Return a reply of an upstream that begins."""

        async def finish(captured: Captured) -> None:
            try:
                await self._finish(forwarded, captured)
            except Exception as error:
                # A fault of ours, and only for the log: the caller's answer is there, or is on its way already.
                self._door.tell(error, "openai", forwarded.call.number)

        opened = forwarded.opened
        if opened.fault is None and opened.reply.header("content-type").startswith(EVENT_STREAM):
            return way.stream(forwarded, finish)
        try:
            response, captured = await way.read_whole(forwarded)
        except TeacherError as failure:
            return await self._degrade(forwarded.call, forwarded.decision, failure)
        if captured is None:
            self._gateway.fail()
        else:
            await finish(captured)
        return response

    async def _finish(self, forwarded: Forwarded, captured: Captured) -> None:
        """Count and learn from a forwarded answer."""
        if forwarded.decision is None:
            self._gateway.pass_over(forwarded.passage.author["x-shammah-reason"])
            return
        # This protocol has one word for an answer that ended and one that a stop sequence of the caller has cut.
        unsure = self._protocol == "chat" and forwarded.call.chat.stop
        await self._gateway.finish(
            forwarded.decision,
            text=captured.text,
            model=captured.model,
            stop_reason=None if unsure else captured.stop_reason,
            input_tokens=captured.usage.prompt_tokens,
            output_tokens=captured.usage.output_tokens,
        )

    async def _degrade(self, call: ChatCall, decision: Decision | None, failure: ShammahError) -> Response:
        """Give another answer in the place of the teacher's, where there may be one; else raise the failure."""
        if decision is None:
            self._gateway.fail()
            raise failure
        by_others = self._has_others(call, failure)
        return write_answer(await self._gateway.replace(decision, failure, by_others=by_others), call.chat)

    def _has_others(self, call: ChatCall, failure: ShammahError) -> bool:
        protocol = self._protocol
        return protocol is not None and isinstance(failure, PASSING) and self._door.has_others(protocol, call.wish)

    def _reason(self, call: ChatCall) -> str:
        """Return why the teacher must answer; "" when the cascade is to decide."""
        if call.wish.mode != "auto":
            return "requested"
        if not self._settings.http_routing:
            return "routing_off"
        beyond = call.chat.uncertified or len(call.body) > self._settings.http_routed_max_bytes
        return "uncertified" if beyond else ""


def _find_protocol(door: Door) -> Protocol | None:
    """Return the protocol of the first upstream; None when there is none."""
    states = door.upstream.upstreams.states() if door.upstream is not None else ()
    return states[0].protocol if states else None


def _find_way(door: Door, protocol: Protocol | None) -> Way | None:
    """Return the way to the upstreams of a protocol; None when there is none."""
    way = door.passthrough(protocol) if protocol is not None else None
    if way is None:
        return None
    return BytesWay(door, way) if protocol == "chat" else TranslatedWay(door, way)


def _is_plain(chat: ChatRequest) -> bool:
    """Say whether the cascade can look at a request: only text, not too long, and the user speaks last."""
    if chat.beyond_text or chat.messages[-1]["role"] != "user":
        return False
    try:
        check_supported(chat)
    except ChatInputError:
        # An upstream of this protocol may know what we do not.
        return False
    turns = read_text_turns(chat)
    return bool(turns[-1].content.strip()) and sum(len(turn.content) for turn in turns) <= MAX_QUERY_CHARS


def _make_opening(call: ChatCall) -> Query:
    """Return as much of a request as names its conversation: nobody decides about it, so its tools need not be read."""
    return Query(messages=read_opening(call.chat), user=call.caller.name, conversation=call.options.conversation)


def _make_query(call: ChatCall, reason: str) -> Query:
    chat, options, caller = call.chat, call.options, call.caller
    return Query(
        messages=read_text_turns(chat),
        max_tokens=min(chat.max_tokens, MAX_ANSWER_TOKENS),
        temperature=chat.temperature,
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
