"""Claude's stream of events as OpenAI's stream of chunks, piece by piece while it comes.

Nothing is held back: the bytes that came are the chunks that leave. It also keeps what must be booked and learned:
text, stop reason, usage. It knows no HTTP and no cascade.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shammah_gateway.http.openai_reply import FINISH, ChunkWriter, write_frame, write_usage


class ChunkTranslator:
    """Translates one stream. Feed it the bytes of the upstream, send on what it returns, then send `close()`.

    `text`, `model`, `usage` (Claude's words) and `stop_reason` (None: it ended early) are what came so far; `failed`
    says that the upstream reported an error or ended early.
    """

    def __init__(self, writer: ChunkWriter) -> None:
        self._writer = writer
        self._rest = b""
        self._texts: list[str] = []
        self._calls = 0
        # Of the block that comes now: is it a tool call, and has it arguments yet?
        self._in_call = self._has_arguments = False
        self._ended = False
        self.model = ""
        self.usage: dict[str, Any] = {}
        self.stop_reason: str | None = None
        self.failed = False
        self.has_calls = False

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts)

    def feed(self, data: bytes) -> bytes:
        """Return the chunks of the events that `data` completes; b"" when it completes none."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        out: list[bytes] = []
        for line in lines:
            # The name of an event stands in its data, too: the "event:" lines say nothing more.
            if not line.startswith(b"data:") or self._ended:
                continue
            try:
                out.append(self._translate(json.loads(line[5:])))
            except (ValueError, KeyError, TypeError, AttributeError):
                out.append(self.fail("the teacher sent an event that is not of its protocol"))
        return b"".join(out)

    def close(self) -> bytes:
        """Return what must follow the last bytes: an error, if the upstream ended before its answer did."""
        if self._ended:
            return b""
        if self.stop_reason is None:
            return self.fail("the teacher's stream ended before its answer was complete")
        return self._end()

    def fail(self, message: str, *, kind: str = "server_error", code: str = "teacher_unavailable") -> bytes:
        """Return the error that ends the stream."""
        if self._ended:
            return b""
        self._ended = self.failed = True
        return write_frame({"error": {"message": message, "type": kind, "param": None, "code": code}})

    def _translate(self, event: Mapping[str, Any]) -> bytes:
        match event.get("type"):
            case "message_start":
                return self._start(event["message"])
            case "content_block_start":
                return self._start_block(event["content_block"])
            case "content_block_delta":
                return self._add_delta(event["delta"])
            case "content_block_stop":
                return self._stop_block()
            case "message_delta":
                return self._finish(event)
            case "message_stop":
                return self._end()
            case "error":
                error = event.get("error") or {}
                kind = str(error.get("type") or "api_error")
                return self.fail(str(error.get("message") or "the teacher failed"), kind=kind, code=kind)
            case _:
                return b""

    def _start(self, message: Mapping[str, Any]) -> bytes:
        if message.get("model"):
            self.model = str(message["model"])
            self._writer.name_model(self.model)
        self.usage.update(message.get("usage") or {})
        return self._writer.delta({"role": "assistant", "content": "", "refusal": None})

    def _start_block(self, block: Mapping[str, Any]) -> bytes:
        if block.get("type") == "text" and block.get("text"):
            return self._add_text(block["text"])
        if block.get("type") != "tool_use":
            return b""
        self._in_call = self.has_calls = True
        self._has_arguments = False
        self._calls += 1
        function = {"name": block["name"], "arguments": ""}
        return self._write_call({"id": block["id"], "type": "function", "function": function})

    def _add_delta(self, delta: Mapping[str, Any]) -> bytes:
        if delta.get("type") == "text_delta" and delta["text"]:
            return self._add_text(delta["text"])
        if self._in_call and delta.get("type") == "input_json_delta" and delta["partial_json"]:
            self._has_arguments = True
            return self._write_call({"function": {"arguments": delta["partial_json"]}})
        return b""

    def _stop_block(self) -> bytes:
        """Close a tool call: one without arguments is an empty object here, and not an empty text."""
        empty = self._in_call and not self._has_arguments
        self._in_call = False
        return self._write_call({"function": {"arguments": "{}"}}) if empty else b""

    def _finish(self, event: Mapping[str, Any]) -> bytes:
        # The counts are cumulative: the last ones hold.
        self.usage.update({name: count for name, count in (event.get("usage") or {}).items() if count is not None})
        reason = (event.get("delta") or {}).get("stop_reason")
        if reason is None:
            return b""
        self.stop_reason = str(reason)
        return self._writer.delta({}, FINISH.get(self.stop_reason, "stop"))

    def _end(self) -> bytes:
        if self.stop_reason is None:
            return self.fail("the teacher's stream ended before its answer was complete")
        self._ended = True
        return self._writer.end(write_usage(self.usage))

    def _add_text(self, text: str) -> bytes:
        self._texts.append(text)
        return self._writer.delta({"content": text})

    def _write_call(self, call: Mapping[str, Any]) -> bytes:
        return self._writer.delta({"tool_calls": [{"index": self._calls - 1, **call}]})
