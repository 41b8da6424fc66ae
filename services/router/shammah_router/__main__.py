"""Starts the router: `python -m shammah_router`."""

from __future__ import annotations

from shammah_chassis.process import run_process

from shammah_router.config import RouterSettings
from shammah_router.server import build

if __name__ == "__main__":
    run_process(RouterSettings, name="router", build=build)
