"""Server-side message threads of the stub: who may continue what, and which conversation the model then sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from support.messages_rules import RefusedError, check_conversation

Json = dict[str, Any]
# A `thread` together with one of these is refused by name.
UNSUPPORTED = ("cache_control", "context_management", "fallbacks", "thinking")
CREATE_ONLY = ("system", "tools")


class ThreadRefusedError(Exception):
    """A thread request that is refused; `details` tell the SDK what to do."""

    def __init__(self, status: int, message: str, details: Json) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


@dataclass
class Threads:
    """Conversations by the id of their last reply."""

    held: dict[str, Json] = field(default_factory=dict)
    continued: set[str] = field(default_factory=set)
    # Answer every thread with `thread_unsupported_request`, as a gateway that answers locally does.
    off: bool = False

    def expand(self, request: Json, *, strict: bool) -> Json:
        """Return the request with the whole conversation, its system and its tools.

        Raises:
            ThreadRefusedError, RefusedError: as the API refuses it.
        """
        thread = request.get("thread")
        if thread is None:
            return request
        unsupported = [name for name in UNSUPPORTED if name in request]
        if self.off or unsupported:
            details = {"error_code": "thread_unsupported_request", "unsupported": unsupported}
            raise ThreadRefusedError(400, "thread: not supported with this request", details)
        if thread.get("type") == "create" and set(thread) == {"type"}:
            check_conversation(request["messages"], strict=strict)
            return request
        if thread.get("type") != "continue" or set(thread) != {"type", "previous_message_id"}:
            raise RefusedError("thread: {type: create} or {type: continue, previous_message_id}")
        return self._continue(request, thread["previous_message_id"], strict=strict)

    def _continue(self, request: Json, previous: str, *, strict: bool) -> Json:
        repeated = [name for name in CREATE_ONLY if name in request]
        if repeated:
            raise RefusedError(f"{repeated[0]}: is taken from the thread and must not be sent on a continue")
        if previous in self.continued:
            raise ThreadRefusedError(
                400, "this response has been continued already", {"error_code": "thread_already_continued"}
            )
        if previous not in self.held:
            raise ThreadRefusedError(404, "no usable thread state was found", {"error_code": "thread_not_found"})
        held = self.held[previous]
        whole = {**held, **request, "messages": [*held["messages"], *request["messages"]]}
        if request["messages"] or held["stop_reason"] != "pause_turn":
            check_conversation(whole["messages"], strict=strict)
        return whole

    def keep(self, request: Json, whole: Json, message: Json) -> None:
        """Keep the conversation under the id of its reply."""
        thread = request.get("thread")
        if thread is None:
            return
        if thread["type"] == "continue":
            self.continued.add(thread["previous_message_id"])
        turns = [*whole["messages"], {"role": "assistant", "content": message["content"]}]
        kept = {name: whole[name] for name in CREATE_ONLY if name in whole}
        self.held[message["id"]] = {**kept, "messages": turns, "stop_reason": message["stop_reason"]}

    def forget(self) -> None:
        """Lose every thread, as after five idle minutes."""
        self.held.clear()
        self.continued.clear()
