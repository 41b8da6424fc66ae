"""Fixtures of the integration tests."""

from support.door_fixtures import claude, doors, running_doors
from support.gateway_world import world
from support.http_door import site, web
from support.nats import bus, nats_server, own_nats

__all__ = ["bus", "claude", "doors", "nats_server", "own_nats", "running_doors", "site", "web", "world"]
