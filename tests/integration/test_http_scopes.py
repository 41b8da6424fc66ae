"""Every HTTP route asks for a token and for its scope, over the wire."""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import AsyncIterator

import anyio.to_thread
import pytest
from shammah_chassis.scopes import SCOPES, Caller
from shammah_chassis.tokens import TokenTable, hash_token
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.http.app import make_app
from shammah_gateway.http.auth import ROUTE_SCOPES, Gatekeeper
from shammah_gateway.http.door import Door
from shammah_gateway.http.serve import HttpServer
from shammah_gateway.http.settings import HttpSettings
from support.gateway import Bench


@pytest.fixture
async def port() -> AsyncIterator[int]:
    bench = Bench()
    desk = FrontDesk(bench.cascade, bench.monitor, FeedbackDesk(bench.sink, daily_weight=10))
    grants = {f"only-{scope}": {scope} for scope in SCOPES} | {f"not-{scope}": {*SCOPES} - {scope} for scope in SCOPES}
    table = TokenTable({hash_token(name): Caller(name, frozenset(scopes)) for name, scopes in grants.items()})
    door = Door(desk, Gatekeeper(table), HttpSettings.model_validate({}))
    server = HttpServer(make_app(door), drain_seconds=1)
    await server.start("127.0.0.1", 0)
    yield server.port
    await server.close()


async def send(port: int, method: str, path: str, token: str) -> tuple[int, str]:
    def run() -> tuple[int, str]:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        link.request(method, path, body=b"{}", headers={**headers, "content-type": "application/json"})
        answer = link.getresponse()
        return answer.status, answer.read().decode()

    return await anyio.to_thread.run_sync(run)


@pytest.mark.parametrize(("method", "path"), [route for route, scope in ROUTE_SCOPES.items() if scope])
async def test_a_route_is_refused_without_its_scope_and_needs_no_other(port: int, method: str, path: str) -> None:
    scope = ROUTE_SCOPES[method, path]
    path = path.replace("{batch_id}", "msgbatch_1").replace("{model_id:path}", "shammah-auto")
    status, body = await send(port, method, path, "")
    assert status == 401 and "token is needed" in body
    status, body = await send(port, method, path, "nobody")
    assert status == 401
    status, body = await send(port, method, path, f"not-{scope}")
    error = json.loads(body)["error"]
    assert status == 403 and f"needs the scope {scope!r}" in error["message"]
    assert f"shammah tokens grant not-{scope} {scope}" in error["message"]
    status, body = await send(port, method, path, f"only-{scope}")
    assert status not in (401, 403), body


async def test_who_has_no_token_writes_nothing_into_the_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        status, _ = await send(port, "POST", "/v1/messages", "nobody")
    assert status == 401 and "unauthenticated" not in caplog.text
