"""How a JSON-RPC message of MCP travels by HTTP: its headers, and the messages of a response.

Both eras: 2026-07-28 names version, method and tool in headers and has no session; before, a session header does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import ClientResponse

VERSION_META = "io.modelcontextprotocol/protocolVersion"
VERSION_HEADER = "mcp-protocol-version"
SESSION_HEADER = "mcp-session-id"
_ACCEPT = "application/json, text/event-stream"
# Method -> the parameter that its `mcp-name` header repeats.
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def is_modern(message: Mapping[str, Any]) -> bool:
    """Say whether a message is of the era without sessions: it names its version itself."""
    return VERSION_META in read_meta(message)


def read_meta(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `params._meta` of a message, {} when there is none."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def modern_headers(version: str, message: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a message of the era without sessions."""
    method = str(message.get("method", ""))
    headers = {"accept": _ACCEPT, VERSION_HEADER: version, "mcp-method": method}
    params = message.get("params")
    name = params.get(_NAMED[method]) if method in _NAMED and isinstance(params, Mapping) else None
    if isinstance(name, str):
        headers["mcp-name"] = _encode(name)
    return headers


def session_headers(session: str, version: str) -> dict[str, str]:
    """Return the headers of a message of the handshake era; both are "" before the handshake."""
    named = {SESSION_HEADER: session, VERSION_HEADER: version}
    return {"accept": _ACCEPT, **{name: value for name, value in named.items() if value}}


async def read_messages(response: ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON-RPC messages of a response: one of JSON, or those of an event stream as they come.

    Raises:
        ValueError: what came is no JSON.
    """
    if response.content_type != "text/event-stream":
        body = await response.read()
        if body:
            yield json.loads(body)
        return
    data: list[bytes] = []
    async for line in _read_lines(response):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            text = b"\n".join(data)
            data.clear()
            if text.strip():
                yield json.loads(text)


async def _read_lines(response: ClientResponse) -> AsyncIterator[bytes]:
    """Yield lines of any length, without their ends."""
    rest = bytearray()
    async for piece in response.content.iter_any():
        rest += piece
        *whole, last = rest.split(b"\n")
        rest = bytearray(last)
        for line in whole:
            yield bytes(line.removesuffix(b"\r"))


def _encode(value: str) -> str:
    """Return a header value; what is no plain ASCII is wrapped as the protocol says."""
    plain = value.isascii() and value.isprintable() and value == value.strip() and not value.startswith("=?base64?")
    return value if plain else f"=?base64?{base64.b64encode(value.encode()).decode()}?="
