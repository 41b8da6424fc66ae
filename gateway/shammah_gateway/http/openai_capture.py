"""What an answer of chat completions said and cost, read out of bytes that were passed on. It knows no transport."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shammah_gateway.http.capture import Captured
from shammah_gateway.money.usage import UNKNOWN_USAGE, Usage


class ChunkCapture:
    """Reads a stream of chunks. `want_text` False leaves the text out. `ended` says that the stream told its end."""

    def __init__(self, *, want_text: bool) -> None:
        self._want_text = want_text
        self._rest = b""
        self._texts: list[str] = []
        self._model = ""
        self._finish: str | None = None
        self._usage: Mapping[str, Any] | None = None
        self._error = ""
        self.ended = False

    @property
    def between_events(self) -> bool:
        """Whether nothing of an event is left open."""
        return not self._rest.strip()

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._read(line[5:].strip())

    def read(self) -> Captured:
        """Return what the stream said; of one without an end or a `usage` the cost is not known."""
        return Captured(
            text="".join(self._texts),
            model=self._model,
            stop_reason=None if self._error else self._finish,
            usage=read_chat_usage(self._usage),
            known=self._usage is not None,
            error_type="api_error" if self._error else "",
            error_message=self._error,
        )

    def _read(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.ended = True
            return
        try:
            chunk = json.loads(data)
            self._take(chunk)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            # It is the client's to judge: these bytes are only passed on.
            return

    def _take(self, chunk: Mapping[str, Any]) -> None:
        if error := chunk.get("error"):
            self.ended, self._error = True, str(error.get("message") if isinstance(error, dict) else error)
            return
        self._model = str(chunk.get("model") or self._model)
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            self._finish = choice.get("finish_reason") or self._finish
            text = (choice.get("delta") or {}).get("content")
            if self._want_text and isinstance(text, str):
                self._texts.append(text)


def read_completion(body: bytes) -> Captured:
    """Return what a whole reply said; an empty one when it is no completion."""
    try:
        reply = json.loads(body)
        choice, usage = reply["choices"][0], reply.get("usage")
        text, finish = choice["message"].get("content") or "", choice.get("finish_reason")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return Captured()
    return Captured(
        text=str(text),
        model=str(reply.get("model") or ""),
        stop_reason=finish,
        usage=read_chat_usage(usage),
        known=isinstance(usage, dict),
    )


def read_chat_usage(raw: Mapping[str, Any] | None) -> Usage:
    """Return the usage of a completion; `prompt_tokens` counts cached tokens too, so they are taken off."""
    prompt = raw.get("prompt_tokens") if isinstance(raw, Mapping) else None
    if raw is None or not isinstance(prompt, int):
        return UNKNOWN_USAGE
    details, out = raw.get("prompt_tokens_details"), raw.get("completion_tokens")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    cached = min(cached, prompt) if isinstance(cached, int) else 0
    return Usage(input_tokens=prompt - cached, cache_read=cached, output_tokens=out if isinstance(out, int) else 0)
