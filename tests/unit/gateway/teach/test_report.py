"""The report of a session, and the list of sessions."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from shammah_gateway.cli.teach import print_sessions
from shammah_gateway.teach.journal import FILE_NAME, create_journal
from shammah_gateway.teach.report import describe_report, make_report
from shammah_gateway.teach.settings import TeachSettings, parse_goal

ROW = {"category": "colour", "tested": 50, "accuracy": 0.8, "local_good": 20, "local_bad": 0, "certified": False}
ANALYSIS = {
    "local_success": 0.8,
    "tested": 50,
    "categories": [{**ROW, "rows_missing": 7, "expected_gain": 0.1, "recommended_examples": 25}],
}
TRAINED = {"verdict": "promoted", "exam": [], "reasons": [], "examples_trained": 9, "duration_seconds": 1.0}


def report(goal: str, *tools: str) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [{"kind": "session", "settings": TeachSettings(goal=parse_goal(goal)).to_json()}]
    for step, tool in enumerate(tools, 1):
        value = ANALYSIS if tool == "analyze_model" else TRAINED
        entries.append({"kind": "intent", "step": step, "tool": tool, "arguments": {}})
        entries.append({"kind": "result", "step": step, "value": value, "seconds": 1.0})
    return make_report("S", entries, cost=Decimal(0))


def test_what_was_only_looked_at_after_a_round_is_not_told_as_before() -> None:
    told = report("accuracy=0.9", "train", "analyze_model")
    assert (told["before"], told["after"]) == (None, 0.8)
    page = describe_report(told)
    assert "- before, 80 % after" in page and "| colour | 0 | - -> 80 % |" in page
    assert report("local_share=0.9", "train", "analyze_model")["before"] == 0.0


def test_the_first_look_is_before() -> None:
    told = report("accuracy=0.9", "analyze_model", "train", "analyze_model")
    assert told["before"] == 0.8 and "| colour | 0 | 80 % -> 80 % |" in describe_report(told)


def test_a_session_that_cannot_be_read_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = []
    for _ in range(2):
        journal = create_journal(tmp_path)
        journal.append("session", {"settings": TeachSettings().to_json()})
        journal.close()
        names.append(journal.session)
    (tmp_path / names[0] / FILE_NAME).write_text("nonsense\n")
    print_sessions(tmp_path)
    told = capsys.readouterr()
    assert names[1] in told.out and names[0] not in told.out and names[0] in told.err
