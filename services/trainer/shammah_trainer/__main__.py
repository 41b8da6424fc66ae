"""Starts the trainer: `python -m shammah_trainer`."""

from __future__ import annotations

import os

# Read when torch is loaded, so it must stand before the imports below. Threads that spin at a barrier while a serving
# process has their core made training four times slower here (37 s against 10 s for the same steps).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# More threads than a few wait for each other in the small systems of equations by which heads are fitted: with one for
# each of 32 busy cores, what takes 5 s took 40.
os.environ.setdefault("OPENBLAS_NUM_THREADS", str(min(4, os.cpu_count() or 1)))

from shammah_chassis.process import run_process

from shammah_trainer.config import TrainerSettings
from shammah_trainer.server import build

if __name__ == "__main__":
    run_process(TrainerSettings, name="trainer", build=build)
