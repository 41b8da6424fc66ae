"""A job that is cancelled or revoked ends, here and elsewhere, also where a kill or a stop comes amid it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import ForbiddenError, UnavailableError
from shammah_gateway.job_record import JobRecord
from shammah_gateway.jobs import JobBook, Progress, Work
from support.jobs import OWNER, begin, hang, open_again, succeed


async def test_cancelling_stops_the_work_and_says_so(tmp_path: Path) -> None:
    ended: list[str] = []

    async def work(progress: Progress) -> dict[str, Any]:
        progress.save({"round": "T1"})
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")
        return {}

    async def stop(record: JobRecord) -> str:
        ended.append(record.saved["round"])
        return "the round was stopped"

    book = JobBook(tmp_path)
    record = book.start("train", OWNER, Work(work, stop))
    await asyncio.sleep(0)
    done = await book.cancel(record.id, "owner")
    assert (done.state, done.error_code, done.error_message) == ("cancelled", "cancelled", "the round was stopped")
    assert ended == ["work", "T1"]
    assert JobBook(tmp_path).get(record.id, "owner").state == "cancelled"
    # Once more changes nothing, and a job that is done stays done.
    assert (await book.cancel(record.id, "owner")).state == "cancelled"
    other = await book.wait(book.start("train", OWNER, Work(succeed)))
    assert (await book.cancel(other.id, "owner")).state == "done"


async def test_a_job_is_cancelled_before_its_first_step_too(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    record = book.start("train", OWNER, Work(hang))
    assert (await book.cancel(record.id, "owner")).state == "cancelled"


async def test_a_stop_that_fails_elsewhere_is_told(tmp_path: Path) -> None:
    async def stop(record: JobRecord) -> str:
        raise UnavailableError("the trainer is away")

    book = JobBook(tmp_path)
    record = book.start("train", OWNER, Work(hang, stop))
    await asyncio.sleep(0)
    assert "the trainer is away" in (await book.cancel(record.id, "owner")).error_message


async def test_a_kill_amid_a_cancellation_does_not_undo_it(tmp_path: Path) -> None:
    stopped: list[str] = []

    async def never(record: JobRecord) -> str:
        await asyncio.Event().wait()
        return ""

    async def stop(record: JobRecord) -> str:
        stopped.append(record.saved["round"])
        return ""

    async def work(progress: Progress) -> dict[str, Any]:
        progress.save({"round": "T1"})
        await asyncio.Event().wait()
        return {}

    killed = JobBook(tmp_path)
    record = killed.start("train", OWNER, Work(work, never))
    await asyncio.sleep(0)
    cancelling = asyncio.create_task(killed.cancel(record.id, "owner"))
    while not record.cancelling:
        await asyncio.sleep(0)
    book = JobBook(tmp_path)
    book.resume(lambda found: Work(work, stop))
    assert (await book.wait(book.get(record.id, "owner"))).state == "cancelled"
    assert stopped == ["T1"]
    await killed.close()
    await cancelling


async def test_a_revoked_job_is_stopped_everywhere_and_fails_by_that_name(tmp_path: Path) -> None:
    stopped: list[str] = []

    async def stop(record: JobRecord) -> str:
        stopped.append(record.id)
        return "the round was stopped"

    book = JobBook(tmp_path)
    record = book.start("train", OWNER, Work(hang, stop))
    await asyncio.sleep(0)
    book.revoke(record, ForbiddenError("the grant is gone"))
    book.revoke(record, ForbiddenError("once more"))
    ended = await book.wait(record)
    assert (ended.state, ended.error_code, ended.error_message) == ("failed", "forbidden", "the grant is gone")
    assert stopped == [record.id]
    with pytest.raises(ForbiddenError):
        JobBook(tmp_path).raise_failure(record)


async def test_a_gateway_that_stops_leaves_a_revocation_to_the_next_start(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    record = await begin(book)
    await book.close()
    book.revoke(record, ForbiddenError("the grant is gone"))
    assert (record.state, record.cancelling) == ("queued", False)


async def test_a_kill_amid_a_revocation_does_not_undo_it(tmp_path: Path) -> None:
    async def never(record: JobRecord) -> str:
        await asyncio.Event().wait()
        return ""

    killed = JobBook(tmp_path)
    record = killed.start("train", OWNER, Work(hang, never))
    await asyncio.sleep(0)
    killed.revoke(record, ForbiddenError("the grant is gone"))
    book = open_again(tmp_path)
    ended = await book.wait(book.get(record.id, "owner"))
    assert (ended.state, ended.error_code, ended.error_message) == ("failed", "forbidden", "the grant is gone")
    await killed.close()


async def test_what_ends_before_its_revocation_is_done(tmp_path: Path) -> None:
    async def end_all_the_same(progress: Progress) -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return {"answer": 42}
        return {}

    book = JobBook(tmp_path)
    record = await begin(book, end_all_the_same)
    book.revoke(record, ForbiddenError("the grant is gone"))
    ended = await book.wait(record)
    assert (ended.state, ended.error_code, ended.error_message) == ("done", "", "")
