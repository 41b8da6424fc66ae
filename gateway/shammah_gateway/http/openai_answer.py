"""An answer of the gateway itself (local, or of a teacher that takes no bytes) as a reply of chat completions.

It knows values and shapes; nothing of who was asked or why.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.responses import Response

from shammah_gateway.cascade import Decision
from shammah_gateway.http.headers import answer_headers, author_headers
from shammah_gateway.http.json_text import JsonReply
from shammah_gateway.http.openai_reply import FINISH, ChunkWriter, ReplyHead, write_completion, write_text_chunks
from shammah_gateway.http.openai_reply import write_usage as write_usage_of
from shammah_gateway.http.openai_wire import ChatRequest
from shammah_gateway.values import Answer

# The header that OpenAI's clients show as the id of a request.
REQUEST_ID = "x-request-id"
EVENT_STREAM = "text/event-stream"


def make_head(query_id: str, model: str) -> ReplyHead:
    """Return what the parts of a reply repeat; made now."""
    return ReplyHead(f"chatcmpl-{query_id}", model, int(time.time()))


def write_answer(answer: Answer, chat: ChatRequest) -> Response:
    """Return the reply of an answer, as a stream where the caller asked for one."""
    text, stop_reason = _cut_at_stop(answer, chat)
    head = make_head(answer.query_id, answer.teacher_model or chat.model)
    headers = {**answer_headers(answer), REQUEST_ID: f"req_{answer.query_id}"}
    usage = write_usage_of({"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens})
    finish = FINISH.get(stop_reason, "stop")
    if not chat.stream:
        return JsonReply(write_completion(head, text=text, finish=finish, usage=usage), headers=headers)
    writer = ChunkWriter(head, include_usage=chat.include_usage)
    body = b"".join(write_text_chunks(writer, text, finish=finish, usage=usage))
    return Response(body, headers={**headers, "cache-control": "no-cache"}, media_type=EVENT_STREAM)


def write_author(decision: Decision | None, reason: str) -> Mapping[str, str]:
    """Return the author headers of a forwarded reply; without a decision only the reason is known."""
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


def _cut_at_stop(answer: Answer, chat: ChatRequest) -> tuple[str, str]:
    """Return text and stop reason: the student knows no stop sequences, so its text is cut here."""
    found = [at for stop in chat.stop if (at := answer.text.find(stop)) >= 0]
    return (answer.text[: min(found)], "stop_sequence") if found else (answer.text, answer.stop_reason)
