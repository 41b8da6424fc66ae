"""What an answer of the Messages API said and cost, read out of bytes that were passed on: JSON and event stream.

Feeding is cheap (the bytes are kept); reading happens in `read`, after the user has them. It knows no transport.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shammah_gateway.money.usage import UNKNOWN_USAGE, Usage, merge_usage

# A stream is read as it grows beyond this, so that a long one is not kept in memory.
READ_AHEAD_BYTES = 1 << 20
# More text than this becomes no example (`examples.MAX_RESPONSE_CHARS`), so it need not be kept.
MAX_TEXT_CHARS = 120_000
# The bytes of a delta event that are not text, and the bytes of a token of English text: for the estimate below.
_DELTA_OVERHEAD = 83
_BYTES_PER_TOKEN = 4
_TAIL_BYTES = 512
_GZIP_OR_ZLIB = 47


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """An answer: all its text, by whom, how it ended (None: it did not), what it cost.

    `usage` of an answer that did not come to its end has an estimate of the output tokens. `known` is False when
    nothing of its cost was seen. `error_type` is that of an error event in the stream.
    """

    text: str = ""
    model: str = ""
    stop_reason: str | None = None
    usage: Usage = UNKNOWN_USAGE
    known: bool = False
    error_type: str = ""
    error_message: str = ""


@dataclass(slots=True)
class _Seen:
    """What was read of an event stream so far."""

    model: str = ""
    stop_reason: str | None = None
    error_type: str = ""
    error_message: str = ""
    started: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    texts: list[str] = field(default_factory=list)
    chars: int = 0
    delta_bytes: int = 0


class StreamCapture:
    """Reads an event stream. `want_text` False leaves the text out, which is most of the work."""

    def __init__(self, *, want_text: bool, encoding: str = "") -> None:
        self._want_text = want_text
        self._unpack = zlib.decompressobj(_GZIP_OR_ZLIB) if encoding else None
        self._chunks: list[bytes] = []
        self._size = 0
        self._rest = b""
        self._seen = _Seen()

    def feed(self, chunk: bytes) -> None:
        """Keep the next bytes."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > READ_AHEAD_BYTES:
            self._read_lines(last=False)

    def tail(self) -> bytes:
        """Return the last bytes that came."""
        found = b""
        for chunk in reversed(self._chunks):
            found = chunk + found
            if len(found) >= _TAIL_BYTES:
                return found
        return self._rest[-_TAIL_BYTES:] + found

    def read(self) -> Captured:
        """Return what the stream said."""
        self._read_lines(last=True)
        seen = self._seen
        usage = merge_usage(seen.started, seen.last)
        if seen.last is None:
            # It did not come to its end: the count of the output is told last only. What was sent was made, and paid.
            usage = replace(usage, output_tokens=max(usage.output_tokens, seen.delta_bytes // _BYTES_PER_TOKEN))
        return Captured(
            text="".join(seen.texts),
            model=seen.model,
            stop_reason=None if seen.error_type else seen.stop_reason,
            usage=usage,
            known=seen.started is not None or seen.last is not None,
            error_type=seen.error_type,
            error_message=seen.error_message,
        )

    def _read_lines(self, *, last: bool) -> None:
        data = b"".join(self._chunks)
        self._chunks, self._size = [], 0
        if self._unpack is not None:
            data = _unpack(self._unpack, data)
        lines = (self._rest + data).split(b"\n")
        self._rest = b"" if last else lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        """Read one data line; a delta is the most common one and is parsed only where its text is wanted."""
        delta = b'"content_block_delta"' in line
        if delta:
            self._seen.delta_bytes += max(0, len(line) - _DELTA_OVERHEAD)
            if not self._want_text or b'"text_delta"' not in line:
                return
        elif not any(word in line for word in (b'"message_start"', b'"message_delta"', b'"error"', b'"text"')):
            return
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            self._take(json.loads(line[5:]))

    def _take(self, event: dict[str, Any]) -> None:
        seen = self._seen
        match event.get("type"):
            case "message_start":
                message = event["message"]
                seen.model, seen.started = str(message.get("model", "")), message.get("usage")
            case "message_delta":
                seen.stop_reason = (event.get("delta") or {}).get("stop_reason")
                seen.last = event.get("usage")
            case "content_block_start":
                self._add_text((event.get("content_block") or {}).get("text", ""))
            case "content_block_delta":
                self._add_text((event.get("delta") or {}).get("text", ""))
            case "error":
                told = event.get("error") or {}
                seen.error_type = str(told.get("type") or "api_error")
                seen.error_message = str(told.get("message", ""))

    def _add_text(self, text: object) -> None:
        if isinstance(text, str) and text and self._seen.chars < MAX_TEXT_CHARS:
            self._seen.texts.append(text)
            self._seen.chars += len(text)


def read_json_answer(body: bytes, *, encoding: str = "") -> Captured:
    """Return what a JSON reply said; an empty one when it is no message."""
    if encoding:
        body = _unpack(zlib.decompressobj(_GZIP_OR_ZLIB), body)
    try:
        message = json.loads(body)
        usage = message.get("usage")
        blocks = message.get("content") or []
        text = "".join(block.get("text", "") for block in blocks if block.get("type") == "text")
    except (ValueError, AttributeError, TypeError):
        return Captured()
    return Captured(
        text=text,
        model=str(message.get("model", "")),
        stop_reason=message.get("stop_reason"),
        usage=merge_usage(usage, None),
        known=isinstance(usage, dict),
    )


def _unpack(unpacker: Any, data: bytes) -> bytes:  # noqa: ANN401 - zlib does not name its type
    """Return the unpacked bytes; none for a packing that zlib does not know (we ask for none at all)."""
    try:
        return bytes(unpacker.decompress(data))
    except zlib.error:
        return b""
