"""Starts the validator: `python -m shammah_validator`."""

from __future__ import annotations

import asyncio

from shammah_chassis.logs import configure_logging
from shammah_chassis.serving import run_service

from shammah_validator.config import ValidatorSettings
from shammah_validator.server import build

if __name__ == "__main__":
    settings = ValidatorSettings.load()
    configure_logging("validator", settings.log_level)
    asyncio.run(run_service(settings, name="validator", build=lambda: build(settings)))
