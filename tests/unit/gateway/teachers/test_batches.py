"""Message Batches: the real SDK against the strict stub, money in a real ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
from shammah_chassis.errors import BudgetError, TeacherAuthError, TeacherError
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.teachers.anthropic import AnthropicTeacher
from shammah_gateway.teachers.base import BatchHandle, Teacher, Wish
from shammah_gateway.teachers.batch_desk import BatchPolicy
from support.gateway import make_ledger
from support.guards import Clock, make_guard
from support.writing_stub import WritingStub, serve_writing

# One request of the stub: 12 tokens in, 3 out, at 2 and 10 USD a million, by half.
HALF = Decimal("0.000027")
WISH = Wish(category="codes", count=60)


@pytest.fixture
async def stub() -> AsyncIterator[WritingStub]:
    async with serve_writing() as served:
        yield served


class Shop:
    """A teacher that buys batches of the stub, and what is saved of them; pauses move a clock."""

    def __init__(self, stub: WritingStub, ledger: Ledger | None = None, **policy: Any) -> None:
        self.clock = Clock()
        self.port = AnthropicTeacher(
            model="claude-sonnet-5-5",
            key="right-key",
            base_url=stub.url,
            guard=make_guard(self.clock),
            batches=BatchPolicy(**policy),
        )
        self.port.batches._sleep = self.clock.sleep
        self.ledger = ledger or make_ledger()
        self.teacher = Teacher(self.port, self.ledger)
        self.saved: list[dict[str, Any]] = []
        self.stages: list[str] = []

    def handle(self, state: Mapping[str, Any] | None = None) -> BatchHandle:
        return BatchHandle(dict(state or {}), lambda now: self.saved.append(json.loads(json.dumps(now))), self.note)

    def note(self, stage: str) -> None:
        self.stages.append(stage)

    @property
    def spent(self) -> Decimal:
        return self.ledger.summary().spent["teach"].usd


@pytest.fixture
async def shop(stub: WritingStub) -> AsyncIterator[Shop]:
    made = Shop(stub)
    yield made
    await made.port.close()


async def test_many_examples_are_bought_in_one_batch_at_half_price(stub: WritingStub, shop: Shop) -> None:
    stub.batches.polls_until_ended = 3
    made = await shop.teacher.generate(WISH, caller="ann", batch=shop.handle())
    assert len({row.query for row in made.examples}) == 60 and made.short == ""
    (batch,) = stub.batches.held.values()
    assert len(batch.requests) == 6 and stub.requests == []
    assert shop.spent == 6 * HALF
    assert shop.ledger.summary().spent["teach"].calls == 6
    # Polled with growing pauses, and told.
    assert shop.clock.slept == [5.0, 7.5]
    assert "batch msgbatch_0001: 6 of 6 requests are done" in shop.stages


async def test_results_are_matched_by_their_id_and_keep_the_order_of_the_requests(
    stub: WritingStub, shop: Shop
) -> None:
    made = await shop.teacher.generate(WISH, batch=shop.handle())
    # The stub answers the last request first, so its items are the first ones written.
    numbers = [int(row.response.removeprefix("code-")) for row in made.examples]
    assert numbers == [*range(50, 60), *range(40, 50), *range(30, 40), *range(20, 30), *range(10, 20), *range(10)]


async def test_the_parts_of_a_batch_are_told_to_differ(stub: WritingStub, shop: Shop) -> None:
    await shop.teacher.generate(WISH, batch=shop.handle())
    assert [f"part {n} of 6" in wish for n, wish in zip(range(6, 0, -1), stub.wishes, strict=True)] == [True] * 6


async def test_few_examples_are_asked_directly_unless_always(stub: WritingStub, shop: Shop) -> None:
    made = await shop.teacher.generate(Wish(category="codes", count=10), batch=shop.handle())
    assert len(made.examples) == 10 and not stub.batches.held and shop.saved == []
    always = Shop(stub, mode="always")
    await always.teacher.generate(Wish(category="codes", count=10), batch=always.handle())
    assert len(stub.batches.held) == 1
    never = Shop(stub, mode="never")
    made = await never.teacher.generate(WISH, batch=never.handle())
    # A direct call is for at most twenty.
    assert len(made.examples) == 20 and len(stub.batches.held) == 1
    await always.port.close()
    await never.port.close()


async def test_requests_that_failed_unbilled_are_asked_again_once_directly(stub: WritingStub, shop: Shop) -> None:
    stub.batches.faults = ["expired", "errored"]
    made = await shop.teacher.generate(WISH, batch=shop.handle())
    assert len(made.examples) == 60 and len(stub.requests) == 2
    assert shop.spent == 4 * HALF + 2 * 2 * HALF
    assert shop.ledger.summary().spent["teach"].unknown_calls == 0


async def test_a_direct_retry_that_fails_costs_its_part_only(stub: WritingStub, shop: Shop) -> None:
    stub.batches.faults = ["expired"]
    stub.faults = ["400"]
    made = await shop.teacher.generate(WISH, batch=shop.handle())
    assert len(made.examples) == 50 and "400" in made.short


async def test_a_part_out_of_form_is_shown_and_the_others_count(stub: WritingStub, shop: Shop) -> None:
    stub.raw = ["this is no JSON"]
    made = await shop.teacher.generate(WISH, batch=shop.handle())
    assert len(made.examples) == 50 and made.broken == ("this is no JSON",)
    assert shop.spent == 6 * HALF


async def test_a_budget_buys_as_many_requests_as_it_allows(stub: WritingStub) -> None:
    # The most that a request of ten can cost: 8,000 tokens out at 5 USD a million, and its prompt.
    shop = Shop(stub, make_ledger(usd_total=Decimal("0.1")))
    made = await shop.teacher.generate(WISH, batch=shop.handle())
    assert len(made.examples) == 20 and "usd_total" in made.short
    assert len(stub.batches.held["msgbatch_0001"].requests) == 2
    poor = Shop(stub, make_ledger(usd_total=Decimal("0.01")))
    with pytest.raises(BudgetError):
        await poor.teacher.generate(WISH, batch=poor.handle())
    assert len(stub.batches.held) == 1 and poor.saved == []
    await shop.port.close()
    await poor.port.close()


async def interrupt(shop: Shop, stub: WritingStub, *, until: str) -> dict[str, Any]:
    """Begin a purchase, stop it once `until` is saved; returns what was saved."""
    reached = asyncio.Event()

    def save(now: Mapping[str, Any]) -> None:
        shop.saved.append(json.loads(json.dumps(now)))
        if until in now:
            reached.set()

    stub.batches.polls_until_ended = 1_000_000

    async def wait(seconds: float) -> None:
        await asyncio.Event().wait()

    shop.port.batches._sleep = wait
    task = asyncio.create_task(shop.teacher.generate(WISH, batch=BatchHandle({}, save, shop.note)))
    await asyncio.wait_for(reached.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stub.batches.polls_until_ended = 1
    shop.port.batches._sleep = shop.clock.sleep
    return shop.saved[-1]


async def test_a_restart_goes_on_with_the_same_batch_and_pays_once(stub: WritingStub, shop: Shop) -> None:
    state = await interrupt(shop, stub, until="id")
    assert shop.ledger.summary().unsettled_usd == 0
    again = Shop(stub)
    made = await again.teacher.generate(WISH, batch=again.handle(state))
    assert len(made.examples) == 60 and stub.batches.made == 1
    assert again.spent == 6 * HALF
    # Counted by the run that took them.
    assert again.ledger.summary().spent["teach"].calls == 0
    third = Shop(stub)
    same = await third.teacher.generate(WISH, batch=third.handle(again.saved[-1]))
    assert same.examples == made.examples and third.spent == 0
    await again.port.close()
    await third.port.close()


async def test_a_batch_whose_id_was_lost_is_found_by_its_requests(stub: WritingStub, shop: Shop) -> None:
    state = await interrupt(shop, stub, until="id")
    lost = {**{name: value for name, value in state.items() if name != "id"}, "at": 0.0}
    again = Shop(stub)
    made = await again.teacher.generate(WISH, batch=again.handle(lost))
    assert len(made.examples) == 60 and stub.batches.made == 1
    # With another key it is somebody else's.
    other = Shop(stub)
    await other.teacher.generate(WISH, batch=other.handle({**lost, "key": "shffff"}))
    assert stub.batches.made == 2
    await again.port.close()
    await other.port.close()


async def test_a_stopped_call_ends_its_batch_and_is_billed_for_nothing(stub: WritingStub, shop: Shop) -> None:
    state = await interrupt(shop, stub, until="id")
    told = await shop.teacher.stop_batch(state)
    assert "0 of its 6 requests were done" in told
    assert stub.batches.held[state["id"]].cancelled and shop.spent == 0


async def test_a_batch_that_the_server_lost_is_a_named_error(stub: WritingStub, shop: Shop) -> None:
    state = await interrupt(shop, stub, until="id")
    stub.batches.held.clear()
    with pytest.raises(TeacherError, match="does not know the batch"):
        await shop.teacher.generate(WISH, batch=shop.handle(state))


async def test_a_batch_that_can_not_be_made_is_asked_directly(
    stub: WritingStub, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(call: Any, wire: Any, rest: list[str]) -> None:
        body = {"type": "error", "error": {"type": "invalid_request_error", "message": "no batches here"}}
        await wire.reply(400, json.dumps(body).encode(), {"content-type": "application/json"})

    monkeypatch.setattr(stub, "_handle_batches", refuse)
    made = await shop.teacher.generate(WISH, batch=shop.handle())
    assert len(made.examples) == 20 and shop.saved[-1] == {}
    assert shop.spent == 2 * HALF


async def test_a_wrong_key_is_not_tried_in_another_way(stub: WritingStub, shop: Shop) -> None:
    stub.key = "another"
    with pytest.raises(TeacherAuthError):
        await shop.teacher.generate(WISH, batch=shop.handle())
    assert shop.spent == 0 and len(stub.calls) == 1


async def test_a_batch_whose_making_nobody_saw_is_looked_for_before_another_is_made(
    stub: WritingStub, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.messages_batches.CREATED", "2100-01-01T00:00:00Z")
    handle, seen = stub._handle_batches, 0

    async def drop_first(call: Any, wire: Any, rest: list[str]) -> None:
        nonlocal seen
        if call.method == "POST" and not rest:
            seen += 1
            stub.batches.create(call.json)
            wire.drop()
            return
        await handle(call, wire, rest)

    monkeypatch.setattr(stub, "_handle_batches", drop_first)
    made = await shop.teacher.generate(WISH, batch=shop.handle())
    assert len(made.examples) == 60 and seen == stub.batches.made == 1
    assert shop.spent == 6 * HALF
