import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic_settings import SettingsConfigDict
from shammah.v1 import router_pb2, router_pb2_grpc
from shammah_chassis.errors import InvalidInputError, UnavailableError
from shammah_chassis.metrics import Reading
from shammah_chassis.serving import Service, ServiceParts, run_service
from shammah_chassis.settings import ServiceSettings
from support.services import connect, make_settings, parts_of, serve, until, until_async

ROUTER = "shammah.v1.RouterService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class SomeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SHAMMAH_SOME_")


class Router(router_pb2_grpc.RouterServiceServicer):
    async def Route(self, request: router_pb2.RouteRequest, context: Any) -> router_pb2.RouteResponse:
        return router_pb2.RouteResponse(category=request.query)


PAIR = (router_pb2_grpc.add_RouterServiceServicer_to_server, Router())


async def check(opened: aio.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(opened)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_health_and_readiness_follow_the_service_and_need_no_token(tmp_path: Path) -> None:
    settings, tokens = make_settings(SomeSettings, tmp_path)
    state = {"ready": False}
    build = parts_of(PAIR, ready=lambda: state["ready"])
    async with serve(settings, tokens, build) as running, connect(running, None) as opened:
        for service in ("", ROUTER):
            assert await check(opened, service) == NOT_SERVING
        assert (await running.get("/readyz"))[0] == 503
        state["ready"] = True

        async def serving() -> bool:
            return await check(opened, "") == await check(opened, ROUTER) == SERVING

        await until_async(serving)
        assert (await running.get("/readyz"))[0] == 200
        assert (await running.get("/livez"))[0] == 200


async def test_reflection_names_the_services(tmp_path: Path) -> None:
    settings, tokens = make_settings(SomeSettings, tmp_path)
    async with serve(settings, tokens, parts_of(PAIR)) as running, connect(running, None) as opened:
        stub = reflection_pb2_grpc.ServerReflectionStub(opened)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await anext(aiter(call))
    assert ROUTER in {service.name for service in answer.list_services_response.service}


async def test_the_ready_file_names_the_ports_and_goes_away_at_the_end(tmp_path: Path) -> None:
    settings, tokens = make_settings(SomeSettings, tmp_path)
    path = tmp_path / "run" / "ready.json"
    async with serve(settings, tokens, parts_of(PAIR)) as running:
        written = json.loads(path.read_text())
        assert written == {"port": running.service.port, "admin_port": running.service.admin_port, "pid": os.getpid()}
        assert 0 not in written.values()
    assert not path.exists()


async def test_readings_of_the_parts_are_shown(tmp_path: Path) -> None:
    settings, tokens = make_settings(SomeSettings, tmp_path)
    readings = [
        Reading("some_level", "A level.", lambda: 3.5),
        Reading("some_count", "A count.", lambda: 2, total=True),
    ]
    async with serve(settings, tokens, parts_of(PAIR, readings=readings)) as running:
        _, metrics = await running.get("/metrics")
    assert 'some_level{service="test"} 3.5' in metrics
    assert 'some_count_total{service="test"} 2.0' in metrics


async def test_the_stop_is_in_order_and_the_last_health_is_not_serving(tmp_path: Path) -> None:
    settings, tokens = make_settings(SomeSettings, tmp_path)
    steps: list[str] = []

    def step(name: str) -> Any:
        async def run() -> None:
            steps.append(name)

        return run

    build = parts_of(PAIR, before_stop=[step("streams")], close=[step("engines"), step("bus")])
    statuses: list[int] = []
    async with serve(settings, tokens, build) as running, connect(running, None) as opened:

        async def watch() -> None:
            call = health_pb2_grpc.HealthStub(opened).Watch(health_pb2.HealthCheckRequest(service=""))
            async for answer in call:
                statuses.append(answer.status)

        watcher = asyncio.create_task(watch())
        await until(lambda: statuses == [SERVING])
        # An open watch must not hold up the stop until its grace is over.
        async with asyncio.timeout(settings.drain_seconds - 1):
            await running.service.stop()
        await asyncio.gather(watcher, return_exceptions=True)
    assert statuses == [SERVING, NOT_SERVING]
    assert steps[:3] == ["streams", "engines", "bus"]


async def test_a_service_does_not_start_without_tokens(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="tokens"):
        await run_service(SomeSettings(data_dir=tmp_path), name="test", build=parts_of(PAIR))


async def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    settings, tokens = make_settings(SomeSettings, tmp_path)
    async with serve(settings, tokens, parts_of(PAIR)) as running:
        taken, _ = make_settings(SomeSettings, tmp_path / "b", port=running.service.port)
        with pytest.raises(UnavailableError, match=str(running.service.port)):
            await run_service(taken, name="second", build=parts_of(PAIR))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_service(tmp_path: Path, number: signal.Signals) -> None:
    settings, _ = make_settings(SomeSettings, tmp_path)
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    run = asyncio.create_task(run_service(settings, name="test", build=parts_of(PAIR, close=[close])))
    await until((tmp_path / "run" / "ready.json").exists)
    os.kill(os.getpid(), number)
    async with asyncio.timeout(5):
        await run
    assert closed.is_set()


async def test_a_stop_while_the_parts_are_built_does_not_wait_for_them(tmp_path: Path) -> None:
    settings, _ = make_settings(SomeSettings, tmp_path)
    stop, building = asyncio.Event(), asyncio.Event()

    async def build() -> ServiceParts:
        building.set()
        await asyncio.Event().wait()
        raise AssertionError

    run = asyncio.create_task(run_service(settings, name="test", build=build, stop=stop))
    await building.wait()
    stop.set()
    async with asyncio.timeout(5):
        await run


async def test_a_service_that_never_started_can_be_stopped(tmp_path: Path) -> None:
    settings, _ = make_settings(SomeSettings, tmp_path)
    await Service(settings, name="test").stop()


async def test_the_ready_file_names_further_ports_of_a_service(tmp_path: Path) -> None:
    settings, tokens = make_settings(ServiceSettings, tmp_path)
    async with serve(settings, tokens, parts_of(ports={"http_port": 8123})):
        assert json.loads((tmp_path / "run/ready.json").read_text("utf-8"))["http_port"] == 8123
