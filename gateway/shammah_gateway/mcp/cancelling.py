"""How a posted `notifications/cancelled` names the call that it cancels.

In a session it is the id of the JSON-RPC request. In the era without sessions ids of several clients collide, so
there only a call with a request id can be cancelled by a message: the message carries that id in its `_meta`.
"""

from __future__ import annotations

import json
from typing import Any

from shammah_chassis.scopes import Caller

from shammah_gateway.mcp.calls import Key, request_key, session_key
from shammah_gateway.mcp.words import REQUEST_ID_META

METHOD = "notifications/cancelled"
_MARK = METHOD.encode()


def read_cancelled(body: bytes, caller: Caller, session: str) -> Key | None:
    """Return the call that a body cancels; None when it is no cancellation or names no call."""
    # Nearly every body is something else, and then it is not parsed here.
    if _MARK not in body:
        return None
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("method") != METHOD or "id" in message:
        return None
    params = message.get("params")
    return _key(params, caller, session) if isinstance(params, dict) else None


def _key(params: dict[str, Any], caller: Caller, session: str) -> Key | None:
    meta = params.get("_meta")
    given = meta.get(REQUEST_ID_META) if isinstance(meta, dict) else None
    if isinstance(given, str) and given:
        return request_key(caller, given)
    number = params.get("requestId")
    if session and isinstance(number, str | int):
        return session_key(caller, session, number)
    return None
