"""The real anthropic SDK through the gateway's HTTP door: local answers, and the teacher's own bytes."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel
from support.doors import Doors
from support.messages_stream import split_message
from support.messages_stub import text, tool_use
from support.whole import wait_until

AUTO, LOCAL, TEACHER = "claude-shammah-auto", "claude-shammah-local", "claude-shammah-teacher"
SONNET = "claude-sonnet-5-5"


def user(query: str) -> list[Any]:
    return [{"role": "user", "content": query}]


def ask(query: str, model: str = AUTO, **changes: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 50, "messages": user(query), **changes}


def said(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


class TestLocal:
    def test_an_answer_has_every_field_of_the_api_and_says_who_made_it(
        self, doors: Doors, claude: anthropic.Anthropic
    ) -> None:
        reply = claude.messages.with_raw_response.create(**ask("Where is Rome?"))
        body = json.loads(reply.text())
        assert set(body) == {
            *("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"),
        }
        assert body["id"].startswith("msg_") and (body["type"], body["role"]) == ("message", "assistant")
        assert body["content"] == [text("local: Where is Rome?")]
        assert (body["stop_reason"], body["stop_sequence"]) == ("end_turn", None)
        assert body["usage"]["output_tokens"] == 2
        assert reply.headers["x-shammah-route"] == "local"
        assert reply.headers["x-shammah-reason"] == "quality"
        assert reply.headers["x-shammah-category"] == "capitals"
        assert reply.headers["x-shammah-release"] == doors.release.id
        assert float(reply.headers["x-shammah-confidence"]) > 0.8
        assert reply.headers["request-id"].startswith("req_")
        assert doors.stub.calls == []

    def test_a_stream_is_read_by_the_sdk(self, doors: Doors, claude: anthropic.Anthropic) -> None:
        with claude.messages.stream(**ask("Where is Oslo?")) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_message()
        assert said(final) == "local: Where is Oslo?" and final.stop_reason == "end_turn"
        assert final.usage.output_tokens == 2
        assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
        assert [kind for kind in kinds if kind.startswith("content_block_s")] == [
            "content_block_start",
            "content_block_stop",
        ]
        assert doors.stub.calls == []

    def test_a_stream_has_the_events_of_the_real_api(self, doors: Doors) -> None:
        """Each event has its `event:` line, and the fields that the strict stub's events have."""
        reply = doors.send("POST", "/v1/messages", json.dumps(ask("Where is Bern?", stream=True)).encode())
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = [part.split("\n") for part in reply.body.decode().split("\n\n")[:-1]]
        told = [json.loads(data.removeprefix("data: ")) for _, data in events]
        assert [name.removeprefix("event: ") for name, _ in events] == [one["type"] for one in told]
        whole = {**told[0]["message"], "content": [text("x")], "stop_reason": "end_turn", "stop_sequence": None}
        whole["usage"] = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, **whole["usage"]}
        assert {one["type"] for one in told} == {one["type"] for one in split_message(whole)}
        real = {one["type"]: set(one) for one in split_message(whole)}
        assert all(set(one) == real[one["type"]] for one in told)
        delta = next(one for one in told if one["type"] == "message_delta")
        assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
        assert delta["usage"]["output_tokens"] == 2

    def test_the_local_model_never_asks_the_teacher(self, doors: Doors, claude: anthropic.Anthropic) -> None:
        doors.cluster.script.quality = 0.1
        reply = claude.messages.with_raw_response.create(**ask("Where is Riga?", LOCAL))
        assert reply.headers["x-shammah-route"] == "degraded"
        assert said(reply.parse()) == "local: Where is Riga?"
        assert doors.stub.calls == []

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            (
                {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}]},
                "image",
            ),
            ({"tools": [{"name": "add", "input_schema": {"type": "object"}}]}, "tools"),
        ],
    )
    def test_what_it_can_not_do_is_refused_by_name(
        self, doors: Doors, claude: anthropic.Anthropic, changes: dict[str, Any], word: str
    ) -> None:
        with pytest.raises(anthropic.BadRequestError, match=word):
            claude.messages.create(**{**ask("x", LOCAL), **changes})
        assert doors.stub.calls == []

    def test_a_release_can_be_named(self, doors: Doors, claude: anthropic.Anthropic) -> None:
        reply = claude.messages.create(**ask("Where is Lima?", f"{AUTO}@{doors.release.id}"))
        assert said(reply) == "local: Where is Lima?"
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.create(**ask("x", f"{AUTO}@01ARZ3NDEKTSV4RRFFQ69G5FAV"))


