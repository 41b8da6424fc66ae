"""Consent over the whole gateway: grants at runtime, the audit log, a full disk, masking; the real SDK on the stub."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah.v1 import gateway_pb2_grpc, trainer_pb2_grpc
from shammah_chassis.bus import Bus
from shammah_chassis.channels import channel
from shammah_chassis.errors import ForbiddenError, ShammahError, StorageFullError, UnauthenticatedError
from shammah_chassis.examples import Envelope, Example, Message
from shammah_chassis.releases import Champion, Wanted
from shammah_chassis.serving import Service, ServiceParts
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.status import to_error
from shammah_chassis.token_book import TokenBook
from shammah_gateway.config import GatewaySettings
from shammah_gateway.consent.chain import read_tail, verify
from shammah_gateway.gateway import Gateway
from shammah_gateway.opening import open_gateway
from shammah_gateway.server import SERVICE_NAME, GatewayServicer
from support.example_values import make_example
from support.messages_stub import MessagesStub, serve_messages
from support.scripted_pods import Cluster, run_cluster
from support.scripted_trainer import ScriptedTrainer
from support.services import until, until_async
from support.small_disk import small_disk

__all__ = ["small_disk"]

Reply = TypeVar("Reply")
MAIL = "jane.doe@example.com"
needs_pii = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("datafog", "stdnum")),
    reason="the extra 'pii' is not installed: pip install 'shammah-gateway[pii]'",
)


@dataclass
class World:
    cluster: Cluster
    gateway: Gateway
    stub: MessagesStub
    bus: Bus
    port: int
    folder: Path
    links: AsyncExitStack

    def connect(self, token: str) -> Any:
        link = channel(f"127.0.0.1:{self.port}", token)
        self.links.push_async_callback(link.close)
        return gateway_pb2_grpc.GatewayServiceStub(link)

    @property
    def owner(self) -> Any:
        return self.connect(self.cluster.tokens["owner"])

    @property
    def book(self) -> TokenBook:
        return TokenBook(self.cluster.folder / "tokens.json")

    async def rows(self) -> list[dict[str, Any]]:
        await self.gateway.consent.log.note("mark", caller="", what={})
        return read_tail(self.folder / "gateway", 1000)


@asynccontextmanager
async def run_world(folder: Path, bus: Bus, nats_url: str, **settings: Any) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(run_cluster(folder, nats_url))
        stub = await stack.enter_async_context(serve_messages())
        trainer = Service(ServiceSettings(**cluster.settings("trainer")), name="trainer")

        async def build_trainer() -> ServiceParts:
            add = trainer_pb2_grpc.add_TrainerServiceServicer_to_server
            served = ScriptedTrainer(rows={"capitals": (50, 0), "poems": (0, 0)})
            return ServiceParts([(add, served)], ["shammah.v1.TrainerService"], ready=lambda: True)

        await trainer.start(build_trainer)
        stack.push_async_callback(trainer.stop)
        (folder / "internal.token").write_text(cluster.tokens["internal"])
        (folder / "key").write_text(stub.key)
        values = {
            **cluster.settings("gateway"),
            **{f"{role}_targets": targets for role, targets in cluster.targets.items()},
            "trainer_target": f"127.0.0.1:{trainer.port}",
            "internal_token_file": folder / "internal.token",
            "teacher": "anthropic",
            "anthropic_base_url": stub.url,
            "anthropic_key_file": folder / "key",
            "audit_rate": 0.0,
            "explore_rate": 0.0,
            "role_timeout_seconds": 10.0,
        }
        own = GatewaySettings(**(values | settings))
        opened: list[Gateway] = []

        async def build() -> ServiceParts:
            gateway = await open_gateway(own)
            gateway.start()
            opened.append(gateway)
            add = gateway_pb2_grpc.add_GatewayServiceServicer_to_server
            servicer = GatewayServicer(gateway)
            return ServiceParts([(add, servicer)], [SERVICE_NAME], ready=lambda: True, close=[gateway.close])

        service = Service(own, name="gateway")
        await service.start(build)
        stack.push_async_callback(service.stop)
        # Too weak for any query: all are forwarded.
        cluster.script.quality = 0.1
        first = await cluster.publish_release(verdict="base")
        await bus.kv_create("wanted", Wanted((first.id,)).to_json())
        await bus.kv_create("champion", Champion(first.id).to_json())
        await until(lambda: (now := opened[0].releases.champion()) is not None and now.id == first.id)
        links = await stack.enter_async_context(AsyncExitStack())
        yield World(cluster, opened[0], stub, bus, service.port, own.data_dir, links)


@pytest.fixture
async def world(tmp_path: Path, bus: Bus, nats_server: Any) -> AsyncIterator[World]:
    async with run_world(tmp_path, bus, nats_server.url) as made:
        yield made


async def call(rpc: Awaitable[Reply]) -> Reply:
    try:
        return await rpc
    except grpc.aio.AioRpcError as failure:
        raise to_error(failure) from failure


async def read_log(bus: Bus, count: int) -> list[Example]:
    found: list[Example] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found = [example async for message in bus.read_log(1) for example in Envelope.decode(message.data).examples]
    return found


async def test_claude_may_do_nothing_until_it_is_granted_and_nothing_again_when_that_is_taken(world: World) -> None:
    request = pb.CompareResponsesRequest(query="Where is Rome?", teacher_response="Italy")
    with pytest.raises(UnauthenticatedError):
        await call(world.connect("a-guess").CompareResponses(request))
    claude = world.connect(world.book.grant("claude", ["ask"]).token)

    def holds(*scopes: str) -> bool:
        """Say whether the gateway's own table knows this grant: then it was noted."""
        entries = world.gateway.consent.tokens.entries
        return [entry.scopes for entry in entries if entry.name == "claude"] == [frozenset(scopes)]

    async def ends_as(wanted: type[ShammahError] | None) -> bool:
        try:
            await call(claude.CompareResponses(request))
        except (ForbiddenError, UnauthenticatedError) as error:
            if isinstance(error, ForbiddenError):
                assert "shammah tokens grant claude compare" in error.message
            return type(error) is wanted
        return wanted is None

    await until_async(lambda: ends_as(ForbiddenError))
    await until(lambda: holds("ask"))
    world.book.grant("claude", ["compare"])
    await until_async(lambda: ends_as(None))
    await until(lambda: holds("ask", "compare"))
    world.book.revoke("claude", ["compare"])
    await until_async(lambda: ends_as(ForbiddenError))
    await until(lambda: holds("ask"))
    grants = [row["what"] for row in await world.rows() if row["event"] == "grants"]
    assert [(row["before"], row["after"]) for row in grants] == [
        (None, ["ask"]),
        (["ask"], ["ask", "compare"]),
        (["ask", "compare"], ["ask"]),
    ]


