"""What status says of the trainer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from shammah.v1 import trainer_pb2
from shammah_gateway.status import _ask_trainer


@pytest.mark.parametrize(
    ("parked", "told"), [(0, "3 of 32 examples wait"), (8, "8 parked (shammah unpark): the loss is nan")]
)
async def test_examples_that_are_parked_are_told_with_their_reason(parked: int, told: str) -> None:
    async def status() -> trainer_pb2.StatusResponse:
        reason = "the loss is nan" if parked else ""
        return trainer_pb2.StatusResponse(
            device="cpu", queue_size=3, batch_size=32, parked=parked, parked_reason=reason
        )

    gateway = SimpleNamespace(trainer=SimpleNamespace(status=status, target="127.0.0.1:1"))
    part, waiting = await _ask_trainer(cast(Any, gateway))
    assert part.ready and part.detail.endswith(told)
    assert waiting == 3
