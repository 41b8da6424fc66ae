"""Starts the validator: `python -m shammah_validator`."""

from __future__ import annotations

from shammah_chassis.process import run_process

from shammah_validator.config import ValidatorSettings
from shammah_validator.server import build

if __name__ == "__main__":
    run_process(ValidatorSettings, name="validator", build=build)
