"""`learn --offline` is the trainer's program, with its options and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_gateway.cli.main import app
from typer.testing import CliRunner


def test_the_rest_of_the_line_goes_to_the_trainer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.jsonl")
    line = ["learn", "--offline", "--train", missing, "--out", str(tmp_path / "study"), "--limit-per-family", "3"]
    assert CliRunner().invoke(app, line).exit_code == 1
    assert f"there is no workload file {missing}" in capfd.readouterr().err


def test_wrong_usage_is_said_by_the_trainer(capfd: pytest.CaptureFixture[str]) -> None:
    assert CliRunner().invoke(app, ["learn", "--offline"]).exit_code == 2
    assert "--train" in capfd.readouterr().err
