"""Fixtures of the integration tests."""

from support.door_fixtures import claude, doors, running_doors
from support.gateway_world import world
from support.http_door import site, web
from support.nats import bus, nats_server, own_nats
from support.rounds import bases, engine, fresh_settings, settings

__all__ = [
    "bases",
    "bus",
    "claude",
    "doors",
    "engine",
    "fresh_settings",
    "nats_server",
    "own_nats",
    "running_doors",
    "settings",
    "site",
    "web",
    "world",
]
