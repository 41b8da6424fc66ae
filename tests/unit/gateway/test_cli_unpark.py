"""`shammah unpark` against a gateway whose replies are set."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from shammah.v1 import gateway_pb2 as pb
from shammah_chassis.errors import NotFoundError
from support.scripted_gateway import serve_scripted


@pytest.mark.parametrize(("words", "category"), [([], ""), (["poems"], "poems")])
async def test_it_says_how_many_are_queued_again_or_that_none_is_parked(words: list[str], category: str) -> None:
    async with serve_scripted() as gateway:

        async def unpark() -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "shammah_gateway.cli", "unpark", *words),
                env={**os.environ, "SHAMMAH_GATEWAY": gateway.address, "SHAMMAH_TOKEN": "t0ken"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            return process.returncode, output.decode()

        gateway.replies["UnparkExamples"] = pb.GatewayServiceUnparkExamplesResponse(examples=3, categories=["poems"])
        code, told = await unpark()
        assert (code, told) == (0, "queued again: 3 examples of poems\n")
        ((method, request),) = gateway.asked
        assert (method, request.category) == ("UnparkExamples", category)  # type: ignore[attr-defined]
        gateway.failures = [NotFoundError("no example is parked")]
        code, told = await unpark()
        assert code == 1 and "no example is parked" in told
