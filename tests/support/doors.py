"""A whole gateway as a process of its own, with its gRPC and HTTP doors, before a strict Messages stub as the teacher.

Event bus and pods are real, the roles are scripted. It runs beside the test, so that tests use the synchronous clients
as users do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from shammah_chassis.bus import Bus
from shammah_chassis.examples import Envelope, Example
from shammah_chassis.nats_server import NatsServer
from shammah_chassis.releases import Champion, Release, Wanted
from shammah_client import Client
from shammah_client.errors import ShammahError
from shammah_client.money import MoneySpent
from shammah_client.retry import RetryPolicy
from support.messages_stub import MessagesStub, serve_messages
from support.scripted_pods import Cluster, run_cluster
from support.whole import wait_until

T = TypeVar("T")
START_SECONDS = 60.0


@dataclass(frozen=True)
class Reply:
    """What an HTTP request got; names of `headers` in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Doors:
    """A running gateway: `url` of its HTTP, `address` of its gRPC, `folder` a data folder as `shammah up` has it."""

    folder: Path
    url: str
    address: str
    cluster: Cluster
    stub: MessagesStub
    release: Release
    bus: Bus
    loop: asyncio.AbstractEventLoop
    client: Client = field(repr=False)

    @property
    def token(self) -> str:
        """The owner's token."""
        return self.cluster.tokens["owner"]

    def run(self, work: Awaitable[T]) -> T:
        """Run a coroutine in the loop of the servers."""

        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(timeout=30)

    def reset(self) -> None:
        """Forget what the last test set and asked."""
        fresh = MessagesStub(url=self.stub.url, key=self.stub.key)
        for name in ("text", "stop_reason", "replies", "usage", "faults", "requests", "calls", "seen", "hung_up"):
            setattr(self.stub, name, getattr(fresh, name))
        self.stub.threads.forget()
        self.stub.threads.off = False
        self.cluster.script.quality = 0.9

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send raw bytes; header names with _ for -."""
        named = {
            "authorization": f"Bearer {self.token}",
            "anthropic-version": "2026-10-21",
            "content-type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        request = urllib.request.Request(self.url + path, data=body, headers=named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as got:
                return Reply(got.status, {k.lower(): v for k, v in got.headers.items()}, got.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def spent(self) -> MoneySpent:
        """What answers have cost so far."""
        money = self.client.get_status().money
        assert money is not None
        return next((one for one in money.spent if one.purpose == "answer"), _NOTHING)

    def examples(self, query: str) -> list[Example]:
        """Examples in the log whose last user turn is `query`."""

        async def read() -> list[Example]:
            found: list[Example] = []
            async for message in self.bus.read_log(1):
                found += Envelope.decode(message.data).examples
            return [example for example in found if example.query_text == query]

        return self.run(read())

    def wait_for_example(self, query: str) -> Example:
        """Wait until an example of a query is in the log."""
        return wait_until(lambda: self.examples(query), seconds=20, what=f"an example of {query!r}")[0]


_NOTHING = MoneySpent(
    purpose="answer",
    calls=0,
    unknown_calls=0,
    input_tokens=0,
    cache_write_tokens=0,
    cache_read_tokens=0,
    output_tokens=0,
    usd="0",
)


@contextmanager
def run_doors(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Doors]:
    """Run a gateway with its doors while the block runs; `settings` by their names without the prefix."""
    server = NatsServer.start(folder / "nats")
    started: list[Doors] = []
    failed: list[BaseException] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        try:
            async with _open_doors(folder, server.url, settings or {}) as doors:
                started.append(doors)
                ready.set()
                await stop.wait()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            ready.set()

    def work() -> None:
        with contextlib.suppress(BaseException):
            loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=work, name="doors")
    thread.start()
    try:
        ready.wait()
        if failed:
            raise failed[0]
        yield started[0]
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=60)
        server.stop()
    if failed:
        raise failed[0]


@asynccontextmanager
async def _open_doors(folder: Path, nats_url: str, settings: Mapping[str, str]) -> AsyncIterator[Doors]:
    async with AsyncExitStack() as stack:
        bus = await Bus.connect(nats_url)
        stack.push_async_callback(bus.close)
        await bus.ensure()
        stub = await stack.enter_async_context(serve_messages())
        cluster = await stack.enter_async_context(run_cluster(folder, nats_url))
        release = await cluster.publish_release(verdict="base")
        await bus.kv_create("wanted", Wanted((release.id,)).to_json())
        await bus.kv_create("champion", Champion(release.id).to_json())
        ports = await stack.enter_async_context(_run_process(folder, _write_settings(cluster, stub, settings)))
        address = f"127.0.0.1:{ports['port']}"
        (folder / "run").mkdir(exist_ok=True)
        (folder / "run/up.json").write_text(json.dumps({"gateway": address}))
        (folder / "owner.token").write_text(cluster.tokens["owner"] + "\n")
        client = Client(address, token=cluster.tokens["owner"], retry=RetryPolicy(attempts=10, first_pause=0.2))
        stack.callback(client.close)
        url = f"http://127.0.0.1:{ports['http_port']}"
        loop = asyncio.get_running_loop()
        doors = Doors(folder, url, address, cluster, stub, release, bus, loop, client)
        await asyncio.to_thread(_wait_until_ready, doors)
        yield doors


def _wait_until_ready(doors: Doors) -> None:
    """Wait until the gateway serves the release and answers by HTTP."""

    def serves() -> bool:
        # Parts are ready before they hold the release: only an answer shows that all of them do.
        try:
            answer = doors.client.ask("Are you there?", local_only=True, no_learn=True)
        except ShammahError:
            return False
        return answer.route == "local" and answer.versions.release == doors.release.id

    wait_until(serves, seconds=START_SECONDS, what="the gateway")
    wait_until(lambda: doors.send("GET", "/v1/models").status == 200, seconds=START_SECONDS, what="the HTTP doors")


def _write_settings(cluster: Cluster, stub: MessagesStub, settings: Mapping[str, str]) -> dict[str, str]:
    folder = cluster.folder
    (folder / "internal.token").write_text(cluster.tokens["internal"])
    (folder / "anthropic.key").write_text(stub.key)
    named = {
        **{name: str(value) for name, value in cluster.settings("gateway").items()},
        **{f"{role}_targets": ",".join(targets) for role, targets in cluster.targets.items()},
        "internal_token_file": str(folder / "internal.token"),
        "ready_file": str(folder / "gateway.ready.json"),
        "teacher": "anthropic",
        "anthropic_base_url": stub.url,
        "anthropic_key_file": str(folder / "anthropic.key"),
        "teacher_attempts": "1",
        # Faults are a test's own: the breaker of one must not refuse the next.
        "breaker_failures": "100000",
        "breaker_share": "1",
        "audit_rate": "0",
        "explore_rate": "0",
        "role_timeout_seconds": "10",
        "http_port": "0",
        **settings,
    }
    return {f"SHAMMAH_GATEWAY_{name.upper()}": value for name, value in named.items()}


@asynccontextmanager
async def _run_process(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[dict[str, int]]:
    """Run `python -m shammah_gateway`; yields its ports once it is ready."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHAMMAH_", "ANTHROPIC_"))}
    ready = Path(settings["SHAMMAH_GATEWAY_READY_FILE"])
    log = folder / "gateway.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shammah_gateway"), env={**kept, **settings}, stdout=out, stderr=out
        )
    try:
        await _wait_for(lambda: ready.exists() or process.returncode is not None)
        if process.returncode is not None:
            raise AssertionError(f"the gateway ended with {process.returncode}:\n{log.read_text('utf-8')[-4000:]}")
        yield json.loads(await asyncio.to_thread(ready.read_text, "utf-8"))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _wait_for(probe: Callable[[], bool]) -> None:
    async with asyncio.timeout(START_SECONDS):
        while not probe():
            await asyncio.sleep(0.05)
