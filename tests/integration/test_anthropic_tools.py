"""The real anthropic SDK through the HTTP door: tools, its tool runner with and without threads, batches."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic import beta_tool
from support.doors import Doors
from support.messages_rules import THREADS_BETA
from support.messages_stub import text, tool_use
from support.whole import wait_until

AUTO, LOCAL, SONNET = "claude-shammah-auto", "claude-shammah-local", "claude-sonnet-5-5"
ADD: Any = {
    "name": "add",
    "description": "Add two numbers.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
}


@beta_tool
def add(a: int, b: int) -> str:
    """Add two numbers.

    Args:
        a: The one.
        b: The other.
    """
    return str(a + b)


def user(query: str) -> list[Any]:
    return [{"role": "user", "content": query}]


def said(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def script_addition(doors: Doors) -> None:
    """The teacher calls the tool, then it says the sum."""
    doors.stub.replies = [[text("I add."), tool_use("add", {"a": 20, "b": 22})], [text("It is 42.")]]


@pytest.mark.parametrize("model", [AUTO, SONNET])
def test_a_tool_is_called_by_the_teacher_though_the_student_could_answer(
    doors: Doors, claude: anthropic.Anthropic, model: str
) -> None:
    script_addition(doors)
    turns = user("Where is 20 + 22?")
    reply = claude.messages.with_raw_response.create(model=model, max_tokens=50, messages=turns, tools=[ADD])
    first = reply.parse()
    assert reply.headers["x-shammah-route"] == "teacher"
    (call,) = (block for block in first.content if block.type == "tool_use")
    assert (first.stop_reason, call.name, call.input) == ("tool_use", "add", {"a": 20, "b": 22})
    turns += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "42"}]},
    ]
    last = claude.messages.create(model=model, max_tokens=50, messages=turns, tools=[ADD])
    assert (said(last), last.stop_reason) == ("It is 42.", "end_turn")
    assert [request["model"] for request in doors.stub.requests] == [SONNET, SONNET]


def test_a_tool_call_is_streamed(doors: Doors, claude: anthropic.Anthropic) -> None:
    script_addition(doors)
    with claude.messages.stream(model=AUTO, max_tokens=50, messages=user("Sum?"), tools=[ADD]) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert json.loads("".join(pieces)) == {"a": 20, "b": 22}
    assert [block.type for block in final.content] == ["text", "tool_use"]
    assert final.content[1].type == "tool_use" and final.content[1].input == {"a": 20, "b": 22}


@pytest.mark.parametrize("model", [AUTO, SONNET])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("thread", [False, True])
def test_the_tool_runner_runs_to_its_end(
    doors: Doors, claude: anthropic.Anthropic, model: str, *, stream: bool, thread: bool
) -> None:
    script_addition(doors)
    options: dict[str, Any] = {} if thread else {"thread": False}
    runner = claude.beta.messages.tool_runner(
        model=model, max_tokens=50, tools=[add], messages=user("20 + 22?"), stream=stream, **options
    )
    turns: list[Any] = list(runner)
    replies = [turn.get_final_message() for turn in turns] if stream else turns
    assert [said(reply) for reply in replies] == ["I add.", "It is 42."]
    # What the model saw at last is the whole conversation, whoever kept it.
    seen = doors.stub.seen[-1]
    assert [turn["role"] for turn in seen["messages"]] == ["user", "assistant", "user"]
    assert seen["messages"][2]["content"][0]["content"] == "42"
    assert seen["tools"][0]["name"] == "add"
    first, second = doors.stub.requests
    if thread:
        assert first["thread"] == {"type": "create"} and second["thread"]["type"] == "continue"
        assert "tools" not in second and len(second["messages"]) == 1
        assert all(THREADS_BETA in call.headers["anthropic-beta"] for call in doors.stub.calls)
    else:
        assert "thread" not in first and len(second["messages"]) == 3
    assert {request["model"] for request in doors.stub.requests} == {SONNET}


def test_a_lost_thread_is_replayed_by_the_runner(doors: Doors, claude: anthropic.Anthropic) -> None:
    script_addition(doors)
    runner = claude.beta.messages.tool_runner(model=AUTO, max_tokens=50, tools=[add], messages=user("20 + 22?"))
    replies = []
    for reply in runner:
        doors.stub.threads.forget()
        replies.append(said(reply))
    assert replies == ["I add.", "It is 42."]
    assert [request["thread"]["type"] for request in doors.stub.requests] == ["create", "continue", "create"]


def test_the_local_model_keeps_no_threads_and_the_runner_goes_on_without(
    doors: Doors, claude: anthropic.Anthropic
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.beta.messages.create(
            model=LOCAL, max_tokens=50, messages=user("x"), thread={"type": "create"}, betas=[THREADS_BETA]
        )
    body: Any = caught.value.body
    assert body["error"]["details"] == {"error_code": "thread_unsupported_request", "unsupported": []}
    runner = claude.beta.messages.tool_runner(model=LOCAL, max_tokens=50, tools=[], messages=user("Where is Rome?"))
    assert said(runner.until_done()) == "local: Where is Rome?"
    assert doors.stub.calls == []


def test_the_local_model_calls_no_tools(doors: Doors, claude: anthropic.Anthropic) -> None:
    runner = claude.beta.messages.tool_runner(
        model=LOCAL, max_tokens=50, tools=[add], messages=user("20 + 22?"), thread=False
    )
    with pytest.raises(anthropic.BadRequestError, match="tools"):
        runner.until_done()
    assert doors.stub.calls == []


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "add"}])
def test_what_the_teacher_refuses_reaches_the_caller_in_its_words(
    doors: Doors, claude: anthropic.Anthropic, choice: Any
) -> None:
    with pytest.raises(anthropic.BadRequestError, match="forced tool use"):
        claude.messages.create(model=SONNET, max_tokens=50, messages=user("x"), tools=[ADD], tool_choice=choice)
    assert len(doors.stub.calls) == 1


class TestBatches:
    def test_a_batch_runs_to_its_results_and_is_booked_once(self, doors: Doors, claude: anthropic.Anthropic) -> None:
        params: Any = {"model": SONNET, "max_tokens": 50, "messages": user("x")}
        rows: Any = [{"custom_id": "good", "params": params}, {"custom_id": "bad", "params": {**params, "top_k": 1}}]
        before = doors.spent()
        made = claude.messages.batches.create(requests=rows)
        assert (made.processing_status, made.request_counts.processing) == ("in_progress", 2)
        batch = wait_until(lambda: self.ended(claude, made.id), what="the batch")
        assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 1)
        assert batch.results_url == f"{doors.url}/v1/messages/batches/{made.id}/results"
        for _ in range(2):
            found = {row.custom_id: row.result for row in claude.messages.batches.results(made.id)}
            assert found["good"].type == "succeeded" and said(found["good"].message) == "Paris"
            assert found["bad"].type == "errored"
            assert found["bad"].error.error.type == "invalid_request_error"
        after = wait_until(lambda: now if (now := doors.spent()).calls > before.calls else None, what="the booking")
        assert after.input_tokens - before.input_tokens == 12
        assert next(one.id for one in claude.messages.batches.list()) == made.id
        assert claude.messages.batches.delete(made.id).id == made.id
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.batches.retrieve(made.id)

    @staticmethod
    def ended(claude: anthropic.Anthropic, name: str) -> Any:
        batch = claude.messages.batches.retrieve(name)
        return batch if batch.processing_status == "ended" else None

    def test_a_batch_can_be_cancelled(self, claude: anthropic.Anthropic) -> None:
        params: Any = {"model": SONNET, "max_tokens": 50, "messages": user("x")}
        made = claude.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
        assert claude.messages.batches.cancel(made.id).processing_status == "canceling"
        assert self.ended(claude, made.id).request_counts.canceled == 1

    def test_a_batch_names_models_of_the_teacher(self, doors: Doors, claude: anthropic.Anthropic) -> None:
        params: Any = {"model": AUTO, "max_tokens": 50, "messages": user("x")}
        with pytest.raises(anthropic.BadRequestError, match="model"):
            claude.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
        assert doors.stub.calls == []
