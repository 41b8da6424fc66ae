"""Starts the trainer: `python -m shammah_trainer`."""

from __future__ import annotations

import asyncio

from shammah_chassis.logs import configure_logging
from shammah_chassis.serving import run_service

from shammah_trainer.config import TrainerSettings
from shammah_trainer.server import build

if __name__ == "__main__":
    settings = TrainerSettings.load()
    configure_logging("trainer", settings.log_level)
    asyncio.run(run_service(settings, name="trainer", build=lambda: build(settings)))
