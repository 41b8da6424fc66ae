"""A typed client of a Shammah gateway over gRPC.

    from shammah_client import Client
    with Client() as shammah:                      # finds what `shammah up` wrote, or SHAMMAH_GATEWAY and SHAMMAH_TOKEN
        answer = shammah.ask("Turn on the hall lights")
        print(answer.text, answer.route, answer.reason)

`AsyncClient` has the same calls as coroutines. Every call has a deadline, failures are the named errors of
`shammah_client.errors`, results are the frozen dataclasses of `shammah_client.results`.
"""

from __future__ import annotations

from shammah_client.async_client import AsyncClient
from shammah_client.client import Client
from shammah_client.connection import Connection, find_connection
from shammah_client.errors import ShammahError
from shammah_client.examples import Example, Message, OfferedExample

__all__ = [
    "AsyncClient",
    "Client",
    "Connection",
    "Example",
    "Message",
    "OfferedExample",
    "ShammahError",
    "find_connection",
]
