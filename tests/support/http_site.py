"""The HTTP doors on a free loopback port, over a scripted cascade and the strict Messages stub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from shammah_chassis.scopes import Caller
from shammah_chassis.tokens import TokenTable, hash_token
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.http.app import make_app
from shammah_gateway.http.auth import Gatekeeper
from shammah_gateway.http.door import Door
from shammah_gateway.http.serve import HttpServer
from shammah_gateway.http.settings import HttpSettings
from shammah_gateway.http.upstream import UpstreamClient
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.teachers.breaker import Breaker, BreakerLimits
from shammah_gateway.teachers.upstreams import Upstream, Upstreams
from shammah_gateway.values import Judged
from support.gateway import Bench, make_ledger
from support.messages_stub import MessagesStub, serve_messages

TOKEN = "owner-token"
OTHER_TOKEN = "other-token"
TEACHER_MODEL = "claude-sonnet-5-5"


@dataclass
class Site:
    """What runs: the parts behind the doors, the stub upstream, and the address."""

    bench: Bench
    stub: MessagesStub
    ledger: Ledger
    upstreams: Upstreams
    url: str

    def forward(self) -> None:
        """Let the student be too weak from now on, so that the cascade forwards."""
        self.bench.roles.judged = Judged(0.1, 0.2, 0.9, 0.9, 0.1, "low", False, "v1")


@asynccontextmanager
async def serve_site(
    *,
    bench: Bench | None = None,
    more: list[Upstream] | None = None,
    bytes_taken: bool = True,
    caps: dict[str, Any] | None = None,
    teachers: tuple[str, ...] = ("anthropic",),
    **settings: Any,
) -> AsyncIterator[Site]:
    """Serve while the block runs. `more` upstreams stand before the stub; `bytes_taken` False: there are none.

    `teachers` are the names of all teachers; those of the upstreams take bytes.
    """
    bench = bench or Bench()
    ledger = make_ledger(**(caps or {}))
    async with AsyncExitStack() as stack:
        stub = await stack.enter_async_context(serve_messages())
        own = Upstream(
            name="anthropic",
            protocol="messages",
            base_url=stub.url,
            headers={"x-api-key": stub.key},
            model=TEACHER_MODEL,
        )
        # A stub that fails on demand is not to be left alone.
        limits = BreakerLimits(failures=1000, share=1.0)
        upstreams = Upstreams([(one, Breaker(one.name, limits)) for one in [*(more or []), own]])
        client = await stack.enter_async_context(UpstreamClient(upstreams)) if bytes_taken else None
        callers = {
            hash_token(TOKEN): Caller("owner", frozenset({"ask", "audit"})),
            hash_token(OTHER_TOKEN): Caller("other", frozenset({"ask"})),
        }
        door = Door(
            FrontDesk(bench.cascade, bench.monitor, FeedbackDesk(bench.sink, daily_weight=200), ledger),
            Gatekeeper(TokenTable(callers), let_anybody=settings.get("http_credentials") == "client"),
            HttpSettings.model_validate(settings),
            client,
            ledger,
            (TEACHER_MODEL,),
            teachers,
        )
        server = HttpServer(make_app(door), drain_seconds=1)
        await server.start("127.0.0.1", 0)
        try:
            yield Site(bench, stub, ledger, upstreams, f"http://127.0.0.1:{server.port}")
        finally:
            stub.hold.set()
            await server.close()
