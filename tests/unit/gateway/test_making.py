"""Tool `generate_training_data` over the real SDK and the strict stub: saved steps, checks, budgets, restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from shammah.v1 import trainer_pb2
from shammah_chassis.errors import TeacherError, UnavailableError
from shammah_chassis.examples import Example
from shammah_chassis.scopes import Caller
from shammah_gateway.agreement import AgreementPolicy
from shammah_gateway.jobs import JobBook, Work
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.teachers.anthropic import AnthropicTeacher
from shammah_gateway.teachers.base import Teacher, TeacherPort
from shammah_gateway.teachers.batch_desk import BatchPolicy
from shammah_gateway.teachers.recorded import RecordedTeacher
from shammah_gateway.tools.context import ToolContext
from shammah_gateway.tools.registry import call_tool, resume_jobs
from shammah_gateway.tools.schemas import GenerateResult
from shammah_gateway.trainer_client import Verdict
from support.example_values import make_example
from support.gateway import Sink, make_ledger
from support.guards import Clock, make_guard
from support.writing_stub import WritingStub, serve_writing, write_item

ANN = Caller("ann", frozenset({"generate"}))
TOOL = "generate_training_data"


@dataclass
class Trainer:
    """Judges like the real one: `near_exam` queries, and what it has; `gate` holds a check back."""

    near_exam: set[str] = field(default_factory=set)
    dev: list[Example] = field(default_factory=list)
    gate: asyncio.Event | None = None
    away: int = 0
    checked: int = 0
    target: str = "trainer"
    rows: int = 40

    async def check(self, examples: Sequence[Example]) -> list[Verdict]:
        self.checked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            self.away -= 1
            raise UnavailableError("the trainer is away")
        return ["near_exam" if row.query_text in self.near_exam else "new" for row in examples]

    async def status(self) -> trainer_pb2.StatusResponse:
        rows = trainer_pb2.CategoryRows(category="codes", train=self.rows)
        return trainer_pb2.StatusResponse(queue_size=7, categories=[rows])

    async def sample(self, count: int, categories: Sequence[str], seed: int) -> list[Example]:
        return self.dev[:count]


class Site:
    """The tool's parts; made again with the same folder it is a gateway that was started again."""

    def __init__(
        self,
        folder: Path,
        stub: WritingStub,
        *,
        ledger: Ledger | None = None,
        port: TeacherPort | None = None,
        agreement: AgreementPolicy | None = None,
        **policy: Any,
    ) -> None:
        self.trainer, self.sink = Trainer(), Sink()
        self.claude = AnthropicTeacher(
            model="claude-sonnet-5-5",
            key="right-key",
            base_url=stub.url,
            guard=make_guard(Clock()),
            batches=BatchPolicy(first_pause_seconds=0.01, max_pause_seconds=0.02, **policy),
        )
        self.ledger = ledger or make_ledger()
        self.teacher = Teacher(port or self.claude, self.ledger)
        self.jobs = JobBook(folder / "jobs")
        releases = SimpleNamespace(changed=SimpleNamespace(wait_until=self._no_wait), champion=lambda: None)
        nothing = cast("Any", None)
        self.context = ToolContext(
            cascade=nothing,
            roles=nothing,
            releases=cast("Any", releases),
            trainer=cast("Any", self.trainer),
            teacher=self.teacher,
            sink=self.sink,
            jobs=self.jobs,
            monitor=nothing,
            agreement=agreement or AgreementPolicy(),
        )

    async def _no_wait(self, ready: Any, seconds: float) -> None:
        return

    async def call(self, **arguments: Any) -> GenerateResult:
        return cast("GenerateResult", await call_tool(self.context, ANN, TOOL, {"category": "codes", **arguments}))

    async def close(self) -> None:
        await self.jobs.close()
        await self.claude.close()

    @property
    def queries(self) -> list[str]:
        return [example.query_text for example in self.sink.examples]


@pytest.fixture
async def stub() -> AsyncIterator[WritingStub]:
    async with serve_writing() as served:
        yield served


@pytest.fixture
async def site(tmp_path: Path, stub: WritingStub) -> AsyncIterator[Site]:
    made = Site(tmp_path, stub)
    yield made
    await made.close()


def rejected(result: GenerateResult) -> dict[str, int]:
    return {row.reason: row.count for row in result.rejected}


