"""The lines of README.md that put Shammah in front of something: each block is run as it is written.

Only the port is another one, and the data folder is named by its variable.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.doors import Doors

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
WRITTEN_URL = "http://127.0.0.1:8080"
BLOCK = re.compile(r"<!-- run: (?P<name>[\w-]+) -->\n```(?P<language>\w+)\n(?P<code>.*?)```\n", re.DOTALL)
EXPECTED = {
    "anthropic": "local: Intent of this command: turn on the hall lights",
    "openai": "local: Intent of this command: turn on the hall lights",
    "client": "local: Intent of this command: turn on the hall lights local quality",
    "client-async": "promise not monitored",
    "curl": "local: Where is Rome?",
}


def read_blocks() -> dict[str, tuple[str, str]]:
    """Return language and code of each block by its name."""
    found = {one["name"]: (one["language"], one["code"]) for one in BLOCK.finditer(README.read_text("utf-8"))}
    assert found, f"{README} has no block that is marked to be run"
    return found


def run_block(doors: Doors, name: str) -> str:
    """Run the environment lines, then a block, in a fresh shell; returns what it printed."""
    blocks = read_blocks()
    _, environment = blocks["environment"]
    language, code = blocks[name]
    script = environment + (code if language == "sh" else f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}\n")
    assert WRITTEN_URL in script
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("SHAMMAH_", "ANTHROPIC_", "OPENAI_"))
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(WRITTEN_URL, doors.url)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**kept, "SHAMMAH_DATA_DIR": str(doors.folder)},
    )
    assert done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_marked_block_is_run_here() -> None:
    assert set(read_blocks()) == {*EXPECTED, "environment"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_block_of_the_readme_works_as_it_is_written(doors: Doors, name: str) -> None:
    assert EXPECTED[name] in run_block(doors, name)


def test_the_reply_of_the_curl_line_says_who_made_it(doors: Doors) -> None:
    told = run_block(doors, "curl").lower()
    for header in ("route: local", "reason: quality", "category: capitals", "confidence: 0.", "release: "):
        assert f"x-shammah-{header}" in told


def test_the_correction_of_the_client_block_is_learned(doors: Doors) -> None:
    run_block(doors, "client")
    example = doors.wait_for_example("Intent of this command: turn on the hall lights")
    assert (example.response, example.provenance.origin) == ("lights_on", "user_correction")
