"""`shammah checkpoint` against a gateway whose replies are set."""

from __future__ import annotations

from shammah.v1 import gateway_pb2 as pb
from shammah_chassis.errors import PreconditionError
from support.scripted_gateway import run_command, serve_scripted


async def test_it_prints_the_checkpoint_and_its_release_or_that_none_serves() -> None:
    async with serve_scripted() as gateway:
        names = "01J0000000000000000000000C", "01J0000000000000000000000R"
        gateway.replies["TakeCheckpoint"] = pb.TakeCheckpointResponse(id=names[0], release=names[1])
        assert await run_command(gateway, "checkpoint") == (0, f"checkpoint {names[0]} of release {names[1]}\n")
        assert [method for method, _ in gateway.asked] == ["TakeCheckpoint"]
        gateway.failures = [PreconditionError("no release serves yet")]
        code, told = await run_command(gateway, "checkpoint")
        assert code == 1 and "no release serves yet" in told
