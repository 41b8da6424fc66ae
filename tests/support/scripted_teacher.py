"""A scripted Claude on the strict Messages stub: it teaches by a fixed plan, whatever fails on the way.

Its turn is found from the conversation that it is sent: a request that is made again gets the same turn again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from support.messages_http import Call, Wire, serve
from support.messages_stub import MessagesStub, text, tool_use

Json = dict[str, Any]
# One turn: its blocks and its stop reason.
Turn = tuple[list[Json], str]
ROUND = ("analyze_model", "generate_training_data", "train", "query_local_model", "compare_responses")
ARGUMENTS: dict[str, Json] = {
    "analyze_model": {"test_count": 50},
    "generate_training_data": {"category": "colour", "count": 50, "difficulty": "easy", "focus": "the sea"},
    "train": {"wait": True},
    "query_local_model": {"query": "colour of the sea"},
    "compare_responses": {"query": "colour of the sea", "teacher_response": "blue"},
}


def thinking(number: int) -> Json:
    """A thinking block with a signature that only this place in the conversation has."""
    return {"type": "thinking", "thinking": f"thought {number}", "signature": f"signature-{number}"}


def call(number: int, name: str, arguments: Json | None = None) -> Turn:
    """A turn that thinks and calls one tool."""
    asked = ARGUMENTS[name] if arguments is None else arguments
    return [thinking(number), tool_use(name, asked, identity=f"toolu_{number:03d}")], "tool_use"


def plan_rounds(rounds: int) -> list[Turn]:
    """The whole loop so many times, one more look, and a last word."""
    names = [*ROUND * rounds, "analyze_model"]
    return [*(call(number, name) for number, name in enumerate(names)), ([text("I taught it colours.")], "end_turn")]


def count_turns(request: Json) -> int:
    """How many turns Claude has had before this request."""
    return sum(turn["role"] == "assistant" for turn in request["messages"])


@dataclass
class ScriptedTeacher(MessagesStub):
    """`plan` is what it says, turn by turn. `once` replaces the turn of a number when it is asked for the first time (a
    refusal, a cut), `fails` breaks it by a fault of the stub."""

    plan: list[Turn] = field(default_factory=lambda: plan_rounds(2))
    once: dict[int, Turn] = field(default_factory=dict)
    fails: dict[int, str] = field(default_factory=dict)
    paused: list[Json] = field(default_factory=list)

    def respond(self, headers: dict[str, str], body: bytes) -> tuple[int, Json]:
        request = json.loads(body)
        messages = request.get("messages", [])
        if self.paused and messages and messages[-1] == self.paused[-1]:
            # The API takes a paused turn back as the last one; the rules of the stub know no pause.
            body = json.dumps({**request, "messages": [*messages, {"role": "user", "content": "(pause)"}]}).encode()
        return super().respond(headers, body)

    async def _handle_message(self, call: Call, wire: Wire) -> None:
        if fault := self.fails.pop(count_turns(call.json), ""):
            self.faults.append(fault)
        await super()._handle_message(call, wire)

    def _message(self, request: Json) -> Json:
        number = count_turns(request)
        content, stop = self.once.pop(number, None) or self.plan[number]
        self.replies, self.stop_reason = [content] if content else [], stop
        message = super()._message(request)
        message["stop_reason"] = stop
        if stop == "pause_turn":
            self.paused.append({"role": "assistant", "content": content})
        return message


@asynccontextmanager
async def serve_teacher(teacher: ScriptedTeacher | None = None) -> AsyncIterator[ScriptedTeacher]:
    """Serve a scripted teacher on a free loopback port."""
    teacher = teacher or ScriptedTeacher()
    async with serve(teacher.handle) as teacher.url:
        try:
            yield teacher
        finally:
            teacher.hold.set()
