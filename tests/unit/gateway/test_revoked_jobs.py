"""A job goes on only while its owner may have it run: by the table of tokens of now, not by that of its start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from shammah_chassis.scopes import Caller
from shammah_chassis.token_book import TokenBook, write_tokens
from shammah_chassis.tokens import TokenTable
from shammah_gateway.job_record import JobRecord
from shammah_gateway.jobs import JobBook, Progress, Work
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.registry import resume_jobs, revoke_jobs

ANN = Caller("ann", frozenset({"ask", "generate"}))


class Site:
    """Kept jobs beside a table of tokens; nobody is asked, since no work gets so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_tokens(folder / "tokens.json", {"owner": ["admin"], "ann": sorted(ANN.scopes)})
        self.tokens = TokenBook(folder / "tokens.json")

    def open(self) -> ToolContext:
        nothing = cast("Any", None)
        never = SimpleNamespace(changed=SimpleNamespace(wait_until=self._hang))
        consent = SimpleNamespace(tokens=TokenTable.load(self.folder / "tokens.json"))
        return ToolContext(
            cascade=nothing,
            roles=nothing,
            releases=cast("Any", never),
            trainer=nothing,
            teacher=None,
            sink=nothing,
            jobs=JobBook(self.folder / "jobs"),
            monitor=nothing,
            consent=cast("Any", consent),
        )

    async def _hang(self, *_: object) -> None:
        await asyncio.Event().wait()


async def hang(progress: Progress) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway that was stopped while a job of ann's made examples."""
    site = Site(tmp_path)
    book = JobBook(tmp_path / "jobs")
    book.start("generate_training_data", ANN, Work(hang), arguments={"category": "codes", "count": 10})
    await asyncio.sleep(0)
    await book.close()
    yield site


async def resume(context: ToolContext) -> JobRecord:
    (record,) = resume_jobs(context)
    await asyncio.sleep(0)
    return record


async def test_who_may_still_has_its_job_go_on(kept: Site) -> None:
    context = kept.open()
    record = await resume(context)
    revoke_jobs(context)
    assert record.state == "running" and not record.cancelling
    await context.jobs.close()


async def test_after_a_restart_the_job_of_a_removed_token_fails(kept: Site) -> None:
    kept.tokens.remove("ann")
    context = kept.open()
    ended = await context.jobs.wait(await resume(context))
    assert (ended.state, ended.error_code) == ("failed", "forbidden")
    assert "the token of 'ann' was removed" in ended.error_message


async def test_after_a_restart_a_job_without_its_scope_fails_and_says_the_command(kept: Site) -> None:
    kept.tokens.revoke("ann", ["generate"])
    context = kept.open()
    ended = await context.jobs.wait(await resume(context))
    assert (ended.state, ended.error_code) == ("failed", "forbidden")
    assert ended.error_message.endswith("grant it: shammah tokens grant ann generate")


async def test_a_running_job_is_stopped_when_its_scope_is_taken(kept: Site) -> None:
    context = kept.open()
    record = await resume(context)
    kept.tokens.revoke("ann", ["generate"])
    cast("Any", context.consent).tokens = TokenTable.load(kept.folder / "tokens.json")
    revoke_jobs(context)
    ended = await context.jobs.wait(record)
    assert (ended.state, ended.error_code) == ("failed", "forbidden")
