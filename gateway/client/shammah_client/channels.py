"""Options and metadata of a channel to a gateway. Repeats are this package's own (`retry`), not gRPC's."""

from __future__ import annotations

from shammah_client.connection import Connection

MAX_MESSAGE_BYTES = 64 << 20
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Two clients of one gateway must not share a connection: each has its own life.
    ("grpc.use_local_subchannel_pool", 1),
)


def make_metadata(connection: Connection) -> tuple[tuple[str, str], ...]:
    """Return what every call carries: the token."""
    return (("authorization", f"Bearer {connection.token}"),)
