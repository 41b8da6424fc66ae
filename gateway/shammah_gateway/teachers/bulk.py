"""Many examples by one Message Batch, at half price: bought once, gone on with after a restart, booked by request.

Steps, each kept (`BatchHandle.save`) before the next: the intent with a key that all custom ids begin with; the id of
the batch; what came of it; the direct retries that are left. Results are kept before they are booked: a crash between
the two leaves their money charged against the caps, as of any call whose end nobody saw. It knows no SDK: a desk does.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from shammah_chassis.errors import BudgetError, TeacherAuthError, TeacherError

from shammah_gateway.money.caps import Purpose
from shammah_gateway.money.ledger import Hold, Ledger
from shammah_gateway.money.usage import Usage
from shammah_gateway.teachers.batch_desk import (
    BatchDesk,
    BatchHandle,
    BatchLostError,
    BatchPolicy,
    BatchResult,
    BatchUnsureError,
)
from shammah_gateway.teachers.kept import read_generation_json, write_generation_json
from shammah_gateway.teachers.ports import Generation, Wish
from shammah_gateway.teachers.wishes import bound_wish, read_generation

Got = TypeVar("Got")
# Polls that may fail one after another: at the longest pause the best part of an hour.
MAX_FAILED_POLLS = 50
# What a clock of ours may differ from the server's.
CLOCK_SLACK_SECONDS = 300.0


class Buyer(Protocol):
    """Who pays: a `Teacher`."""

    ledger: Ledger

    def take(self, purpose: Purpose, caller: str, worst: Usage) -> Hold:
        """Count a call."""
        ...

    def hold_again(self, purpose: Purpose, caller: str, worst: Usage) -> Hold:
        """Hold what a call of an earlier run may cost."""
        ...

    def generate(self, wish: Wish, *, caller: str = "") -> Awaitable[Generation]:
        """Make examples without a batch."""
        ...


@dataclass(slots=True)
class _Purchase:
    """One batch on its way."""

    buyer: Buyer
    desk: BatchDesk
    wish: Wish
    caller: str
    handle: BatchHandle
    holds: dict[str, Hold] = field(default_factory=dict)

    @property
    def wishes(self) -> dict[str, Wish]:
        """The requests by custom id, as they were planned."""
        counts: list[int] = self.handle.state["counts"]
        key = self.handle.state["key"]
        return {
            f"{key}-{index}": replace(self.wish, count=count, part=f"{index + 1} of {len(counts)}")
            for index, count in enumerate(counts)
        }

    def release(self) -> None:
        """Close the holds that are left."""
        for hold in self.holds.values():
            self.buyer.ledger.release(hold)


def find_desk(port: object, wish: Wish, handle: BatchHandle) -> BatchDesk | None:
    """Return the desk to buy at: that of a batch that was begun, or the first that wants the wish; None for none.

    A port has one in its attribute `batches`; several teachers in order have theirs in `desks`.
    """
    desks = getattr(port, "desks", None) or (getattr(port, "batches", None),)
    known = [desk for desk in desks if isinstance(desk, BatchDesk)]
    if begun := handle.state.get("teacher"):
        return next((desk for desk in known if desk.name == begun), None)
    return next((desk for desk in known if _wants(desk.policy, wish)), None)


def _wants(policy: BatchPolicy, wish: Wish) -> bool:
    return policy.mode == "always" or (policy.mode == "auto" and wish.count >= policy.from_count)


async def run_batch(buyer: Buyer, desk: BatchDesk, wish: Wish, *, caller: str, handle: BatchHandle) -> Generation:
    """Buy the wish in one batch, or go on with the one in `handle`; what failed unbilled is asked again once, directly.

    Where a budget does not allow all of it, less is bought, and `Generation.short` says so. A batch that can't even be
    made costs nothing, and the wish is asked directly.

    Raises:
        BudgetError: not even one request is allowed. TeacherError: nothing usable came of it.
    """
    bought = _Purchase(buyer, desk, wish, caller, handle)
    try:
        if "made" not in handle.state:
            begun = bool(handle.state)
            _plan(bought, begun=begun)
            if not handle.state.get("id") and not await _open(bought, begun=begun):
                return await buyer.generate(wish, caller=caller)
            await _wait(bought)
            batch: str = handle.state["id"]
            _collect(bought, await _insist(desk, lambda: desk.read(batch)))
    except TeacherError:
        # The batch may go on, and be billed, without us.
        for hold in bought.holds.values():
            buyer.ledger.give_up(hold)
        raise
    finally:
        # Of a call that was stopped here the batch goes on; its holds are made anew when it is gone on with.
        bought.release()
    made = await _ask_again(bought)
    if not made.examples and made.short:
        raise TeacherError(f"batch {handle.state['id']} gave no examples: {made.short}")
    return made


async def stop_batch(buyer: Buyer, desk: BatchDesk, *, caller: str, state: Mapping[str, Any], seconds: float) -> str:
    """End the batch of a call that its caller stopped; returns what to tell.

    What the server has done by then is billed, and booked; where it does not say so within `seconds`, its most is
    charged. Raises as `BatchDesk.cancel`.
    """
    wish = Wish(category="", count=1)
    bought = _Purchase(buyer, desk, wish, caller, BatchHandle(dict(state), lambda _: None, lambda _: None))
    _plan(bought, begun=True)
    batch = state["id"]
    try:
        await desk.cancel(batch)
        end = time.monotonic() + seconds
        while not (await desk.look(batch))[0]:
            if time.monotonic() >= end:
                return f"batch {batch} is being cancelled; what it does until then is billed"
            await desk.sleep(min(1.0, seconds))
        results = await desk.read(batch)
        _book(bought, results)
        done = sum(result.usage is not None for result in results)
        return f"batch {batch} is cancelled; {done} of its {len(results)} requests were done and are billed"
    finally:
        for hold in bought.holds.values():
            buyer.ledger.give_up(hold)


def _plan(bought: _Purchase, *, begun: bool) -> None:
    """Take a hold for each request; of a batch that was begun they are only held, it was counted then."""
    buyer, handle = bought.buyer, bought.handle
    if begun:
        for name, (prompt, output) in handle.state["worst"].items():
            usage = Usage(input_tokens=prompt, output_tokens=output, batch=True)
            bought.holds[name] = buyer.hold_again("teach", bought.caller, usage)
        return
    size = bought.desk.policy.per_request
    counts = [min(size, bought.wish.count - start) for start in range(0, bought.wish.count, size)]
    key = f"sh{secrets.token_hex(8)}"
    handle.state = {"teacher": bought.desk.name, "key": key, "counts": counts, "at": time.time()}
    short = ""
    worst: dict[str, list[int]] = {}
    for name, wish in bought.wishes.items():
        usage = replace(bound_wish(wish), batch=True)
        try:
            bought.holds[name] = buyer.take("teach", bought.caller, usage)
        except BudgetError as error:
            if not bought.holds:
                handle.state = {}
                raise
            short = error.message
            break
        worst[name] = [usage.input_tokens, usage.output_tokens]
    handle.keep(counts=counts[: len(worst)], worst=worst, short=short)


async def _open(bought: _Purchase, *, begun: bool) -> bool:
    """Have the batch made and keep its id; an attempt whose end nobody saw is looked for first. False: not made."""
    handle, desk = bought.handle, bought.desk
    state = handle.state
    unsure: TeacherError | None = None
    for _ in range(2):
        batch = ""
        if begun or unsure is not None:
            handle.report("looking for the batch that was begun")
            batch = await desk.find(state["key"], len(state["counts"]), state["at"] - CLOCK_SLACK_SECONDS)
        try:
            handle.keep(id=batch or await desk.open(bought.wishes))
        except BatchUnsureError as error:
            unsure = error
        except TeacherAuthError:
            raise
        except TeacherError:
            # Nothing was made and nothing is billed: the usual way may still be open.
            bought.release()
            handle.state = {}
            handle.save({})
            return False
        else:
            return True
    raise unsure or TeacherError("the batch could not be made")


async def _wait(bought: _Purchase) -> None:
    """Poll until the batch has ended."""
    desk, handle = bought.desk, bought.handle
    batch: str = handle.state["id"]
    pause = desk.policy.first_pause_seconds
    while True:
        ended, words = await _insist(desk, lambda: desk.look(batch))
        handle.report(f"batch {batch}: {words}")
        if ended:
            return
        await desk.sleep(pause)
        pause = min(1.5 * pause, desk.policy.max_pause_seconds)


async def _insist(desk: BatchDesk, ask: Callable[[], Awaitable[Got]]) -> Got:
    """Ask a server that fails again and again: what it holds is paid for. Not one that does not know the batch."""
    for _ in range(MAX_FAILED_POLLS):
        try:
            return await ask()
        except (TeacherAuthError, BatchLostError):
            raise
        except TeacherError:
            await desk.sleep(desk.policy.max_pause_seconds)
    return await ask()


def _collect(bought: _Purchase, results: Sequence[BatchResult]) -> None:
    """Keep what the results hold, in the order of the requests, then book it."""
    by_id = {result.custom_id: result for result in results}
    total = Generation((), "", short=bought.handle.state["short"])
    again: list[int] = []
    for name, wish in bought.wishes.items():
        result = by_id.get(name)
        if result is None or result.again:
            again.append(wish.count)
            continue
        total = _add(total, _read(result, wish))
    bought.handle.keep(made=write_generation_json(total), again=again)
    _book(bought, results)


def _book(bought: _Purchase, results: Sequence[BatchResult]) -> None:
    for result in results:
        hold = bought.holds.get(result.custom_id)
        if hold is not None and result.usage is not None:
            usage = replace(result.usage, batch=True)
            bought.buyer.ledger.book("teach", caller=bought.caller, model=result.model, usage=usage, hold=hold)
        elif hold is not None:
            bought.buyer.ledger.release(hold)


def _read(result: BatchResult, wish: Wish) -> Generation:
    if result.answer is None:
        return Generation((), result.model, short=result.problem)
    try:
        return read_generation(result.answer, wish)
    except TeacherError as error:
        # Billed, and worth nothing: the sample is shown, the other requests count.
        return Generation((), result.model, broken=(result.answer.text[:200],), short=error.message)


async def _ask_again(bought: _Purchase) -> Generation:
    """Ask directly for what the batch did not do; each is taken off the list first, so that none is paid twice."""
    handle = bought.handle
    total = read_generation_json(handle.state["made"])
    while again := handle.state.get("again", []):
        handle.keep(again=again[1:])
        handle.report(f"asking again for {again[0]} examples that the batch did not give")
        try:
            made = await bought.buyer.generate(replace(bought.wish, count=again[0]), caller=bought.caller)
        except (TeacherError, BudgetError) as error:
            made = Generation((), "", short=error.message)
        total = _add(total, made)
        handle.keep(made=write_generation_json(total))
    return total


def _add(total: Generation, part: Generation) -> Generation:
    """Return both as one; its usage is empty, since it was booked by request."""
    return Generation(
        total.examples + part.examples,
        total.model or part.model,
        broken=total.broken + part.broken,
        short=total.short or part.short,
    )
