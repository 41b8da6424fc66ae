"""The connection of `shammah mcp` to the gateway: one message out, its messages back, whatever happens in between.

A request whose connection breaks is sent again when the gateway is back; tool calls carry a request id, so nothing is
done twice. A session that the gateway no longer knows (it was started again) is opened anew. It does not know who asks.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from shammah_chassis.errors import ForbiddenError, ShammahError, UnauthenticatedError, UnavailableError

from shammah_gateway.mcp.endpoint import Endpoint
from shammah_gateway.mcp.wire import (
    SESSION_HEADER,
    VERSION_META,
    is_modern,
    modern_headers,
    read_messages,
    read_meta,
    session_headers,
)
from shammah_gateway.mcp.words import ERROR_CODE_META, STOPPING

# A gateway that is started again is back within this time; a call that it worked on is waited for longer.
AWAY_SECONDS = 10.0
BROKEN_SECONDS = 30.0
PAUSE_SECONDS = 0.3
# The gateway sends something at least every 15 s while a call waits.
SILENT_SECONDS = 120.0
GOODBYE_SECONDS = 2.0
Message = dict[str, Any]


class Link:
    """One client's link; `find` says where the gateway is now. Open it inside of a running event loop."""

    def __init__(self, find: Callable[[], Endpoint]) -> None:
        self._find = find
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=SILENT_SECONDS)
        )
        self._session = ""
        self._version = ""
        self._handshake: Message | None = None
        self._opening = asyncio.Lock()
        self._reached = False

    async def send(self, message: Message) -> AsyncIterator[Message]:
        """Send one message and yield what comes back.

        Raises:
            UnavailableError: no gateway runs, or it went away for long. UnauthenticatedError: no token, or a wrong one.
            ShammahError: the gateway refused the request as a whole; its words are passed on.
        """
        away = 0.0
        broken = False
        while True:
            try:
                async for answer in self._send_once(message):
                    yield answer
                return
            except (aiohttp.ClientError, TimeoutError) as error:
                # Without a first contact nothing runs there; waiting would only hide that.
                away = away or time.monotonic()
                broken = broken or not isinstance(error, aiohttp.ClientConnectorError)
                patience = (BROKEN_SECONDS if broken else AWAY_SECONDS) if self._reached and "id" in message else 0.0
                if time.monotonic() > away + patience:
                    raise UnavailableError(_describe_away(error), retry_after_seconds=5.0) from error
            await asyncio.sleep(PAUSE_SECONDS)

    async def close(self) -> None:
        """End the session and the connections."""
        if self._session:
            try:
                async with asyncio.timeout(GOODBYE_SECONDS):
                    place = self._find()
                    async with self._http.delete(place.url, headers=self._headers(place, {})):
                        pass
            except (aiohttp.ClientError, TimeoutError, ShammahError):
                # It ends by itself after a while.
                self._session = ""
        await self._http.close()

    async def _send_once(self, message: Message) -> AsyncIterator[Message]:
        if message.get("method") == "initialize":
            self._handshake, self._session, self._version = message, "", ""
        elif not is_modern(message):
            await self._reopen()
        session = self._session
        async with self._post(message) as response:
            self._reached = True
            if response.status == 404 and session and not is_modern(message):
                lost = True
            else:
                lost = False
                async for answer in self._read(message, response):
                    yield answer
        if lost:
            if self._session == session:
                self._session = ""
            async for answer in self._send_once(message):
                yield answer

    async def _read(self, message: Message, response: aiohttp.ClientResponse) -> AsyncIterator[Message]:
        if message.get("method") == "initialize":
            self._session = response.headers.get(SESSION_HEADER, "")
        if response.status == 202:
            return
        if response.status >= 500 and response.content_type != "application/json":
            # A gateway that stops, or a proxy before one that is not back yet.
            raise aiohttp.ClientPayloadError(f"HTTP {response.status}")
        if response.content_type not in ("application/json", "text/event-stream") or response.status == 401:
            raise _name_refusal(response.status, await response.text())
        answered = "id" not in message
        async for answer in read_messages(response):
            if message.get("method") == "initialize" and "result" in answer:
                self._version = str(answer["result"].get("protocolVersion", ""))
            if _is_stopping(answer):
                break
            answered = answered or "method" not in answer
            yield answer
        if not answered:
            # The stream was ended by a gateway that stops.
            raise aiohttp.ClientPayloadError("the answer did not come")

    async def _reopen(self) -> None:
        """Shake hands again for a client that did so before, if the session was lost."""
        async with self._opening:
            if self._session or self._handshake is None:
                return
            handshake = {**self._handshake, "id": "shammah-reopen"}
            async with self._post(handshake) as response:
                async for _ in self._read(handshake, response):
                    pass
            async with self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}):
                pass

    def _post(self, message: Message) -> Any:  # noqa: ANN401 - aiohttp's own context manager
        place = self._find()
        return self._http.post(
            place.url,
            data=json.dumps(message).encode(),
            headers={**self._headers(place, message), "content-type": "application/json"},
        )

    def _headers(self, place: Endpoint, message: Message) -> dict[str, str]:
        own = (
            modern_headers(str(read_meta(message)[VERSION_META]), message)
            if is_modern(message)
            else session_headers(self._session, self._version)
        )
        return {**own, "authorization": f"Bearer {place.token}"}


def _is_stopping(answer: Message) -> bool:
    """Say whether a gateway gave the call up because it stops."""
    result = answer.get("result")
    meta = result.get("_meta") if isinstance(result, dict) else None
    return isinstance(meta, dict) and meta.get(ERROR_CODE_META) == STOPPING


def _describe_away(error: BaseException) -> str:
    return f"the gateway does not answer ({error or type(error).__name__}); start it with: shammah up"


def _name_refusal(status: int, body: str) -> ShammahError:
    """Return what a refusal of a whole request means."""
    try:
        told = json.loads(body)
        words = str(told.get("error_description") or told) if isinstance(told, dict) else body
    except ValueError:
        words = body
    if status == 401:
        return UnauthenticatedError(
            f"the gateway does not know this token: {words}; grant one: shammah tokens grant claude ask"
        )
    if status in (403, 421):
        return ForbiddenError(
            f"the gateway refused the request: {words}; SHAMMAH_GATEWAY_MCP_HOSTS allows further hosts"
        )
    return UnavailableError(f"the gateway refused the request with HTTP {status}: {words}")