async def test_examples_that_a_second_answer_agrees_with_are_queued(site: Site, stub: WritingStub) -> None:
    result = await site.call(count=10)
    assert (result.queued, result.missing, result.note, rejected(result)) == (10, 0, "", {})
    assert len(stub.wishes) == 1 and len(stub.questions) == 2
    # Nothing of a first answer is in the question about it.
    for prompt in stub.questions:
        asked = {row["query"] for row in json.loads(prompt.rpartition("Queries: ")[2])}
        shown = json.loads(prompt.rpartition("Samples: ")[2].splitlines()[0])
        assert not asked & {row["query"] for row in shown}


async def test_a_doubted_example_is_rejected_and_another_is_made(site: Site, stub: WritingStub) -> None:
    stub.doubted = {3}
    result = await site.call(count=10)
    assert result.queued == 10 and rejected(result) == {"disagreement": 1}
    assert "otherwise" in result.rejected[0].example
    assert write_item(3)["query"] not in site.queries and write_item(10)["query"] in site.queries
    # What is there already is told.
    assert "what is the code of item 4" in stub.wishes[1]


async def test_free_text_is_compared_by_the_judge(site: Site, stub: WritingStub) -> None:
    stub.grader, stub.doubted = "judge", {1}
    result = await site.call(count=10)
    assert rejected(result) == {"disagreement": 1} and len(stub.cases) == 1
    assert "something else: as it is" in result.rejected[0].example


async def test_the_share_and_the_most_of_second_answers_are_settings(tmp_path: Path, stub: WritingStub) -> None:
    stub.doubted = set(range(100))
    off = Site(tmp_path / "off", stub, agreement=AgreementPolicy(share=0))
    assert (await off.call(count=10)).queued == 10 and stub.questions == []
    few = Site(tmp_path / "few", stub, agreement=AgreementPolicy(most=4))
    result = await few.call(count=10)
    assert rejected(result) == {"disagreement": 4}
    asked = [row for prompt in stub.questions for row in json.loads(prompt.rpartition("Queries: ")[2])]
    assert len(asked) == 4
    await off.close()
    await few.close()


async def test_arithmetic_is_computed_and_not_asked_again(site: Site, stub: WritingStub) -> None:
    rows = [{"query": f"What is {n} + 1?", "response": str(n + 1 + (n == 5)), "grader": "numeric"} for n in range(10)]
    more = [{"query": f"What is {n} * 2?", "response": str(n * 2), "grader": "numeric"} for n in range(10)]
    stub.raw = [json.dumps({"examples": rows}), json.dumps({"examples": more})]
    result = await site.call(count=10)
    assert result.queued == 10 and rejected(result) == {"failed_check": 1} and stub.questions == []
    assert "it is 6, not 7" in result.rejected[0].example


async def test_every_reason_is_told_with_a_sample(site: Site, stub: WritingStub) -> None:
    site.trainer.near_exam = {write_item(0)["query"]}
    rows = [write_item(0), write_item(1), write_item(1), {"query": "no response"}, {**write_item(2), "grader": "json"}]
    stub.raw = [json.dumps({"examples": rows})]
    stub.written = 20
    result = await site.call(count=10)
    assert rejected(result) == {"near_exam": 1, "duplicate": 1, "schema": 1, "failed_check": 1}
    assert result.queued == 10 and all(row.example for row in result.rejected)


async def test_wholly_broken_output_is_a_named_error_and_queues_nothing(site: Site, stub: WritingStub) -> None:
    stub.raw = ["no JSON at all"]
    with pytest.raises(TeacherError, match="not in the form"):
        await site.call(count=10)
    assert site.sink.examples == []


async def test_a_teacher_that_breaks_later_costs_only_the_rest(site: Site, stub: WritingStub) -> None:
    stub.raw = [json.dumps({"examples": stub.write(20)}), "no JSON at all"]
    result = await site.call(count=40)
    assert result.queued == 20 and result.missing == 20
    assert result.note.startswith("20 examples are missing: ") and "not in the form" in result.note


async def test_a_teacher_that_repeats_itself_is_not_asked_for_ever(site: Site, stub: WritingStub) -> None:
    same = json.dumps({"examples": stub.write(20)})
    stub.raw = [same, same, same]
    result = await site.call(count=40)
    assert result.queued == 20 and result.missing == 20 and rejected(result) == {"duplicate": 20}
    assert len(stub.wishes) == 2