async def test_a_job_ends_with_the_grant_that_it_was_started_by(world: World) -> None:
    claude = world.connect(world.book.grant("claude", ["compare"]).token)
    # Its work waits at the student until the scope is taken away.
    world.cluster.script.gates["compare"] = asyncio.Event()
    request = pb.CompareResponsesRequest(query="Where is Rome?", teacher_response="Italy")
    ended: list[ShammahError] = []

    async def ask() -> bool:
        try:
            await call(claude.CompareResponses(request))
        except UnauthenticatedError:
            return False  # the new token is not known yet
        except ShammahError as error:
            ended.append(error)
        return True

    asking = asyncio.create_task(until_async(ask))
    await until(lambda: bool(world.gateway.jobs.running(owner="claude")))
    world.book.revoke("claude", ["compare"])
    await asking
    (error,) = ended
    assert isinstance(error, ForbiddenError) and "shammah tokens grant claude compare" in error.message
    assert world.gateway.jobs.running() == []


async def test_the_log_tells_who_did_what_what_left_and_what_it_changed_and_no_text(world: World) -> None:
    await call(world.owner.CompareResponses(pb.CompareResponsesRequest(query="a private question")))
    example = json.dumps(make_example(query="a private example").to_json())
    await call(world.owner.SubmitExamples(pb.SubmitExamplesRequest(example_json=[example])))
    answer = await call(world.owner.Ask(pb.AskRequest(messages=[{"role": "user", "content": "a private query"}])))
    await call(world.owner.SendFeedback(pb.SendFeedbackRequest(query_id=answer.query_id, rating=1)))
    second = await world.cluster.publish_release(verdict="promote")
    await call(world.owner.PromoteRelease(pb.PromoteReleaseRequest(release=second.id)))
    await call(world.owner.RollbackRelease(pb.RollbackReleaseRequest()))
    await call(world.owner.PinRelease(pb.PinReleaseRequest(release=second.id, pinned=True)))
    world.gateway.consent.counts.flush(world.gateway.consent.log)
    rows = await world.rows()
    told = {(row["event"], row["what"].get("name") or row["what"].get("source") or "") for row in rows}
    assert {
        ("start", ""),
        ("tool", "compare_responses"),
        ("tool_done", "compare_responses"),
        ("teacher", ""),
        ("order", "submit_examples"),
        ("queue", "submit"),
        ("queue", "feedback"),
        ("order", "promote"),
        ("order_done", "rollback"),
        ("order", "pin"),
        ("release_serves", ""),
        ("traffic", ""),
    } <= told
    sent = next(row for row in rows if row["event"] == "teacher")
    assert sent["caller"] == "owner" and sent["what"]["purpose"] == "compare"
    assert sent["what"]["hosts"] == [world.stub.url.partition("://")[2]]
    assert sent["what"]["bytes"] == len("a private question")
    done = next(row for row in rows if (row["event"], row["what"].get("name")) == ("order_done", "promote"))
    assert (done["what"]["champion"], done["what"]["outcome"]) == (second.id, "done")
    traffic = {row["caller"]: row["what"]["counts"] for row in rows if row["event"] == "traffic"}
    assert traffic["owner"]["answered teacher"]["count"] == 1
    assert traffic["owner"][f"sent {sent['what']['hosts'][0]}"]["bytes"] == len("a private query")
    text = (world.folder / "gateway" / "audit.jsonl").read_text()
    assert "private" not in text and verify(world.folder / "gateway").problem == ""
    status = await call(world.owner.GetStatus(pb.GetStatusRequest()))
    assert next(part for part in status.parts if part.name == "audit log").ready


