import asyncio
from collections.abc import AsyncIterator

import pytest
from shammah_chassis.admin import AdminServer
from shammah_chassis.errors import UnavailableError
from support.services import send_http


class Switch:
    ready = False


@pytest.fixture
async def switch() -> Switch:
    return Switch()


@pytest.fixture
async def admin(switch: Switch) -> AsyncIterator[AdminServer]:
    server = AdminServer(ready=lambda: switch.ready, metrics=lambda: b"some_metric 1.0\n")
    await server.start("127.0.0.1", 0)
    yield server
    await server.close()


async def ask(admin: AdminServer, line: str) -> tuple[str, str]:
    answer = await send_http(admin.port, f"{line}\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition("\r\n\r\n")
    return head.split("\r\n")[0], body


async def test_a_process_that_runs_is_alive_whether_ready_or_not(admin: AdminServer, switch: Switch) -> None:
    assert await ask(admin, "GET /livez HTTP/1.1") == ("HTTP/1.1 200 OK", "alive\n")
    assert await ask(admin, "GET /readyz HTTP/1.1") == ("HTTP/1.1 503 Service Unavailable", "not ready\n")
    switch.ready = True
    assert await ask(admin, "GET /readyz?verbose HTTP/1.1") == ("HTTP/1.1 200 OK", "ready\n")


async def test_metrics_are_shown_and_head_sends_no_body(admin: AdminServer) -> None:
    assert await ask(admin, "GET /metrics HTTP/1.1") == ("HTTP/1.1 200 OK", "some_metric 1.0\n")
    assert await ask(admin, "HEAD /metrics HTTP/1.1") == ("HTTP/1.1 200 OK", "")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /secret HTTP/1.1", "404"),
        ("POST /livez HTTP/1.1", "405"),
        ("nonsense", "400"),
        ("GET /livez SPDY/3", "400"),
        ("GET /" + "x" * 20_000 + " HTTP/1.1", "400"),
    ],
)
async def test_other_requests_are_refused_by_status(admin: AdminServer, line: str, status: str) -> None:
    assert (await ask(admin, line))[0].split()[1] == status


async def test_a_port_that_is_taken_is_an_error(admin: AdminServer) -> None:
    second = AdminServer(ready=lambda: True, metrics=lambda: b"")
    with pytest.raises(UnavailableError, match=str(admin.port)):
        await second.start("127.0.0.1", admin.port)
    await second.close()


async def test_a_client_that_hangs_up_early_harms_nobody(admin: AdminServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", admin.port)
    writer.write(b"GET /li")
    writer.close()
    await writer.wait_closed()
    assert (await ask(admin, "GET /livez HTTP/1.1"))[1] == "alive\n"
