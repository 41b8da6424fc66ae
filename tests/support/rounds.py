"""A tiny trainer on the real event bus, with release 0, and what the tests of its rounds do with it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.nats_server import NatsServer
from shammah_chassis.releases import Champion, parse_champion
from shammah_trainer.engine import TrainerEngine
from shammah_trainer.ledger import Ledger
from shammah_trainer.publishing import publish, write_first_champion
from shammah_trainer.release_zero import build_release_zero
from support.trainer import (
    make_base_models,
    make_settings,
    make_switch_rows,
    publish_examples,
    start_engine,
    wait_for_sequence,
)

EXAM = make_switch_rows(60, seed=1, part_hint="exam")
TAUGHT = make_switch_rows(150, seed=0)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base models and a store that holds release 0: made once, as tracing the graphs takes seconds."""
    folder = tmp_path_factory.mktemp("bases")
    base = make_base_models(folder / "base")
    release, versions = build_release_zero(base, folder / "work", precision="int8", fence=1)

    async def never_lost() -> None:
        return None

    asyncio.run(publish(DirectoryStore(folder / "store"), release, versions, check_lease=never_lost))
    return folder


@pytest.fixture
def fresh_settings(tmp_path: Path, bases: Path, nats_server: NatsServer, bus: Bus):
    """Settings of a trainer of its own on an empty bus and an empty store."""
    return make_settings(tmp_path, nats_server.url, models_dir=bases / "base")


@pytest.fixture
async def settings(fresh_settings, tmp_path: Path, bases: Path, bus: Bus):
    """The same, with release 0 in the store and as the champion."""
    shutil.copytree(bases / "store", tmp_path / "store")
    (release,) = await DirectoryStore(tmp_path / "store").list_releases()
    await write_first_champion(bus, release)
    return fresh_settings


@pytest.fixture
async def engine(settings) -> AsyncIterator[TrainerEngine]:
    """A trainer that is ready."""
    made = await start_engine(settings)
    yield made
    await made.close()


async def teach(bus: Bus, engine: TrainerEngine, *groups) -> int:
    """Publish rows to the log and wait until the trainer's ledger holds them; return the last sequence."""
    sequence = 0
    for rows in groups:
        sequence = await publish_examples(bus, rows)
    await wait_for_sequence(engine, sequence)
    return sequence


async def champion_of(bus: Bus) -> Champion:
    """Return the champion that the bus names."""
    entry = await bus.kv_get("champion")
    assert entry is not None
    return parse_champion(entry.value)


async def promote(bus: Bus, release: str) -> None:
    """Do what the gateway's controller does once every pod holds the release."""
    entry = await bus.kv_get("champion")
    assert entry is not None
    await bus.kv_update("champion", Champion(release, previous=("x",)).to_json(), entry.revision)


def trained_counts(settings) -> list[int]:
    """Return how often each row of the part `train` was trained."""
    ledger = Ledger(settings.data_dir / "ledger.sqlite")
    counts = [row.trained for row in ledger.rows("part = 'train'")]
    ledger.close()
    return counts
