import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from pydantic_settings import SettingsConfigDict
from shammah.v1 import gateway_pb2, gateway_pb2_grpc, generator_pb2, generator_pb2_grpc, router_pb2, router_pb2_grpc
from shammah_chassis.errors import InvalidInputError, OverloadedError
from shammah_chassis.interceptors import channel, to_error
from shammah_chassis.logs import request_id
from shammah_chassis.scopes import current_caller
from shammah_chassis.settings import ServiceSettings
from support.services import Running, connect, make_settings, parts_of, serve, until


class SomeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SHAMMAH_SOME_")


class Router(router_pb2_grpc.RouterServiceServicer):
    """Does what the query says."""

    async def Route(self, request: router_pb2.RouteRequest, context: Any) -> router_pb2.RouteResponse:
        if request.query == "full":
            raise OverloadedError("too much", retry_after_seconds=1.5)
        if request.query == "crash":
            raise RuntimeError("a secret detail")
        if request.query == "caller":
            return router_pb2.RouteResponse(category=current_caller().name, release=request_id.get())
        return router_pb2.RouteResponse(category=request.query)


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    """Streams numbers for ever unless told otherwise; knows whether its stream was closed."""

    def __init__(self) -> None:
        self.open = 0

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.GenerateResponse]:
        self.open += 1
        try:
            for number in range(int(request.release or 10**6)):
                yield generator_pb2.GenerateResponse(text=f"{number} {current_caller().name}")
                await asyncio.sleep(0)
            raise InvalidInputError("no more numbers")
        finally:
            self.open -= 1

    async def GenerateBatch(self, request: generator_pb2.GenerateBatchRequest, context: Any) -> None:
        """The other way to write a stream."""
        await context.write(generator_pb2.GenerateBatchResponse(text="written"))


@pytest.fixture
async def generator() -> Generator:
    return Generator()


@pytest.fixture
async def running(tmp_path: Path, generator: Generator) -> AsyncIterator[Running]:
    settings, tokens = make_settings(SomeSettings, tmp_path)
    parts = parts_of(
        (router_pb2_grpc.add_RouterServiceServicer_to_server, Router()),
        (generator_pb2_grpc.add_GeneratorServiceServicer_to_server, generator),
        (gateway_pb2_grpc.add_GatewayServiceServicer_to_server, gateway_pb2_grpc.GatewayServiceServicer()),
    )
    async with serve(settings, tokens, parts) as started:
        yield started


async def route(running: Running, query: str, caller: str | None = "internal") -> router_pb2.RouteResponse:
    async with connect(running, caller) as opened:
        return await router_pb2_grpc.RouterServiceStub(opened).Route(router_pb2.RouteRequest(query=query))


async def test_a_call_with_the_scope_is_served_and_knows_its_caller(running: Running) -> None:
    assert (await route(running, "hello")).category == "hello"
    assert (await route(running, "caller", "owner")).category == "owner"


async def test_a_call_without_a_token_is_unauthenticated_and_one_without_the_scope_is_forbidden(
    running: Running,
) -> None:
    for caller, status, code in (
        (None, grpc.StatusCode.UNAUTHENTICATED, "unauthenticated"),
        ("guest", grpc.StatusCode.PERMISSION_DENIED, "forbidden"),
    ):
        with pytest.raises(aio.AioRpcError) as caught:
            await route(running, "hello", caller)
        assert (caught.value.code(), to_error(caught.value).code) == (status, code)


async def test_who_has_no_token_writes_nothing_into_the_log(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(aio.AioRpcError):
        await route(running, "anything", caller=None)
    assert "unauthenticated" not in caplog.text


async def test_a_stream_without_the_scope_is_forbidden_and_never_starts(running: Running, generator: Generator) -> None:
    async with connect(running, "guest") as opened:
        with pytest.raises(aio.AioRpcError) as caught:
            async for _ in generator_pb2_grpc.GeneratorServiceStub(opened).Generate(generator_pb2.GenerateRequest()):
                raise AssertionError("nothing may be sent")
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert generator.open == 0


async def test_a_named_error_carries_status_code_message_and_retry_hint(running: Running) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await route(running, "full")
    error = to_error(caught.value)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(error, OverloadedError)
    assert (error.message, error.retry_after_seconds) == ("too much", 1.5)


async def test_an_unexpected_exception_tells_the_caller_nothing_and_is_logged(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(aio.AioRpcError) as caught:
        await route(running, "crash")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error"
    assert "a secret detail" in caplog.text


async def test_a_stream_sends_its_messages_then_its_error(running: Running, generator: Generator) -> None:
    texts = []
    async with connect(running) as opened:
        with pytest.raises(aio.AioRpcError) as caught:
            request = generator_pb2.GenerateRequest(release="3")
            async for message in generator_pb2_grpc.GeneratorServiceStub(opened).Generate(request):
                texts.append(message.text)
    assert texts == ["0 internal", "1 internal", "2 internal"]
    assert to_error(caught.value).code == "invalid_input"
    assert generator.open == 0


async def test_a_stream_that_is_written_instead_of_yielded_works_too(running: Running) -> None:
    async with connect(running) as opened:
        call = generator_pb2_grpc.GeneratorServiceStub(opened).GenerateBatch(generator_pb2.GenerateBatchRequest())
        assert [message.text async for message in call] == ["written"]


async def test_a_client_that_leaves_closes_the_handler_at_once(running: Running, generator: Generator) -> None:
    async with connect(running) as opened:
        call = generator_pb2_grpc.GeneratorServiceStub(opened).Generate(generator_pb2.GenerateRequest())
        async for _ in call:
            break
        assert generator.open == 1
        call.cancel()
        await until(lambda: generator.open == 0)


async def test_the_request_id_of_the_caller_is_kept_and_otherwise_one_is_made(running: Running) -> None:
    made = (await route(running, "caller")).release
    assert len(made) == 26
    token = request_id.set("from-outside")
    try:
        assert (await route(running, "caller")).release == "from-outside"
    finally:
        request_id.reset(token)


async def test_calls_are_counted_by_method_and_status(running: Running) -> None:
    await route(running, "hello")
    with pytest.raises(aio.AioRpcError):
        await route(running, "full")
    _, metrics = await running.get("/metrics")
    method = 'method="/shammah.v1.RouterService/Route"'
    assert f'shammah_rpc_total{{code="OK",{method},service="test"}} 1.0' in metrics
    assert f'shammah_rpc_total{{code="RESOURCE_EXHAUSTED",{method},service="test"}} 1.0' in metrics
    assert f'shammah_rpc_seconds_count{{{method},service="test"}} 2.0' in metrics


async def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    async with connect(running) as opened:
        call: Any = opened.unary_unary("/shammah.v1.NoService/No")
        with pytest.raises(aio.AioRpcError) as caught:
            await call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_rpc_that_is_not_written_is_an_internal_error_only_for_those_who_may_call_it(running: Running) -> None:
    async with connect(running, "guest") as opened:
        with pytest.raises(aio.AioRpcError) as caught:
            await gateway_pb2_grpc.GatewayServiceStub(opened).Train(gateway_pb2.GatewayServiceTrainRequest())
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_channel_to_nobody_becomes_an_unavailable_error() -> None:
    opened = channel("127.0.0.1:9", "token")
    with pytest.raises(aio.AioRpcError) as caught:
        await router_pb2_grpc.RouterServiceStub(opened).Route(router_pb2.RouteRequest(), timeout=5)
    await opened.close()
    assert to_error(caught.value).code == "unavailable"
