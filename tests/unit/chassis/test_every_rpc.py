"""Every rpc of every service asks for a token, and for the scope that its table names, and for no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc import aio
from pydantic_settings import SettingsConfigDict
from shammah.v1 import (
    gateway_pb2_grpc,
    generator_pb2_grpc,
    models_pb2_grpc,
    router_pb2_grpc,
    trainer_pb2_grpc,
    validator_pb2_grpc,
)
from shammah_chassis.scopes import METHOD_SCOPES, SCOPES
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.token_book import write_tokens
from support.services import make_settings, parts_of, serve

STREAMS = ("/shammah.v1.GeneratorService/", "/shammah.v1.ModelService/WatchVersions")
SERVICERS = [
    (gateway_pb2_grpc.add_GatewayServiceServicer_to_server, gateway_pb2_grpc.GatewayServiceServicer()),
    (generator_pb2_grpc.add_GeneratorServiceServicer_to_server, generator_pb2_grpc.GeneratorServiceServicer()),
    (models_pb2_grpc.add_ModelServiceServicer_to_server, models_pb2_grpc.ModelServiceServicer()),
    (router_pb2_grpc.add_RouterServiceServicer_to_server, router_pb2_grpc.RouterServiceServicer()),
    (trainer_pb2_grpc.add_TrainerServiceServicer_to_server, trainer_pb2_grpc.TrainerServiceServicer()),
    (validator_pb2_grpc.add_ValidatorServiceServicer_to_server, validator_pb2_grpc.ValidatorServiceServicer()),
]


class SomeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SHAMMAH_SOME_")


class Caller:
    """Calls any method with an empty request and says how it ended."""

    def __init__(self, link: aio.Channel, tokens: dict[str, str]) -> None:
        self._link = link
        self._tokens = tokens

    async def call(self, method: str, who: str | None) -> tuple[grpc.StatusCode, str]:
        metadata = (("authorization", f"Bearer {self._tokens[who]}"),) if who else ()
        kind = self._link.unary_stream if method.startswith(STREAMS) else self._link.unary_unary
        stub = kind(method, request_serializer=lambda _: b"", response_deserializer=bytes)
        try:
            call = stub(None, metadata=metadata, timeout=10)
            if method.startswith(STREAMS):
                async for _ in call:
                    pass
            else:
                await call
        except aio.AioRpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    settings, _ = make_settings(SomeSettings, tmp_path)
    grants = {f"only-{scope}": [scope] for scope in SCOPES}
    grants |= {f"not-{scope}": [other for other in SCOPES if other != scope] for scope in SCOPES}
    tokens = write_tokens(tmp_path / "tokens.json", grants)
    async with serve(settings, tokens, parts_of(*SERVICERS)) as running, aio.insecure_channel(running.target) as link:
        yield Caller(link, tokens)


async def test_every_rpc_is_refused_without_its_scope_and_let_in_with_nothing_else(caller: Caller) -> None:
    for method, scope in METHOD_SCOPES.items():
        code, words = await caller.call(method, None)
        assert code is grpc.StatusCode.UNAUTHENTICATED, method
        code, words = await caller.call(method, f"not-{scope}")
        assert code is grpc.StatusCode.PERMISSION_DENIED and repr(scope) in words, method
        code, words = await caller.call(method, f"only-{scope}")
        # It came to the handler, and there is none.
        assert code is grpc.StatusCode.INTERNAL and words == "internal error", (method, code, words)
