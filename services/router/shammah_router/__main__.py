"""Starts the router: `python -m shammah_router`."""

from __future__ import annotations

import asyncio

from shammah_chassis.logs import configure_logging
from shammah_chassis.serving import run_service

from shammah_router.config import RouterSettings
from shammah_router.server import build

if __name__ == "__main__":
    settings = RouterSettings.load()
    configure_logging("router", settings.log_level)
    asyncio.run(run_service(settings, name="router", build=lambda: build(settings)))
