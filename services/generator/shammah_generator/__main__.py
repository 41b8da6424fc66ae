"""Starts the generator: `python -m shammah_generator`."""

from __future__ import annotations

from shammah_chassis.process import run_process

from shammah_generator.config import GeneratorSettings
from shammah_generator.server import build

if __name__ == "__main__":
    run_process(GeneratorSettings, name="generator", build=build)
