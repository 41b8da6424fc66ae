"""The planner `claude`: Claude itself teaches, with the five tools, by the SDK's tool runner and no server-side thread.

Every request sends the whole conversation, which is in the journal: it can be gone on with after any failure. It
decides nothing about teaching.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

from shammah_gateway.money.usage import bound_usage, read_usage
from shammah_gateway.teach.conversation import Conversation
from shammah_gateway.teach.ending import TeachingEndError
from shammah_gateway.teach.findings import measure, read_findings
from shammah_gateway.teach.prompt import write_first_message, write_go_on, write_system
from shammah_gateway.teach.session import Session
from shammah_gateway.teach.spending import ZERO
from shammah_gateway.teach.toolbelt import CACHE, Toolbelt
from shammah_gateway.teachers.anthropic import DEFAULT_BASE_URL
from shammah_gateway.teachers.faults import AttemptError, Fault, cut_off, name_error
from shammah_gateway.teachers.retry import RetryPolicy
from shammah_gateway.teachers.sdk import call_sdk
from shammah_gateway.tools.definitions import anthropic_tools

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types.beta import BetaMessage

# Nobody waits for a first byte here: a limit of a minute is waited out.
PATIENCE = RetryPolicy(attempts=8, seconds=300.0, first_pause_seconds=1.0, max_pause_seconds=60.0)
FIRST_TOKENS, MOST_TOKENS = 8_000, 32_000
MOST_REQUESTS = 400
_GOES_ON = ("tool_use", "pause_turn")
_SHOWN_CHARS = 600
_SURELY_FREE = frozenset({"auth", "billing", "invalid", "rate_limit", "overloaded"})

Sleep = Callable[[float], Awaitable[None]]


class ClaudePlanner:
    """Lets Claude teach one session. `key` None is refused by the SDK unless the environment has one."""

    def __init__(
        self,
        session: Session,
        *,
        key: str | None,
        base_url: str | None = None,
        policy: RetryPolicy = PATIENCE,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._session = session
        self._key = key
        self._base_url = base_url or DEFAULT_BASE_URL
        self._policy = policy
        self._sleep = sleep
        self._belt = Toolbelt(session)
        self._talk = Conversation(session.journal)
        self._max_tokens = FIRST_TOKENS
        self._requests = 0

    async def run(self) -> NoReturn:
        """Teach until the session ends.

        Raises:
            TeachingEndError: the end. TeacherAuthError: no key.
        """
        anthropic = await asyncio.to_thread(__import__, "anthropic")
        async with anthropic.AsyncAnthropic(api_key=self._key, base_url=self._base_url, max_retries=0) as client:
            await self._prepare()
            tried, paused = 0, 0.0
            while True:
                before = len(self._talk.turns)
                fault = await self._converse(client)
                if len(self._talk.turns) > before:
                    # Something came: the patience is for failures in a row.
                    tried, paused = 0, 0.0
                tried += 1
                pause = self._policy.find_pause(
                    fault, tried=tried, paused=paused, left=float("inf"), jitter=random.random()
                )
                if pause is None:
                    raise TeachingEndError("failed", name_error("claude (planner)", fault).message)
                self._session.say(f"Claude: {fault}; again in {pause:.0f} s")
                await self._sleep(pause)
                paused += pause

    async def _prepare(self) -> None:
        """Bring the conversation to where Claude is due."""
        if not self._talk.turns:
            self._talk.add_user(write_first_message())
        if calls := self._talk.open_calls:
            results = [await self._belt.answer(call) for call in calls]
            self._check_halt()
            self._talk.add_user(results)
        if self._talk.ended:
            self._talk.add_user(write_go_on(self._session.settings))

    async def _converse(self, client: AsyncAnthropic) -> Fault:
        """Run the conversation on; returns the fault that broke it.

        Raises:
            TeachingEndError: Claude is done, or may not go on.
        """
        opening = self._talk.opening(write_system(self._session.settings), anthropic_tools())
        messages: Any = client.beta.messages
        runner = messages.tool_runner(
            model=self._session.settings.model,
            max_tokens=self._max_tokens,
            system=[{"type": "text", "text": opening["system"], "cache_control": CACHE}],
            tools=self._belt.make_tools(opening["tools"]),
            messages=list(self._talk.turns),
            cache_control={"type": "ephemeral"},
            stream=True,
            thread=False,
        )
        try:
            while True:
                bound = self._begin_request(opening)
                try:
                    message = await call_sdk(lambda: _next_message(runner))
                    if message.stop_reason is None:
                        raise AttemptError(cut_off("the stream ended before the message did"))
                except AttemptError as failed:
                    self._talk.fail(str(failed.fault), usd=_may_have_cost(failed.fault, bound))
                    return failed.fault
                if not self._take(message):
                    # It was cut: a new runner asks again with more room.
                    return Fault("cut", "the reply was cut at its limit of tokens", retry=True)
                await self._use_tools(runner)
        finally:
            await runner.close()

    def _begin_request(self, opening: Any) -> Decimal | None:  # noqa: ANN401 - a line of the journal
        self._requests += 1
        if self._requests > MOST_REQUESTS:
            raise TeachingEndError("planner", f"Claude made {MOST_REQUESTS} requests without an end")
        size = len(str([opening["system"], opening["tools"], self._talk.turns]).encode())
        usage = bound_usage(size, self._max_tokens, cached=True)
        model = self._session.settings.model
        bound = self._session.prices.price(model, usage, datetime.now(UTC).date())
        self._session.afford(bound, f"a turn of {model}")
        self._talk.ask(bound)
        return bound

    def _take(self, message: BetaMessage) -> bool:
        """Take a reply into the conversation; False when it was cut and has to be asked for again."""
        raw = message.to_dict()
        content: list[dict[str, Any]] = raw["content"]  # type: ignore[assignment]
        usage: dict[str, Any] = raw.get("usage", {})  # type: ignore[assignment]
        usd = self._session.prices.price(message.model, read_usage(usage), datetime.now(UTC).date())
        stop = str(message.stop_reason)
        if stop == "max_tokens":
            self._talk.drop_reply(content, stop, usd=usd, usage=usage)
            if self._max_tokens >= MOST_TOKENS:
                raise TeachingEndError("failed", f"Claude's turn is longer than {MOST_TOKENS} tokens")
            self._max_tokens *= 2
            return False
        if stop == "refusal":
            self._talk.drop_reply(content, stop, usd=usd, usage=usage)
            raise TeachingEndError("planner", "Claude declined to go on (stop reason refusal)")
        self._talk.add_reply(content, stop, usd=usd, usage=usage)
        text = "\n".join(block["text"] for block in content if block["type"] == "text").strip()
        if text:
            self._session.say(f"Claude: {text}")
        if stop not in _GOES_ON or (stop == "tool_use" and not self._talk.open_calls):
            self._end(stop, text)
        return True

    async def _use_tools(self, runner: Any) -> None:  # noqa: ANN401 - the SDK's runner
        calls = self._talk.open_calls
        if not calls:
            # A paused turn is sent back as it is; the runner does that.
            return
        self._belt.expect(calls)
        turn = await runner.generate_tool_call_response()
        self._check_halt()
        self._talk.add_user(list(turn["content"]))

    def _check_halt(self) -> None:
        if self._belt.halt is not None:
            raise self._belt.halt

    def _end(self, stop: str, text: str) -> NoReturn:
        goal = self._session.settings.goal
        looked = [outcome for outcome in self._session.outcomes("analyze_model") if outcome.ok]
        reached = 0.0
        if looked:
            reached = measure(read_findings(looked[-1].value), self._session.settings.categories, goal)
        if stop == "model_context_window_exceeded":
            raise TeachingEndError("planner", "the conversation is longer than Claude can read; start a new session")
        if reached >= goal.value:
            raise TeachingEndError("goal", f"the goal {goal} is reached: {reached:.2f}")
        raise TeachingEndError("planner", f"Claude ended: {text[:_SHOWN_CHARS] or stop}")


async def _next_message(runner: Any) -> BetaMessage:  # noqa: ANN401 - the SDK's runner
    """Make the next request and read its stream to the end."""
    stream = await runner.__anext__()
    message: BetaMessage = await stream.get_final_message()
    return message


def _may_have_cost(fault: Fault, bound: Decimal | None) -> Decimal:
    """Return what a request without a reply may have cost: all of it, unless the server says that it did nothing."""
    return ZERO if fault.kind in _SURELY_FREE and not fault.unseen else bound or ZERO
