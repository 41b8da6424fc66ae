"""Fixtures with a whole gateway and its doors: one per test module, with a fresh teacher's stub for each test."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest
from support.doors import Doors, run_doors


@pytest.fixture(scope="module")
def running_doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """The gateway of one module's tests; use `doors`."""
    with run_doors(tmp_path_factory.mktemp("doors"), {"http_max_body_bytes": str(1 << 20)}) as running:
        yield running


@pytest.fixture
def doors(running_doors: Doors) -> Doors:
    """A gateway whose teacher and roles say what they say at first. A body may have 1 MiB."""
    running_doors.reset()
    return running_doors


@pytest.fixture
def claude(doors: Doors) -> Iterator[anthropic.Anthropic]:
    """The official SDK, set to the gateway, without its own retries."""
    with anthropic.Anthropic(api_key=doors.token, base_url=doors.url, max_retries=0, timeout=30) as client:
        yield client
