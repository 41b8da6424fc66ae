"""The start of the trainer's process: what it sets for the libraries that read the environment when they are loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS")
# Ends at the first import of a library that reads them, and says what it would read.
WATCH = f"""
import os, runpy, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch"):
            print(*(os.environ.get(name) for name in {NAMES!r}), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
runpy.run_module("shammah_trainer", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, ["PASSIVE", str(min(4, os.cpu_count() or 1))]),
        ({"OMP_WAIT_POLICY": "ACTIVE", "OPENBLAS_NUM_THREADS": "7"}, ["ACTIVE", "7"]),
    ],
)
def test_threads_wait_patiently_before_any_library_reads_how_unless_the_user_says_otherwise(
    given: dict[str, str], read: list[str]
) -> None:
    plain = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", WATCH], env=plain | given, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == read, done.stderr
