"""What a running part says of itself: the ports in its ready file, and whether it is ready (`/readyz`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

_PROBE_SECONDS = 2.0


def read_ready_file(path: Path, pid: int) -> Mapping[str, int] | None:
    """Return the ports that process `pid` wrote; None while there is no file of this process."""
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(raw, dict) or raw.get("pid") != pid:
        return None
    return {name: value for name, value in raw.items() if name.endswith("port") and isinstance(value, int)}


async def probe_ready(admin_port: int) -> bool:
    """Ask `/readyz` on loopback and say whether the answer was 200; no answer is a no."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", admin_port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return line.split(b" ")[1:2] == [b"200"]
