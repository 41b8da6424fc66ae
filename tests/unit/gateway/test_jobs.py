from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import (
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    StorageFullError,
    UnavailableError,
)
from shammah_chassis.scopes import Caller
from shammah_gateway import jobs as jobs_module
from shammah_gateway.job_record import JobRecord
from shammah_gateway.jobs import MAX_RESUMES, JobBook, Progress, Work
from support.jobs import OWNER, begin, hang, open_again, succeed

GUEST = Caller("guest", frozenset({"ask"}))


async def fail(progress: Progress) -> dict[str, Any]:
    raise PreconditionError("not now")


async def test_a_job_ends_with_its_result(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    record = await book.wait(book.start("train", OWNER, Work(succeed)))
    assert (record.state, record.progress, record.result) == ("done", 1.0, {"answer": 42})
    assert record.created_at <= record.started_at <= record.ended_at
    book.raise_failure(record)


async def test_a_failed_job_keeps_its_named_error_over_a_restart(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    record = await book.wait(book.start("train", OWNER, Work(fail)))
    assert (record.state, record.error_code, record.error_message) == ("failed", "precondition", "not now")
    for one in (book, JobBook(tmp_path)):
        with pytest.raises(PreconditionError, match="not now"):
            one.raise_failure(one.get(record.id, "owner"))


async def test_a_foreign_error_is_an_internal_one_that_tells_nothing(tmp_path: Path) -> None:
    async def break_down(progress: Progress) -> dict[str, Any]:
        raise KeyError("secret")

    book = JobBook(tmp_path)
    record = await book.wait(book.start("train", OWNER, Work(break_down)))
    assert (record.state, record.error_code, record.error_message) == ("failed", "internal", "internal error")


async def test_a_job_belongs_to_its_caller(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    record = await begin(book)
    assert book.get(record.id, "owner") is record
    with pytest.raises(NotFoundError):
        book.get(record.id, "guest")
    with pytest.raises(NotFoundError):
        await book.cancel(record.id, "guest")
    with pytest.raises(NotFoundError):
        book.get("unknown", "owner")
    assert record.state == "running"
    await book.close()


async def test_a_waiting_caller_hears_of_each_change(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def work(progress: Progress) -> dict[str, Any]:
        progress.report(0.2, "first")
        await go.wait()
        progress.report(0.6, "second")
        return {}

    heard: list[tuple[float, str]] = []

    async def listen(share: float, stage: str) -> None:
        heard.append((share, stage))
        if stage == "first":
            go.set()

    book = JobBook(tmp_path)
    await book.wait(book.start("train", OWNER, Work(work)), on_progress=listen)
    assert heard[0] == (0.2, "first") and heard[-1] == (1.0, "done")


async def test_who_does_not_wait_goes_when_the_work_is_under_way(tmp_path: Path) -> None:
    async def work(progress: Progress) -> dict[str, Any]:
        progress.accept()
        await asyncio.Event().wait()
        return {}

    book = JobBook(tmp_path)
    record = await book.wait(book.start("train", OWNER, Work(work)), accepted=True)
    assert record.accepted and record.state == "running"
    await book.close()


async def test_a_killed_job_goes_on_from_what_it_saved(tmp_path: Path) -> None:
    made: list[str] = []

    async def work(progress: Progress) -> dict[str, Any]:
        state = progress.state
        for step in ("a", "b"):
            if step not in state:
                made.append(step)
                state[step] = f"paid {step}"
                progress.save(state)
                if step == "a" and made == ["a"]:
                    await asyncio.Event().wait()
        return state

    killed = JobBook(tmp_path)
    record = await begin(killed, work, arguments={"count": 2}, request_id="r1")
    assert made == ["a"]
    seen: list[JobRecord] = []
    book = JobBook(tmp_path)

    def make(found: JobRecord) -> Work:
        seen.append(found)
        assert (found.arguments, found.caller) == ({"count": 2}, OWNER)
        return Work(work)

    book.resume(make)
    done = await book.wait(book.get(record.id, "owner"))
    assert [one.id for one in seen] == [record.id]
    assert (done.state, done.result, done.resumes) == ("done", {"a": "paid a", "b": "paid b"}, 1)
    assert made == ["a", "b"]
    # What only running work needs is not kept.
    assert (done.arguments, done.saved) == ({}, {})
    await killed.close()


async def test_the_same_request_is_the_same_job_also_after_a_kill(tmp_path: Path) -> None:
    killed = JobBook(tmp_path)
    first = await begin(killed, request_id="r1", arguments={"count": 10})
    assert killed.start("train", OWNER, Work(fail), request_id="r1", arguments={"count": 10}) is first
    book = open_again(tmp_path, succeed)
    found = book.start("train", OWNER, Work(fail), request_id="r1", arguments={"count": 10})
    assert (found.id, (await book.wait(found)).state) == (first.id, "done")
    third = JobBook(tmp_path)
    assert third.start("train", OWNER, Work(fail), request_id="r1", arguments={"count": 10}).result == {"answer": 42}
    with pytest.raises(InvalidInputError, match=first.id):
        third.start("train", OWNER, Work(fail), request_id="r1", arguments={"count": 11})
    # Another caller, another tool or another key is another job.
    others = [
        third.start("train", GUEST, Work(succeed), request_id="r1", arguments={"count": 10}),
        third.start("analyze_model", OWNER, Work(succeed), request_id="r1", arguments={"count": 10}),
        third.start("train", OWNER, Work(succeed), request_id="r2", arguments={"count": 10}),
    ]
    assert len({first.id, *(one.id for one in others)}) == 4
    await killed.close()
    await third.close()


async def test_without_a_request_id_each_call_is_its_own_job(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    assert book.start("train", OWNER, Work(succeed)).id != book.start("train", OWNER, Work(succeed)).id
    assert book.find("owner", "train", "") is None
    await book.close()


async def test_a_stop_in_order_lets_the_job_go_on_and_is_not_held_against_it(tmp_path: Path) -> None:
    for _ in range(MAX_RESUMES + 2):
        book = open_again(tmp_path)
        if not book.running():
            await begin(book)
        await asyncio.sleep(0)
        (record,) = book.running()
        await book.close()
        assert (record.state, record.resumes) == ("queued", 0)
        with pytest.raises(UnavailableError):
            book.start("train", OWNER, Work(succeed))


async def test_a_job_that_never_survives_a_start_fails_with_words(tmp_path: Path) -> None:
    books = [JobBook(tmp_path)]
    record = await begin(books[0])
    for count in range(1, MAX_RESUMES + 1):
        books.append(open_again(tmp_path))
        await asyncio.sleep(0)
        assert books[-1].get(record.id, "owner").resumes == count
    last = open_again(tmp_path)
    ended = last.get(record.id, "owner")
    assert (ended.state, ended.error_code) == ("failed", "unavailable")
    assert "5 times" in ended.error_message
    for book in books:
        await book.close()


async def test_a_job_whose_work_nobody_knows_any_more_fails_with_words(tmp_path: Path) -> None:
    killed = JobBook(tmp_path)
    record = await begin(killed)
    book = JobBook(tmp_path)

    def refuse(found: JobRecord) -> Work:
        raise NotFoundError(f"there is no tool {found.kind!r}")

    book.resume(refuse)
    ended = book.get(record.id, "owner")
    assert ended.state == "failed" and "there is no tool 'train'" in ended.error_message
    await killed.close()


async def test_too_many_jobs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MAX_PER_CALLER", 2)
    monkeypatch.setattr(jobs_module, "MAX_RUNNING", 3)
    book = JobBook(tmp_path)
    await begin(book)
    await begin(book)
    with pytest.raises(OverloadedError, match="at most 2 may; the oldest is 01"):
        book.start("train", OWNER, Work(succeed))
    book.start("train", GUEST, Work(hang))
    with pytest.raises(OverloadedError, match="3 jobs run already"):
        book.start("train", GUEST, Work(succeed))
    await book.close()


async def test_an_exclusive_job_names_the_one_that_runs(tmp_path: Path) -> None:
    book = JobBook(tmp_path)
    first = await begin(book, exclusive=True)
    for caller, whose in ((OWNER, "of yours"), (GUEST, "of 'owner'")):
        with pytest.raises(PreconditionError, match=f"job {first.id} {whose}"):
            book.start("train", caller, Work(succeed), exclusive=True)
    other = book.start("analyze_model", OWNER, Work(succeed), exclusive=True)
    assert (await book.wait(other)).state == "done"
    await book.cancel(first.id, "owner")
    assert (await book.wait(book.start("train", GUEST, Work(succeed), exclusive=True))).state == "done"


async def test_only_the_newest_finished_jobs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MAX_KEPT", 2)
    book = JobBook(tmp_path)
    records = [
        await book.wait(book.start("train", OWNER, Work(succeed), request_id=f"r{number}")) for number in range(3)
    ]
    oldest = min(records, key=lambda record: record.id)
    with pytest.raises(NotFoundError):
        book.get(oldest.id, "owner")
    assert book.find("owner", "train", oldest.request_id) is None
    assert len(JobBook(tmp_path)._records) == 2


async def test_a_promise_that_cant_be_written_down_starts_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    book = JobBook(folder)
    full = StorageFullError("no space")

    def refuse(*_: Any, **__: Any) -> None:
        raise full

    book._store.write = refuse  # type: ignore[method-assign]
    with pytest.raises(StorageFullError):
        book.start("train", OWNER, Work(succeed), request_id="r1")
    assert book.running() == []
    # Without a promise the work goes on; only its memory is short.
    assert (await book.wait(book.start("train", OWNER, Work(succeed)))).state == "done"
    assert JobBook(folder)._records == {}
