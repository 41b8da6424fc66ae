"""Where `shammah mcp` finds the running gateway's /mcp, and the token that Claude may use.

Looked up for every connection, so a gateway that is started later, or a token that is granted later, is found.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from shammah_chassis.errors import UnauthenticatedError, UnavailableError

from shammah_gateway.mcp.words import PATH

TOKEN_FILE = "claude.token"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of /mcp and the bearer token to use there."""

    url: str
    token: str


def find_endpoint(data_dir: Path, url: str = "") -> Endpoint:
    """Return where to connect: `url`, else $SHAMMAH_URL, else what `shammah up` wrote; the token as `find_token`.

    Raises:
        UnavailableError: nothing runs on this data folder, or it runs without HTTP.
        UnauthenticatedError: there is no token.
    """
    base = url or os.environ.get("SHAMMAH_URL", "") or _read_up(data_dir)
    return Endpoint(base.rstrip("/").removesuffix(PATH) + PATH, find_token(data_dir))


def find_token(data_dir: Path) -> str:
    """Return $SHAMMAH_TOKEN, else the token that was granted to Claude on this data folder.

    Raises:
        UnauthenticatedError: neither is there; the message says how to grant one.
    """
    token = os.environ.get("SHAMMAH_TOKEN", "").strip()
    if token:
        return token
    try:
        token = (data_dir / TOKEN_FILE).read_text("utf-8").strip()
    except OSError:
        token = ""
    if not token:
        raise UnauthenticatedError(
            "Claude may not use Shammah's tools yet. A person grants it with, for example: "
            "shammah tokens grant claude ask analyze compare generate train (or sets SHAMMAH_TOKEN)"
        )
    return token


def _read_up(data_dir: Path) -> str:
    try:
        told = json.loads((data_dir / "run/up.json").read_text("utf-8"))
        url = str(told.get("http") or "")
    except (OSError, ValueError, AttributeError) as error:
        raise UnavailableError(
            f"no Shammah runs on {data_dir}; start it with: shammah --data-dir {data_dir} up"
        ) from error
    if not url:
        raise UnavailableError(f"the Shammah on {data_dir} runs without HTTP; set SHAMMAH_GATEWAY_HTTP_PORT")
    return url
