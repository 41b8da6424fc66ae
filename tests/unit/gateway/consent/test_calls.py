"""Calls in the audit log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from shammah_chassis.errors import BudgetError, StorageFullError
from shammah_gateway.consent.audit import AuditLog
from shammah_gateway.consent.calls import CallLog, digest_arguments, read_outcome
from shammah_gateway.consent.chain import read_tail
from shammah_gateway.consent.counts import TrafficCounts

SECRET = "my secret question"


async def test_a_call_is_noted_before_and_after_with_a_digest_and_no_text(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    calls = CallLog(log)
    async with calls.watch("tool", "compare_responses", caller="claude", arguments={"query": SECRET}) as told:
        assert [row["event"] for row in read_tail(tmp_path, 9)] == ["tool"]
        told["queued"] = 3
    await log.close()
    before, after = read_tail(tmp_path, 9)
    assert before["what"] == {"name": "compare_responses", **digest_arguments({"query": SECRET})}
    assert before["what"]["arguments_bytes"] == len('{"query":"my secret question"}')
    assert (after["event"], after["what"]["outcome"], after["what"]["queued"]) == ("tool_done", "done", 3)
    assert SECRET not in (tmp_path / "audit.jsonl").read_text()


async def test_with_the_setting_the_texts_are_kept_too(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    async with CallLog(log, texts=True).watch("tool", "x", caller="claude", arguments={"query": SECRET}):
        pass
    await log.close()
    assert read_tail(tmp_path, 9)[0]["what"]["arguments"] == {"query": SECRET}


@pytest.mark.parametrize(
    ("error", "word"),
    [(BudgetError("spent"), "budget_exhausted"), (asyncio.CancelledError(), "cancelled"), (KeyError("x"), "internal")],
)
async def test_how_a_call_failed_is_noted_and_the_error_goes_on(
    tmp_path: Path, error: BaseException, word: str
) -> None:
    log = AuditLog(tmp_path)
    with pytest.raises(type(error)):
        async with CallLog(log).watch("tool", "x", caller="claude", arguments={}):
            raise error
    await log.close()
    assert read_tail(tmp_path, 1)[0]["what"]["outcome"] == word


@pytest.mark.parametrize("waits", [True, False])
async def test_what_can_not_be_noted_does_not_happen(tmp_path: Path, waits: bool) -> None:
    (tmp_path / "log").write_text("no folder")
    log = AuditLog(tmp_path / "log")
    with pytest.raises(StorageFullError):
        await log.note("tool", caller="", what={})
    ran = False
    with pytest.raises(StorageFullError):
        async with CallLog(log).watch("tool", "x", caller="claude", arguments={}, waits=waits):
            ran = True
    assert not ran
    await log.close()


def test_of_a_result_only_what_was_changed_is_told() -> None:
    result = {
        "queued": 2,
        "rejected": [{"reason": "schema", "count": 1, "example": SECRET}],
        "local_response": SECRET,
        "job": {"id": "j1", "state": "done", "stage": SECRET},
    }
    assert read_outcome(result) == {"queued": 2, "rejected": {"schema": 1}, "job": {"id": "j1", "state": "done"}}


async def test_traffic_is_one_line_a_caller_and_begins_at_zero_again(tmp_path: Path) -> None:
    log, counts = AuditLog(tmp_path), TrafficCounts(clock=lambda: 5.0)
    for _ in range(1000):
        counts.add("bob", "answered local")
        counts.add("bob", "sent api.example.com", size=10)
    counts.add("eve", "answered teacher")
    counts.flush(log)
    counts.flush(log)
    await log.close()
    found = read_tail(tmp_path, 9)
    assert [(row["event"], row["caller"]) for row in found] == [("traffic", "bob"), ("traffic", "eve")]
    assert found[0]["what"] == {
        "since": 5.0,
        "counts": {"answered local": {"count": 1000}, "sent api.example.com": {"count": 1000, "bytes": 10_000}},
    }
