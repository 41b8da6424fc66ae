"""A gateway that can't start says why in one line, and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shammah_chassis.tokens import hash_token


def start(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start a gateway that must not come up."""
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps({"tokens": [{"name": "owner", "sha256": hash_token("t"), "scopes": ["ask"]}]}))
    given = {"DATA_DIR": str(folder), "TOKENS_FILE": str(tokens), **settings}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHAMMAH_")}
    return subprocess.run(
        [sys.executable, "-m", "shammah_gateway"],
        env={**kept, **{f"SHAMMAH_GATEWAY_{name}": value for name, value in given.items()}},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "the ledger "),
        ({"PRICES_FILE": "/no/prices.toml"}, "the prices file /no/prices.toml can't be read"),
        ({"HTTP_PORT": "99999"}, "SHAMMAH_GATEWAY_HTTP_PORT: "),
    ],
)
def test_what_is_wrong_at_the_start_is_one_line_and_no_traceback(
    tmp_path: Path, settings: dict[str, str], told: str
) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway/ledger.json").write_text("{")
    done = start(tmp_path, **settings)
    assert done.returncode == 78 and "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1 and lines[0].startswith(f"gateway: {told}")