async def test_a_budget_that_ends_half_way_queues_what_was_paid_for_and_says_so(
    tmp_path: Path, stub: WritingStub
) -> None:
    site = Site(tmp_path, stub, ledger=make_ledger(calls_total=2), agreement=AgreementPolicy(share=0), mode="never")
    result = await site.call(count=60, difficulty="hard")
    assert (result.queued, result.missing) == (40, 20)
    assert "budget" in result.note and len(site.sink.examples) == 40
    await site.close()


async def test_a_budget_that_ends_in_a_batch_queues_what_was_bought(tmp_path: Path, stub: WritingStub) -> None:
    site = Site(tmp_path, stub, ledger=make_ledger(usd_total=Decimal("0.1")), agreement=AgreementPolicy(share=0))
    result = await site.call(count=60)
    assert 20 <= result.queued < 60 and result.missing == 60 - result.queued and "usd_total" in result.note
    await site.close()


async def test_a_budget_that_ends_in_the_checks_says_how_many_are_unchecked(tmp_path: Path, stub: WritingStub) -> None:
    site = Site(tmp_path, stub, ledger=make_ledger(calls_total=1))
    result = await site.call(count=10)
    assert result.queued == 10 and result.missing == 0
    assert result.note.startswith("10 examples are queued without a second answer: ") and "budget" in result.note
    await site.close()


