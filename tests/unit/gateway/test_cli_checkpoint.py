"""`shammah checkpoint` against a gateway whose replies are set."""

from __future__ import annotations

import asyncio
import os
import sys

from shammah.v1 import gateway_pb2 as pb
from shammah_chassis.errors import PreconditionError
from support.scripted_gateway import serve_scripted


async def test_it_prints_the_checkpoint_and_its_release_or_that_none_serves() -> None:
    async with serve_scripted() as gateway:

        async def checkpoint() -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "shammah_gateway.cli", "checkpoint"),
                env={**os.environ, "SHAMMAH_GATEWAY": gateway.address, "SHAMMAH_TOKEN": "t0ken"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            return process.returncode, output.decode()

        names = "01J0000000000000000000000C", "01J0000000000000000000000R"
        gateway.replies["TakeCheckpoint"] = pb.TakeCheckpointResponse(id=names[0], release=names[1])
        assert await checkpoint() == (0, f"checkpoint {names[0]} of release {names[1]}\n")
        assert [method for method, _ in gateway.asked] == ["TakeCheckpoint"]
        gateway.failures = [PreconditionError("no release serves yet")]
        code, told = await checkpoint()
        assert code == 1 and "no release serves yet" in told
