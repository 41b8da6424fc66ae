"""Where the command line finds a running Shammah: data folder, address, token.

Knows file names only; who writes them is the local supervisor.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from shammah_chassis.errors import UnavailableError


def default_data_dir() -> Path:
    """Return `$SHAMMAH_DATA_DIR`, else `~/.local/share/shammah`."""
    named = os.environ.get("SHAMMAH_DATA_DIR", "")
    return Path(named) if named else Path.home() / ".local/share/shammah"


@dataclass(frozen=True, slots=True)
class Connection:
    """Address of a gateway ("host:port") and the bearer token to use with it; `http` is its URL, "" when not known."""

    target: str
    token: str
    http: str = ""


def find_connection(data_dir: Path) -> Connection:
    """Read address and token: `$SHAMMAH_GATEWAY` and `$SHAMMAH_TOKEN` first, else what `shammah up` wrote.

    Raises:
        UnavailableError: nothing runs on this data folder, or its token can't be read.
    """
    target = os.environ.get("SHAMMAH_GATEWAY", "")
    token = os.environ.get("SHAMMAH_TOKEN", "")
    http = ""
    try:
        if not target:
            told = json.loads((data_dir / "run/up.json").read_text("utf-8"))
            target, http = str(told["gateway"]), str(told.get("http", ""))
        if not token:
            token = (data_dir / "owner.token").read_text("utf-8").strip()
    except (OSError, ValueError, KeyError) as error:
        raise UnavailableError(
            f"no Shammah runs on {data_dir} ({error}); start it with: shammah --data-dir {data_dir} up"
        ) from error
    return Connection(target=target, token=token, http=http)
