"""Calls of the tools by the command line."""

from __future__ import annotations

from typing import Any, cast

import pytest
from shammah.v1 import gateway_pb2, types_pb2
from shammah_chassis.errors import BudgetError, InvalidInputError
from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.main import ORDER_SECONDS
from shammah_gateway.cli.manage import call_tool
from shammah_gateway.config import GatewaySettings


class FakeClient:
    """Answers each call with a job that has failed."""

    class stub:
        GenerateTrainingData = "GenerateTrainingData"

    async def call(self, method: object, request: object, **options: Any) -> gateway_pb2.GenerateTrainingDataResponse:
        job = types_pb2.Job(
            id="J", state=types_pb2.JOB_STATE_FAILED, error_code=BudgetError.code, error_message="all spent"
        )
        return gateway_pb2.GenerateTrainingDataResponse(job=job)


async def test_a_job_that_failed_is_told_by_its_own_code() -> None:
    with pytest.raises(BudgetError, match=r"^all spent$"):
        await call_tool(cast("GatewayClient", FakeClient()), "generate_training_data", {"category": "a"}, wait=True)


async def test_an_empty_query_is_told_to_be_empty() -> None:
    with pytest.raises(InvalidInputError, match=r"^query is empty; allowed: 1 to "):
        await call_tool(cast("GatewayClient", FakeClient()), "query_local_model", {"query": ""}, wait=True)


def test_an_order_is_waited_for_longer_than_the_gateway_waits_for_its_pods() -> None:
    assert GatewaySettings.model_fields["hold_seconds"].default < ORDER_SECONDS
