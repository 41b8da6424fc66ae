"""`shammah unpark` against a gateway whose replies are set."""

from __future__ import annotations

import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah_chassis.errors import NotFoundError
from support.scripted_gateway import run_command, serve_scripted


@pytest.mark.parametrize(("words", "category"), [([], ""), (["poems"], "poems")])
async def test_it_says_how_many_are_queued_again_or_that_none_is_parked(words: list[str], category: str) -> None:
    async with serve_scripted() as gateway:
        gateway.replies["UnparkExamples"] = pb.GatewayServiceUnparkExamplesResponse(examples=3, categories=["poems"])
        code, told = await run_command(gateway, "unpark", *words)
        assert (code, told) == (0, "queued again: 3 examples of poems\n")
        ((method, request),) = gateway.asked
        assert (method, request.category) == ("UnparkExamples", category)  # type: ignore[attr-defined]
        gateway.failures = [NotFoundError("no example is parked")]
        code, told = await run_command(gateway, "unpark", *words)
        assert code == 1 and "no example is parked" in told
