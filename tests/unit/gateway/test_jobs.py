from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import NotFoundError, OverloadedError, PreconditionError
from shammah_gateway import jobs as jobs_module
from shammah_gateway.jobs import JobBook, Progress


async def succeed(progress: Progress) -> dict[str, Any]:
    progress.report(0.5, "half")
    return {"answer": 42}


async def fail(progress: Progress) -> dict[str, Any]:
    raise PreconditionError("not now")


async def test_a_job_ends_with_its_result(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    record = await book.wait(book.start("train", "owner", succeed))
    assert (record.state, record.progress, record.result) == ("done", 1.0, {"answer": 42})
    assert record.created_at <= record.started_at <= record.ended_at


async def test_a_failed_job_keeps_its_named_error(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    record = await book.wait(book.start("train", "owner", fail))
    assert (record.state, record.error_code, record.error_message) == ("failed", "precondition", "not now")
    with pytest.raises(PreconditionError):
        book.raise_failure(record)


async def test_a_job_belongs_to_its_caller(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    record = book.start("train", "owner", succeed)
    assert book.get(record.id, "owner") is record
    with pytest.raises(NotFoundError):
        book.get(record.id, "guest")
    with pytest.raises(NotFoundError):
        book.get("unknown", "owner")
    await book.close()


async def test_a_finished_job_survives_a_restart_and_a_running_one_is_failed(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    done = await book.wait(book.start("train", "owner", succeed))

    async def hang(progress: Progress) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    running = book.start("analyze_model", "owner", hang)
    await asyncio.sleep(0)
    # As after a kill: the first book never closes.
    again = JobBook(tmp_path)
    assert again.get(done.id, "owner").result == {"answer": 42}
    assert (again.get(running.id, "owner").state, again.get(running.id, "owner").error_code) == (
        "failed",
        "unavailable",
    )
    await book.close()


async def test_a_stop_cancels_what_runs(tmp_path: Path) -> None:
    book = JobBook(tmp_path)

    async def hang(progress: Progress) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    record = book.start("train", "owner", hang)
    await asyncio.sleep(0)
    await book.close()
    assert record.state == "cancelled"
    assert JobBook(tmp_path).get(record.id, "owner").state == "cancelled"


async def test_too_many_jobs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MAX_RUNNING", 1)
    book = JobBook(tmp_path)
    book.start("train", "owner", succeed)
    with pytest.raises(OverloadedError):
        book.start("train", "owner", succeed)
    await book.close()


async def test_only_the_newest_finished_jobs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MAX_KEPT", 2)
    book = JobBook(tmp_path)
    records = [await book.wait(book.start("train", "owner", succeed)) for _ in range(3)]
    with pytest.raises(NotFoundError):
        book.get(min(record.id for record in records), "owner")
    assert len(os.listdir(tmp_path)) == 2


def test_a_file_that_is_no_job_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(NotFoundError):
        JobBook(tmp_path).get("x", "owner")
