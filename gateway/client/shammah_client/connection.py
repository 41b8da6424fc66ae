"""Where a client finds its gateway: address and token, from arguments, the environment or a data folder.

It knows the names of variables and files, nothing of gRPC.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from shammah_client.errors import UnavailableError

ADDRESS_VARIABLE = "SHAMMAH_GATEWAY"
TOKEN_VARIABLE = "SHAMMAH_TOKEN"
FOLDER_VARIABLE = "SHAMMAH_DATA_DIR"


@dataclass(frozen=True, slots=True)
class Connection:
    """Address of a gateway ("host:port") and the bearer token to use with it."""

    address: str
    token: str = field(repr=False)


def default_data_dir() -> Path:
    """Return `$SHAMMAH_DATA_DIR`, else `~/.local/share/shammah`."""
    named = os.environ.get(FOLDER_VARIABLE, "")
    return Path(named) if named else Path.home() / ".local/share/shammah"


def find_connection(
    *, address: str | None = None, token: str | None = None, data_dir: str | Path | None = None
) -> Connection:
    """Return address and token, each from the first that has it: the argument, its variable, the data folder.

    The variables are SHAMMAH_GATEWAY and SHAMMAH_TOKEN; in the folder it is what `shammah up` wrote (`run/up.json`,
    `owner.token`). A `data_dir` that is given comes before the variables.

    Raises:
        UnavailableError: nothing runs on the data folder, or its token can't be read.
    """
    if data_dir is None:
        address = address or os.environ.get(ADDRESS_VARIABLE)
        token = token or os.environ.get(TOKEN_VARIABLE)
    if address and token:
        return Connection(address, token)
    folder = Path(data_dir) if data_dir is not None else default_data_dir()
    try:
        address = address or str(json.loads((folder / "run/up.json").read_text("utf-8"))["gateway"])
        token = token or (folder / "owner.token").read_text("utf-8").strip()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnavailableError(
            f"no Shammah runs on {folder} ({error}); start it with: shammah --data-dir {folder} up, "
            f"or set {ADDRESS_VARIABLE} and {TOKEN_VARIABLE}"
        ) from error
    return Connection(address, token)
