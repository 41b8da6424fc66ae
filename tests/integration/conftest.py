"""Fixtures of the integration tests."""

from support.nats import bus, nats_server, own_nats

__all__ = ["bus", "nats_server", "own_nats"]
