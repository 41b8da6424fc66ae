"""`shammah teach` with every process and tiny models: gateway and session are killed in the middle, nothing is doubled.

The recorded teacher teaches; the session is resumed by another process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shammah_trainer.ledger import Ledger
from support.whole import ANSWERS, Whole, start_whole, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
SCOPES = "ask,compare,generate,analyze,train"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    system = start_whole(tmp_path_factory.mktemp("teach"))
    system.shammah("learn", str(system.exam), "--exam")
    yield system
    system.shammah("down", check=False)


def begin(whole: Whole, *arguments: str) -> subprocess.Popen[str]:
    """Run `shammah teach` beside the test."""
    command = [sys.executable, "-m", "shammah_gateway.cli", "--data-dir", str(whole.folder), "teach", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_lines(whole: Whole) -> list[dict[str, Any]]:
    """The journal of the one session so far, without a line that is just being written."""
    found = sorted((whole.folder / "teach").glob("*/journal.jsonl"))
    if not found:
        return []
    *lines, _ = found[-1].read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines]


def wait_for_open_step(whole: Whole, tool: str) -> dict[str, Any]:
    """Wait until a call of a tool was sent and has no result yet; returns its line."""

    def look() -> dict[str, Any] | None:
        lines = read_lines(whole)
        last = lines[-1] if lines else {}
        return last if last.get("kind") == "intent" and last["tool"] == tool else None

    return wait_until(look, seconds=120, what=f"an open call of {tool}")


def test_without_a_grant_it_says_how_to_give_one(whole: Whole) -> None:
    done = whole.shammah("teach", check=False)
    assert done.returncode == 1
    assert f"tokens grant claude {SCOPES}" in done.stderr


def test_gateway_and_session_are_killed_in_the_middle_and_no_step_is_done_twice(whole: Whole) -> None:
    whole.shammah("tokens", "grant", "claude", SCOPES)
    names = ",".join(ANSWERS)
    first = begin(whole, "--categories", names, "--goal", "local_share=1", "--rounds", "2", "--examples", "60")
    try:
        wait_for_open_step(whole, "generate_training_data")
        dead = whole.kill("gateway")
        wait_for_open_step(whole, "train")
        whole.wait_for_return("gateway", dead=dead)
        again = whole.kill("gateway")
        first.send_signal(signal.SIGKILL)
        first.wait(timeout=60)
        whole.wait_for_return("gateway", dead=again)
    finally:
        first.kill()
        out, err = first.communicate()
    before = read_lines(whole)
    done = whole.shammah("teach", "--resume", "last", "--json", timeout=400)
    report = json.loads(done.stdout)
    lines = read_lines(whole)
    assert lines[: len(before)] == before, "the journal is only added to"

    intents = [line for line in lines if line["kind"] == "intent"]
    results = Counter(line["step"] for line in lines if line["kind"] == "result")
    assert [line["step"] for line in intents] == list(range(1, len(intents) + 1))
    assert results == Counter(range(1, len(intents) + 1)), f"{out}\n{err}\n{done.stderr}"
    assert report["state"] in ("goal", "rounds"), report["reason"]

    # Each call became one job, however often it was sent.
    jobs = [json.loads(path.read_text("utf-8")) for path in (whole.folder / "gateway/jobs").glob("*.json")]
    sent = Counter(job["request_id"] for job in jobs if job["request_id"].startswith(report["session"]))
    assert set(sent.values()) == {1}

    ledger = Ledger(whole.folder / "trainer/ledger.sqlite")
    try:
        rows = [row for row in ledger.rows("1 = 1") if row.example.part_hint != "exam"]
    finally:
        ledger.close()
    assert len({row.example.id for row in rows}) == len(rows) == report["examples"] > 0
    assert len({row.example.query_text for row in rows}) == len(rows)
    trained = sum(step["value"]["examples_trained"] for step in report["steps"] if step["tool"] == "train")
    assert trained > 0


def test_the_session_is_listed_and_its_report_is_there(whole: Whole) -> None:
    listed = whole.shammah("teach", "--list").stdout
    (folder,) = (path for path in (whole.folder / "teach").iterdir() if path.is_dir())
    assert folder.name in listed
    page = Path(folder / "report.md").read_text("utf-8")
    assert "| animal |" in page and "## Steps" in page
