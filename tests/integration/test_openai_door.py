"""The OpenAI door as its users meet it: the official SDK, over HTTP, against the strict stub of the Messages API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from support.gateway import Bench
from support.http_site import TEACHER_MODEL, TOKEN, Site, serve_site
from support.messages_stub import text, tool_use

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}},
    }
]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serve_site() as opened:
        yield opened


@pytest.fixture
async def client(site: Site) -> AsyncIterator[AsyncOpenAI]:
    async with connect(site) as opened:
        yield opened


def connect(site: Site, **given: Any) -> AsyncOpenAI:
    return AsyncOpenAI(**{"base_url": f"{site.url}/v1", "api_key": TOKEN, "max_retries": 0, **given})


async def wait_for(probe: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not probe():
            await asyncio.sleep(0.01)


class City(BaseModel):
    name: str


async def test_a_good_local_answer_is_a_completion_that_says_who_made_it(site: Site, client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="shammah-auto", messages=QUESTION)
    reply = raw.parse()
    assert reply.choices[0].message.content == "Paris" and reply.choices[0].finish_reason == "stop"
    assert raw.headers["x-shammah-route"] == "local" and raw.headers["x-shammah-category"] == "capitals"
    assert raw.headers["x-shammah-release"] == site.bench.release.id if site.bench.release else False
    assert reply.id == f"chatcmpl-{raw.headers['x-shammah-query-id']}"
    assert reply._request_id == f"req_{raw.headers['x-shammah-query-id']}"
    assert reply.usage is not None and reply.usage.completion_tokens == 2
    assert site.stub.requests == [] and site.ledger.summary().saved[TEACHER_MODEL].answers == 1


async def test_a_local_answer_is_streamed_role_first(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="shammah-auto", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Paris"
    assert chunks[-1].choices == [] and chunks[-1].usage is not None


async def test_a_weak_local_answer_is_the_teachers_and_becomes_an_example(site: Site, client: AsyncOpenAI) -> None:
    site.forward()
    raw = await client.chat.completions.with_raw_response.create(model="shammah-auto", messages=QUESTION)
    reply = raw.parse()
    assert reply.choices[0].message.content == "Paris" and reply.model == TEACHER_MODEL
    assert raw.headers["x-shammah-route"] == "teacher" and raw.headers["x-shammah-reason"] == "low_quality"
    assert reply.usage is not None and reply.usage.prompt_tokens == 12
    assert [example.response for example in site.bench.sink.examples] == ["Paris"]
    assert site.ledger.summary().today.calls == 1
    assert site.stub.requests[0]["model"] == TEACHER_MODEL


async def test_a_forwarded_answer_is_streamed_and_learned(site: Site, client: AsyncOpenAI) -> None:
    site.forward()
    site.stub.text = "It is Paris, of course"
    stream = await client.chat.completions.create(
        model="shammah-auto", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == site.stub.text and len(pieces) > 3
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 3
    assert chunks[0].model == TEACHER_MODEL
    await wait_for(lambda: site.bench.sink.examples)
    assert site.bench.sink.examples[0].response == site.stub.text


async def test_pieces_are_sent_on_before_the_upstream_is_done(site: Site, client: AsyncOpenAI) -> None:
    site.stub.faults = ["stream-wait"]
    stream = await client.chat.completions.create(model="shammah-teacher", messages=QUESTION, stream=True)
    pieces = aiter(stream)
    async with asyncio.timeout(10):
        found = ""
        while found != "Paris":
            found += (await anext(pieces)).choices[0].delta.content or ""
    site.stub.hold.set()
    rest = [chunk async for chunk in pieces]
    assert rest[-1].choices[0].finish_reason == "stop"


async def test_a_client_that_hangs_up_ends_the_upstreams_work_and_is_booked(site: Site, client: AsyncOpenAI) -> None:
    site.forward()
    site.stub.faults = ["stream-wait"]
    stream = await client.chat.completions.create(model="shammah-auto", messages=QUESTION, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    await wait_for(lambda: site.stub.hung_up)
    await wait_for(lambda: site.ledger.summary().spent["answer"].input_tokens)
    assert site.bench.sink.examples == []


async def test_sampling_fields_are_never_sent_to_claude(site: Site, client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="shammah-auto", messages=QUESTION, temperature=0.7, top_p=0.9, seed=3, stop=["!"], user="u"
    )
    assert raw.headers["x-shammah-reason"] == "uncertified"
    assert raw.headers["x-shammah-dropped"] == "temperature,top_p,seed"
    assert set(site.stub.requests[0]) == {"model", "max_tokens", "messages", "stop_sequences", "metadata"}


async def test_tools_go_to_the_teacher_and_back(site: Site, client: AsyncOpenAI) -> None:
    site.stub.replies = [[text("Let me see."), tool_use("add", {"a": 1, "b": 2}, identity="toolu_7")]]
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 2?"}]
    reply = await client.chat.completions.create(model="shammah-auto", messages=messages, tools=TOOLS)
    call = reply.choices[0].message.tool_calls
    assert reply.choices[0].finish_reason == "tool_calls" and call is not None and call[0].type == "function"
    assert json.loads(call[0].function.arguments) == {"a": 1, "b": 2}
    messages += [
        reply.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call[0].id, "content": "3"},
    ]
    site.stub.text = "3"
    last = await client.chat.completions.create(model="shammah-auto", messages=messages, tools=TOOLS)
    assert last.choices[0].message.content == "3"
    sent = site.stub.requests[1]
    assert sent["system"] == "Be brief."
    assert sent["messages"][-1]["content"][0] == {"type": "tool_result", "tool_use_id": "toolu_7", "content": "3"}
    assert site.bench.sink.examples == []


async def test_tool_calls_are_streamed_through_the_sdks_helper(site: Site, client: AsyncOpenAI) -> None:
    site.stub.replies = [[tool_use("add", {"a": 1}), tool_use("add", {}, identity="toolu_02")]]
    async with client.chat.completions.stream(model="shammah-auto", messages=QUESTION, tools=TOOLS) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [{"a": 1}, {}]
    assert [call.id for call in calls] == ["toolu_01", "toolu_02"]


async def test_parse_gives_an_object_of_the_schema(site: Site, client: AsyncOpenAI) -> None:
    site.stub.text = '{"name": "Paris"}'
    reply = await client.chat.completions.parse(model="shammah-auto", messages=QUESTION, response_format=City)
    assert reply.choices[0].message.parsed == City(name="Paris")
    assert site.stub.requests[0]["output_config"]["format"]["schema"]["additionalProperties"] is False


async def test_an_image_goes_to_the_teacher(site: Site, client: AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    await client.chat.completions.create(model="shammah-auto", messages=messages)
    assert site.stub.requests[0]["messages"][0]["content"][1]["source"]["data"] == "QUJD"


async def test_a_refusal_is_a_content_filter_and_no_example(site: Site, client: AsyncOpenAI) -> None:
    site.forward()
    site.stub.stop_reason = "refusal"
    reply = await client.chat.completions.create(model="shammah-auto", messages=QUESTION)
    assert reply.choices[0].finish_reason == "content_filter"
    assert site.bench.sink.examples == []


async def test_a_wish_not_to_be_learned_from_is_kept(site: Site, client: AsyncOpenAI) -> None:
    site.forward()
    await client.chat.completions.create(
        model="shammah-auto", messages=QUESTION, extra_headers={"x-shammah-no-train": "1"}
    )
    assert site.stub.requests and site.bench.sink.examples == []


async def test_the_model_name_chooses_who_answers(site: Site, client: AsyncOpenAI) -> None:
    site.forward()
    local = await client.chat.completions.with_raw_response.create(model="shammah-local", messages=QUESTION)
    assert local.headers["x-shammah-route"] == "degraded" and site.stub.requests == []
    own = await client.chat.completions.create(model="claude-opus-5-5", messages=QUESTION)
    assert own.model == "claude-opus-5-5"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="gpt-9", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="shammah-best"):
        await client.chat.completions.create(model="shammah-best", messages=QUESTION)


async def test_a_foreign_model_id_can_be_mapped_to_auto() -> None:
    async with serve_site(http_auto_models="gpt-9") as site, connect(site) as client:
        raw = await client.chat.completions.with_raw_response.create(model="gpt-9", messages=QUESTION)
        assert raw.headers["x-shammah-route"] == "local"
        site.forward()
        assert (await client.chat.completions.create(model="gpt-9", messages=QUESTION)).model == TEACHER_MODEL


async def test_a_forced_local_call_refuses_what_the_student_cannot_do(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="text only; not supported: tools") as caught:
        await client.chat.completions.create(model="shammah-local", messages=QUESTION, tools=TOOLS)
    assert caught.value.code == "unsupported"


async def test_a_local_answer_ends_at_the_callers_stop(site: Site, client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model="shammah-local", messages=QUESTION, stop="ri")
    assert reply.choices[0].message.content == "Pa" and reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("429:2", openai.RateLimitError, "rate_limit_exceeded"),
        ("402", openai.RateLimitError, "insufficient_quota"),
        ("500", openai.InternalServerError, "api_error"),
        ("529", openai.InternalServerError, "overloaded"),
        ("401", openai.InternalServerError, "teacher_auth"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_of_the_upstream_is_one_of_the_sdk(
    site: Site, client: AsyncOpenAI, fault: str, kind: type[openai.APIStatusError], code: str, stream: bool
) -> None:
    site.stub.faults = [fault]
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(model="shammah-teacher", messages=QUESTION, stream=stream)
    assert caught.value.code == code and "told to fail" in str(caught.value)
    assert caught.value.request_id is not None and caught.value.request_id.startswith("req_")
    if fault == "401":
        assert caught.value.response.headers["x-should-retry"] == "false"
    if fault == "429:2":
        assert caught.value.response.headers["retry-after"] == "2"
    assert site.bench.monitor.failed == 1


async def test_a_dropped_socket_is_an_error_of_the_server(site: Site, client: AsyncOpenAI) -> None:
    site.stub.faults = ["drop"]
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="shammah-teacher", messages=QUESTION)


@pytest.mark.parametrize("fault", ["drop", "500"])
async def test_a_failed_teacher_is_replaced_where_a_labelled_answer_is_allowed(
    site: Site, client: AsyncOpenAI, fault: str
) -> None:
    site.forward()
    site.stub.faults = [fault]
    raw = await client.chat.completions.with_raw_response.create(
        model="shammah-auto", messages=QUESTION, extra_headers={"x-shammah-allow-degraded": "1"}
    )
    assert raw.headers["x-shammah-route"] == "degraded"
    assert raw.parse().choices[0].message.content == "Paris"


@pytest.mark.parametrize("fault", ["stream-drop", "stream-end", "stream-error"])
async def test_a_stream_that_fails_midway_raises_and_is_no_example(site: Site, client: AsyncOpenAI, fault: str) -> None:
    site.forward()
    site.stub.faults = [fault]
    stream = await client.chat.completions.create(model="shammah-auto", messages=QUESTION, stream=True)
    found = ""
    with pytest.raises(openai.APIError) as caught:
        async for chunk in stream:
            found += chunk.choices[0].delta.content or ""
    assert found == "Paris" and type(caught.value) is openai.APIError
    await wait_for(lambda: site.ledger.summary().spent["answer"].input_tokens)
    assert site.bench.sink.examples == []


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"extra_body": {"wombat": 1}}, "wombat"),
        ({"messages": []}, "messages"),
        ({"tools": [{"type": "custom"}]}, "tools[0]"),
        ({"temperature": 9}, "temperature"),
    ],
)
async def test_bad_input_names_its_field(client: AsyncOpenAI, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**{"model": "shammah-auto", "messages": QUESTION, **changes})
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")


async def test_a_wrong_token_is_an_authentication_error(site: Site) -> None:
    async with connect(site, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="shammah-auto", messages=QUESTION)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"x" * 2000, 413)])
async def test_a_body_that_is_no_json_or_too_large_is_refused(body: bytes, status: int) -> None:
    async with serve_site(http_max_body_bytes=1024) as site, httpx2.AsyncClient() as plain:
        told = await plain.post(
            f"{site.url}/v1/chat/completions", content=body, headers={"authorization": f"Bearer {TOKEN}"}
        )
    assert told.status_code == status and told.json()["error"]["type"] == "invalid_request_error"


async def test_models_are_listed_for_the_sdk(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["shammah-auto", "shammah-local", "shammah-teacher"]
    assert (await client.models.retrieve("shammah-auto")).owned_by == "shammah"


async def test_the_id_of_a_reply_takes_feedback(site: Site, client: AsyncOpenAI) -> None:
    site.forward()
    reply = await client.chat.completions.create(model="shammah-auto", messages=QUESTION)
    told = await client.post(
        "/feedback", body={"request_id": reply.id, "rating": "bad", "correction": "Lyon"}, cast_to=object
    )
    assert told == {"request_id": reply.id.removeprefix("chatcmpl-"), "effect": "example", "weight": 10.0}


async def test_a_teacher_that_takes_no_bytes_answers_in_the_same_shape() -> None:
    async with serve_site(bytes_taken=False) as site, connect(site) as client:
        site.forward()
        raw = await client.chat.completions.with_raw_response.create(model="shammah-auto", messages=QUESTION)
        assert raw.headers["x-shammah-route"] == "teacher" and raw.parse().model == "plain-1"
        with pytest.raises(openai.BadRequestError, match="text only"):
            await client.chat.completions.create(model="shammah-auto", messages=QUESTION, tools=TOOLS)
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="gpt-9", messages=QUESTION)


async def test_without_routing_everything_is_forwarded() -> None:
    async with serve_site(http_routing=False) as site, connect(site) as client:
        raw = await client.chat.completions.with_raw_response.create(model="shammah-auto", messages=QUESTION)
        assert raw.headers["x-shammah-reason"] == "routing_off" and len(site.stub.requests) == 1
        assert site.bench.roles.calls == []


async def test_the_callers_own_key_goes_to_the_upstream_where_that_is_set() -> None:
    async with serve_site(http_credentials="client") as site:
        async with connect(site, api_key=site.stub.key) as client:
            await client.chat.completions.create(model="shammah-teacher", messages=QUESTION)
        async with connect(site, api_key="wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="shammah-teacher", messages=QUESTION)


async def test_a_spent_budget_is_a_labelled_answer_or_a_quota_error() -> None:
    for at_cap in ("refuse", "degrade"):
        async with serve_site(bench=Bench(at_cap=at_cap), caps={"calls_total": 0}) as site, connect(site) as client:
            site.forward()
            asked = client.chat.completions.with_raw_response.create(model="shammah-auto", messages=QUESTION)
            if at_cap == "refuse":
                with pytest.raises(openai.RateLimitError) as caught:
                    await asked
                assert caught.value.code == "insufficient_quota"
            else:
                told = await asked
                assert (told.headers["x-shammah-route"], told.headers["x-shammah-reason"]) == ("degraded", "budget")


async def test_after_a_turn_with_tools_the_teacher_keeps_the_conversation(site: Site, client: AsyncOpenAI) -> None:
    more = [{"role": "assistant", "content": "Paris"}, {"role": "user", "content": "And of Italy?"}]
    routes = []
    for changes in ({}, {"tools": TOOLS}, {}):
        raw = await client.chat.completions.with_raw_response.create(
            model="shammah-auto", messages=[*QUESTION, *more], **changes
        )
        routes.append((raw.headers["x-shammah-route"], raw.headers["x-shammah-reason"]))
    assert routes == [("local", "quality"), ("teacher", "uncertified"), ("teacher", "conversation")]


async def test_a_teacher_that_takes_no_bytes_answers_where_the_upstreams_fail() -> None:
    async with serve_site(teachers=("anthropic", "plain")) as site, connect(site) as client:
        site.forward()
        site.stub.faults.append("529")
        raw = await client.chat.completions.with_raw_response.create(model="shammah-auto", messages=QUESTION)
        assert raw.parse().choices[0].message.content == "Paris" and raw.headers["x-shammah-route"] == "teacher"
        assert len(site.bench.port.asked) == 1