async def test_a_trainer_that_is_away_for_a_moment_loses_nothing(
    site: Site, stub: WritingStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shammah_gateway.tools.making.LOOK_SECONDS", 0.01)
    site.trainer.away = 2
    assert (await site.call(count=10)).queued == 10 and len(stub.wishes) == 1


async def test_own_examples_go_through_the_same_door_without_a_call(site: Site, stub: WritingStub) -> None:
    rows = [{"query": "6*7", "response": "43"}, {"query": "6*7", "response": "42"}, {"query": "", "response": "x"}]
    result = await site.call(examples=[*rows, {"query": "near?", "response": "yes"}])
    assert result.queued == 2 and rejected(result) == {"failed_check": 1, "schema": 1}
    assert stub.requests == []


async def test_own_examples_are_doubted_only_where_the_setting_says_so(tmp_path: Path, stub: WritingStub) -> None:
    site = Site(tmp_path, stub, agreement=AgreementPolicy(callers=True))
    rows = [write_item(1), {**write_item(2), "response": "mine"}]
    result = await site.call(examples=rows)
    assert result.queued == 1 and rejected(result) == {"disagreement": 1}
    await site.close()


async def test_recorded_rows_are_not_doubted(tmp_path: Path, stub: WritingStub) -> None:
    rows = [
        make_example(f"What is the code of item {n}?", f"c{n}", category="codes", grader="label") for n in range(12)
    ]
    site = Site(tmp_path, stub, port=RecordedTeacher(rows, rows))
    result = await site.call(count=10)
    assert result.queued == 10 and stub.calls == []
    rest = await site.call(count=10)
    assert rest.queued == 2 and rest.missing == 8
    await site.close()


async def stop(site: Site, call: asyncio.Task[Any]) -> None:
    """What a kill leaves: the work is gone, the files are there."""
    await site.close()
    await asyncio.gather(call, return_exceptions=True)


async def wait_for(ready: Any) -> None:
    async with asyncio.timeout(20):
        while not ready():
            await asyncio.sleep(0.01)


async def resume(folder: Path, stub: WritingStub) -> tuple[Site, GenerateResult]:
    """Start again and wait for the one job."""
    site = Site(folder, stub)
    (job,) = resume_jobs(site.context)
    return site, cast("GenerateResult", await call_tool(site.context, ANN, TOOL, {"job": job.id}))


async def test_examples_and_second_answers_are_not_paid_twice_over_a_restart(tmp_path: Path, stub: WritingStub) -> None:
    site = Site(tmp_path, stub)
    # It is stopped in its second round: the first one is asked, checked and doubted.
    stub.doubted = {0}
    call = asyncio.create_task(site.call(count=10))
    await wait_for(lambda: site.trainer.checked == 1)
    site.trainer.gate = asyncio.Event()
    await wait_for(lambda: site.trainer.checked == 2)
    asked = len(stub.requests)
    await stop(site, call)
    again, result = await resume(tmp_path, stub)
    assert result.queued == 10 and rejected(result) == {"disagreement": 1}
    # Only the last one's second answer is new.
    assert len(stub.requests) == asked + 1 and len(stub.wishes) == 2
    await again.close()


async def test_what_was_planned_stays_so_over_a_restart(tmp_path: Path, stub: WritingStub) -> None:
    site = Site(tmp_path, stub)
    row = {"category": "codes", "accuracy": 0.9, "recommended_examples": 12}

    async def analyse(progress: Any) -> dict[str, Any]:
        return {"categories": [{**row, "trained_examples": 30, "queued_examples": 10}]}

    await site.jobs.wait(site.jobs.start("analyze_model", ANN, Work(analyse)))
    site.trainer.gate = asyncio.Event()
    call = asyncio.create_task(site.call())
    await wait_for(lambda: site.trainer.checked == 1)
    await stop(site, call)
    site = Site(tmp_path, stub)
    # By now others have queued as many.
    site.trainer.rows = 52
    (job,) = resume_jobs(site.context)
    result = cast("GenerateResult", await call_tool(site.context, ANN, TOOL, {"job": job.id}))
    assert (result.count, result.difficulty, result.queued) == (12, "hard", 12)
    assert "Difficulty: hard." in stub.wishes[0]
    assert (await site.call()).count == 10
    await site.close()


async def test_an_analysis_of_a_version_that_counted_no_queue_is_a_plan_too(tmp_path: Path, stub: WritingStub) -> None:
    site = Site(tmp_path, stub)
    row = {"category": "codes", "accuracy": 0.6, "recommended_examples": 25, "trained_examples": 30}

    async def analyse(progress: Any) -> dict[str, Any]:
        return {"categories": [row]}

    await site.jobs.wait(site.jobs.start("analyze_model", ANN, Work(analyse)))
    # 40 rows are there now, 10 more than were taught then.
    result = await site.call()
    assert (result.count, result.difficulty) == (15, "medium")
    await site.close()


async def test_a_batch_goes_on_over_a_restart(tmp_path: Path, stub: WritingStub) -> None:
    stub.batches.polls_until_ended = 1_000_000
    site = Site(tmp_path, stub)
    call = asyncio.create_task(site.call(count=60))
    await wait_for(lambda: any(batch.polls > 2 for batch in stub.batches.held.values()))
    await stop(site, call)
    assert site.ledger.summary().unsettled_usd == 0
    stub.batches.polls_until_ended = 1
    again, result = await resume(tmp_path, stub)
    assert result.queued == 60 and len(set(again.queries)) == 60 and stub.batches.made == 1
    assert stub.written == 60
    await again.close()


async def test_what_was_to_be_queued_is_queued_after_a_restart_though_nothing_is_asked(
    tmp_path: Path, stub: WritingStub
) -> None:
    site = Site(tmp_path, stub)
    hold = asyncio.Event()

    async def record(source: str, examples: Sequence[Example]) -> Any:
        hold.set()
        await asyncio.Event().wait()

    site.sink.record = record  # type: ignore[method-assign,assignment]
    call = asyncio.create_task(site.call(count=10))
    await asyncio.wait_for(hold.wait(), 20)
    asked = len(stub.requests)
    await stop(site, call)
    again, result = await resume(tmp_path, stub)
    assert result.queued == 10 and len(stub.requests) == asked and again.trainer.checked == 0
    await again.close()


async def test_a_cancelled_call_ends_its_batch(site: Site, stub: WritingStub) -> None:
    stub.batches.polls_until_ended = 1_000_000
    call = asyncio.create_task(site.call(count=60))
    await wait_for(lambda: any(batch.polls > 1 for batch in stub.batches.held.values()))
    (job,) = site.jobs.running()
    stopped = cast("GenerateResult", await call_tool(site.context, ANN, TOOL, {"job": job.id, "cancel": True}))
    assert stopped.job is not None and stopped.job.state == "cancelled"
    assert "msgbatch_0001 is cancelled; 0 of its 6" in stopped.job.error_message
    assert stub.batches.held["msgbatch_0001"].cancelled and site.sink.examples == []
    await asyncio.gather(call, return_exceptions=True)