class TestForwarded:
    def test_the_teacher_is_asked_under_its_own_name_and_with_our_key(
        self, doors: Doors, claude: anthropic.Anthropic
    ) -> None:
        doors.cluster.script.quality = 0.1
        reply = claude.messages.with_raw_response.create(**ask("Who wrote the first poem?"))
        assert said(reply.parse()) == "Paris"
        assert (reply.headers["x-shammah-route"], reply.headers["x-shammah-reason"]) == ("teacher", "low_quality")
        (call,) = doors.stub.calls
        assert call.json["model"] == SONNET
        assert doors.token not in repr(call) and doors.stub.key in repr(call.headers)
        example = doors.wait_for_example("Who wrote the first poem?")
        assert (example.response, example.provenance.origin, example.student_attempt) == (
            "Paris",
            "teacher",
            "local: Who wrote the first poem?",
        )

    def test_a_request_for_a_model_of_the_teacher_goes_through_byte_for_byte(self, doors: Doors) -> None:
        turns = b'"messages":[{"content":"h\\u00e9 \xf0\x9f\x98\x80","role":"user"}]'
        body = b'{ "max_tokens" : 7,\n' + turns + b',"model":"claude-opus-5-5"}'
        before = doors.spent()
        reply = doors.send("POST", "/v1/messages?beta=true", body, anthropic_beta="a-1,b-2", x_app="cli")
        (call,) = doors.stub.calls
        assert (call.body, call.query) == (body, "beta=true")
        assert (call.headers["anthropic-beta"], call.headers["x-app"]) == ("a-1,b-2", "cli")
        assert (reply.status, reply.json["model"], reply.json["id"][:4]) == (200, "claude-opus-5-5", "msg_")
        assert (reply.headers["x-shammah-route"], reply.headers["x-shammah-reason"]) == ("teacher", "requested")
        after = wait_until(lambda: now if (now := doors.spent()).calls > before.calls else None, what="the booking")
        assert (after.calls - before.calls, after.input_tokens - before.input_tokens) == (1, 12)
        assert after.output_tokens - before.output_tokens == 3

    @pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
    def test_both_versions_and_both_headers_are_taken(self, doors: Doors, version: str) -> None:
        body = json.dumps(ask("x", SONNET)).encode()
        reply = doors.send(
            "POST", "/v1/messages", body, authorization="", x_api_key=doors.token, anthropic_version=version
        )
        assert reply.status == 200
        assert doors.stub.calls[0].headers["anthropic-version"] == version

    def test_a_stream_goes_through_event_by_event_and_is_learned(
        self, doors: Doors, claude: anthropic.Anthropic
    ) -> None:
        doors.cluster.script.quality = 0.1
        doors.stub.text = "A long answer of many pieces"
        before = doors.spent()
        with claude.messages.stream(**ask("Tell me something long")) as stream:
            pieces = [event.text for event in stream if event.type == "text"]
            final = stream.get_final_message()
        assert len(pieces) == 10 and "".join(pieces) == doors.stub.text == said(final)
        assert (final.usage.input_tokens, final.usage.output_tokens) == (12, 3)
        after = wait_until(lambda: now if (now := doors.spent()).calls > before.calls else None, what="the booking")
        assert after.output_tokens - before.output_tokens == 3
        assert doors.wait_for_example("Tell me something long").response == doors.stub.text

    def test_nothing_is_learned_where_the_caller_says_so(self, doors: Doors, claude: anthropic.Anthropic) -> None:
        doors.cluster.script.quality = 0.1
        claude.messages.create(**ask("Keep this for you"), extra_headers={"x-shammah-no-train": "1"})
        claude.messages.create(**ask("You may learn this"))
        doors.wait_for_example("You may learn this")
        assert doors.examples("Keep this for you") == []

    @pytest.mark.parametrize("stop", ["refusal", "max_tokens", None])
    def test_no_example_is_made_of_an_answer_that_is_none(
        self, doors: Doors, claude: anthropic.Anthropic, stop: str | None
    ) -> None:
        doors.cluster.script.quality = 0.1
        doors.stub.stop_reason = stop
        assert claude.messages.create(**ask(f"Stopped by {stop}")).stop_reason == stop
        doors.stub.stop_reason = "end_turn"
        claude.messages.create(**ask(f"Not stopped by {stop}"))
        doors.wait_for_example(f"Not stopped by {stop}")
        assert doors.examples(f"Stopped by {stop}") == []

    def test_structured_output_is_parsed(self, doors: Doors, claude: anthropic.Anthropic) -> None:
        class City(BaseModel):
            name: str
            country: str

        doors.stub.text = '{"name": "Rome", "country": "Italy"}'
        parsed = claude.messages.parse(**ask("Where is Rome, as JSON?"), output_format=City)
        assert parsed.parsed_output == City(name="Rome", country="Italy")
        assert doors.stub.requests[0]["output_config"]["format"]["schema"]["additionalProperties"] is False

    def test_tokens_are_counted_by_the_teacher(self, doors: Doors, claude: anthropic.Anthropic) -> None:
        counted = claude.messages.count_tokens(model=AUTO, messages=user("How long is this?"))
        assert (
            counted.input_tokens
            == claude.messages.count_tokens(model=SONNET, messages=user("How long is this?")).input_tokens
        )
        assert counted.input_tokens > 5
        assert [call.json["model"] for call in doors.stub.calls] == [SONNET, SONNET]

    def test_models_are_listed(self, claude: anthropic.Anthropic) -> None:
        page = claude.models.list()
        assert [model.id for model in page] == [AUTO, LOCAL, TEACHER]
        assert all(model.type == "model" and model.display_name and model.created_at for model in page)
        assert claude.models.retrieve(AUTO).id == AUTO
        with pytest.raises(anthropic.NotFoundError):
            claude.models.retrieve("claude-shammah-nope")


class TestHangUp:
    def test_a_client_that_leaves_ends_the_teachers_work_and_is_booked_all_the_same(
        self, doors: Doors, claude: anthropic.Anthropic
    ) -> None:
        doors.stub.faults = ["stream-wait"]
        before = doors.spent()
        with claude.messages.stream(**ask("Never to be finished", SONNET)) as stream:
            for event in stream:
                if event.type == "text":
                    break
        wait_until(lambda: doors.stub.hung_up == 1, seconds=10, what="the hang-up to reach the teacher")
        after = wait_until(lambda: now if (now := doors.spent()).calls > before.calls else None, what="the booking")
        assert after.input_tokens - before.input_tokens == 12
        assert doors.examples("Never to be finished") == []
        assert said(claude.messages.create(**ask("And on it goes", SONNET))) == "Paris"


def test_the_sdk_finds_the_gateway_by_the_environment(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", doors.url)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", doors.token)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    doors.stub.replies = [[text("found"), tool_use("add", {})]]
    tools: Any = [{"name": "add", "input_schema": {"type": "object"}}]
    with anthropic.Anthropic() as client:
        assert said(client.messages.create(**ask("x", tools=tools))) == "found"
