"""Starts the generator: `python -m shammah_generator`."""

from __future__ import annotations

import asyncio

from shammah_chassis.logs import configure_logging
from shammah_chassis.serving import run_service

from shammah_generator.config import GeneratorSettings
from shammah_generator.server import build

if __name__ == "__main__":
    settings = GeneratorSettings.load()
    configure_logging("generator", settings.log_level)
    asyncio.run(run_service(settings, name="generator", build=lambda: build(settings)))