async def test_with_a_full_disk_tools_and_orders_are_refused_and_queries_go_on(
    tmp_path: Path, bus: Bus, nats_server: Any, small_disk: Path
) -> None:
    async with run_world(
        tmp_path, bus, nats_server.url, data_dir=small_disk / "data", store_url=f"dir:{tmp_path}/store"
    ) as world:
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as target, pytest.raises(OSError, match="No space"):
            while True:
                target.write(b"x" * 512)
        asked = len(world.stub.requests)
        query = "a question " * 10

        async def is_refused() -> bool:
            # The last page of the file may have had room.
            try:
                await call(world.owner.CompareResponses(pb.CompareResponsesRequest(query=query)))
            except StorageFullError as error:
                assert "can't be noted" in error.message
                return True
            return False

        await until_async(is_refused)
        asked = len(world.stub.requests)
        assert await is_refused() and len(world.stub.requests) == asked
        with pytest.raises(StorageFullError):
            await call(world.owner.QueryLocalModel(pb.QueryLocalModelRequest(query=query)))
        with pytest.raises(StorageFullError):
            await call(world.owner.RollbackRelease(pb.RollbackReleaseRequest()))
        told = await call(
            world.owner.Ask(pb.AskRequest(messages=[{"role": "user", "content": "Where?"}], no_learn=True))
        )
        assert told.text == "Paris" and told.route == pb.ROUTE_TEACHER
        status = await call(world.owner.GetStatus(pb.GetStatusRequest()))
        assert any("tools and teaching are refused, queries go on" in text for text in status.warnings)
        filler.unlink()
        await call(world.owner.CompareResponses(pb.CompareResponsesRequest(query=query)))
        assert verify(world.folder / "gateway").problem == ""


@needs_pii
async def test_tools_send_and_store_masked_texts_and_a_users_own_query_is_sent_as_it_is(
    tmp_path: Path, bus: Bus, nats_server: Any
) -> None:
    async with run_world(tmp_path, bus, nats_server.url, mask_pii=True) as world:
        world.stub.text = f"It is {MAIL}."
        await call(world.owner.CompareResponses(pb.CompareResponsesRequest(query=f"Who is {MAIL}?")))
        assert MAIL not in json.dumps(world.stub.requests) and "<EMAIL_ADDRESS>" in json.dumps(world.stub.requests)
        messages = [{"role": "user", "content": f"Write to {MAIL}"}]
        answer = await call(world.owner.Ask(pb.AskRequest(messages=messages)))
        assert MAIL in json.dumps(world.stub.requests[-1]) and answer.text == f"It is {MAIL}."
        await call(
            world.owner.SendFeedback(
                pb.SendFeedbackRequest(query_id=answer.query_id, rating=-1, correction=f"Say {MAIL}")
            )
        )
        example = make_example(query=f"Mail of Jane: {MAIL}").to_json()
        await call(world.owner.SubmitExamples(pb.SubmitExamplesRequest(example_json=[json.dumps(example)])))
        found = await read_log(world.bus, 3)
        assert len(found) == 3
        for row in found:
            assert MAIL not in json.dumps(row.to_json()) and "<EMAIL_ADDRESS>" in json.dumps(row.to_json())
        assert Message("user", "Write to <EMAIL_ADDRESS>") in [row.query[-1] for row in found]
        for path in (tmp_path / "gateway").rglob("*"):
            assert not path.is_file() or MAIL.encode() not in path.read_bytes(), path
        status = await call(world.owner.GetStatus(pb.GetStatusRequest()))
        masking = next(part for part in status.parts if part.name == "masking")
        assert "EMAIL_ADDRESS" in masking.detail
        sent = next(row for row in await world.rows() if row["event"] == "teacher")
        assert sent["what"]["purpose"] == "compare"


async def test_nobody_with_the_scope_audit_means_a_promise_that_is_not_monitored(
    tmp_path: Path, bus: Bus, nats_server: Any
) -> None:
    async with run_world(tmp_path, bus, nats_server.url, audit_rate=0.5) as world:
        assert (await call(world.owner.GetStatus(pb.GetStatusRequest()))).promise.startswith("monitored")
        rows = json.loads((tmp_path / "tokens.json").read_text())["tokens"]
        kept = [{**row, "scopes": [scope for scope in row["scopes"] if scope != "audit"]} for row in rows]
        (tmp_path / "tokens.json").write_text(json.dumps({"tokens": kept}))
        await until(lambda: not world.gateway.consent.may_audit())
        told = (await call(world.owner.GetStatus(pb.GetStatusRequest()))).promise
        assert told == "promise not monitored: no token has the scope audit; shammah tokens grant NAME audit"
