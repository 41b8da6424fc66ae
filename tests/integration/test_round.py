"""Whole rounds of a tiny trainer on the real event bus: promotion, repetition after crashes, and honest refusals."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import (
    ArtifactError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    StorageFullError,
    UnavailableError,
)
from shammah_chassis.manifest import ROLES, verify_folder
from shammah_chassis.nats_server import NatsServer
from shammah_chassis.releases import Champion, parse_champion, parse_wanted
from shammah_trainer import evidence as evidence_module
from shammah_trainer import learn_generator as learn_generator_module
from shammah_trainer import round as round_module
from shammah_trainer import runner as runner_module
from shammah_trainer import sft as sft_module
from shammah_trainer import soup as soup_module
from shammah_trainer.engine import TrainerEngine
from shammah_trainer.ledger import Ledger
from shammah_trainer.publishing import publish, write_first_champion
from shammah_trainer.release_zero import build_release_zero
from support.trainer import (
    make_base_models,
    make_example,
    make_settings,
    make_switch_rows,
    publish_examples,
    run_round,
    start_engine,
    wait_for_sequence,
    wait_until,
)

EXAM = make_switch_rows(60, seed=1, part_hint="exam")
TAUGHT = make_switch_rows(150, seed=0)


@pytest.fixture(scope="module")
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
    sequence = 0
    for rows in groups:
        sequence = await publish_examples(bus, rows)
    await wait_for_sequence(engine, sequence)
    return sequence


async def champion_of(bus: Bus) -> Champion:
    entry = await bus.kv_get("champion")
    assert entry is not None
    return parse_champion(entry.value)


async def promote(bus: Bus, release: str) -> None:
    """Do what the gateway's controller does once every pod holds the release."""
    entry = await bus.kv_get("champion")
    assert entry is not None
    await bus.kv_update("champion", Champion(release, previous=("x",)).to_json(), entry.revision)


def trained_counts(settings) -> list[int]:
    ledger = Ledger(settings.data_dir / "ledger.sqlite")
    counts = [row.trained for row in ledger.rows("part = 'train'")]
    ledger.close()
    return counts


async def test_the_first_start_makes_release_0_that_forwards_everything(
    fresh_settings, bus: Bus, tmp_path: Path
) -> None:
    engine = await start_engine(fresh_settings)
    champion = await champion_of(bus)
    store = DirectoryStore(tmp_path / "store")
    release = await store.get_release(champion.release)
    assert (release.verdict, release.categories) == ("base", {})
    for role in ROLES:
        folder = await store.fetch_version(role, release.version_of(role), tmp_path / "cache")
        assert verify_folder(folder, role=role).parent == ""
    entry = await bus.kv_get("wanted")
    assert entry is not None
    assert parse_wanted(entry.value).releases == (release.id,)
    # A second start finds the champion and makes no other.
    await engine.close()
    again = await start_engine(fresh_settings)
    assert await store.list_releases() == [release.id]
    await again.close()


async def test_a_round_learns_certifies_proposes_and_acknowledges(
    engine: TrainerEngine, bus: Bus, tmp_path: Path
) -> None:
    with pytest.raises(PreconditionError):
        await engine.train()
    sequence = await teach(bus, engine, EXAM, TAUGHT)
    before = await champion_of(bus)
    job = await run_round(engine)
    assert (job.state, job.error_message) == ("done", "")
    result = job.result
    assert result["verdict"] == "promote"
    assert result["losses"]["generator"]["after"] < result["losses"]["generator"]["before"]
    assert set(result["losses"]) == set(ROLES)
    assert result["exam"]["before"]["switch"]["accuracy"] < 0.2
    after = result["exam"]["after"]["switch"]
    assert after["accuracy"] > 0.8
    assert after["certified"], after["reason"]
    assert after["local_share"] > 0.5
    store = DirectoryStore(tmp_path / "store")
    release = await store.get_release(job.id)
    assert release.position == sequence
    assert release.ancestry == (before.release,)
    assert release.categories["switch"].threshold is not None
    # This release is certified for .2 only; its exam rows prove .05 too, but neither .02 nor .01.
    assert [rung.alpha for rung in release.categories["switch"].ladder] == [0.05]
    assert release.fence > 0
    # The manifest says where it came from and by which policy.
    folder = await store.fetch_version("generator", release.generator, tmp_path / "cache")
    manifest = verify_folder(folder, role="generator")
    assert manifest.parent == (await store.get_release(before.release)).generator
    assert manifest.provenance["rows"] == result["examples_trained"]
    assert manifest.provenance["policy"]["user_share"] == 0.2
    wanted = await bus.kv_get("wanted")
    assert wanted is not None
    assert parse_wanted(wanted.value).candidate == release.id
    # The trainer proposes; who serves is not its business.
    assert await champion_of(bus) == before
    assert (await engine.read_status()).acked_sequence == sequence
    assert [entry.release for entry in await store.list_checkpoints()] == [before.release]


async def test_a_redelivered_or_repeated_example_trains_nothing_twice(
    engine: TrainerEngine, bus: Bus, settings
) -> None:
    await teach(bus, engine, EXAM, TAUGHT)
    first = await run_round(engine)
    await promote(bus, first.id)
    # The same examples under new messages: other envelopes, so the bus does not drop them.
    await teach(bus, engine, list(reversed(TAUGHT)))
    assert (await engine.read_status()).queue_size == 0
    with pytest.raises(PreconditionError):
        await engine.train()
    assert set(trained_counts(settings)) == {1}


async def test_a_second_round_replays_old_rows_and_is_not_promoted_for_nothing(
    engine: TrainerEngine, settings, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalled, left_out = [], []

    def fine_tune(*arguments: Any, replay: Any, **named: Any) -> Any:
        recalled.append(len(replay))
        return sft_module.fine_tune(*arguments, replay=replay, **named)

    def leave_out(*arguments: Any, **named: Any) -> Any:
        left_out.append(set(named))
        return evidence_module.leave_out(*arguments, **named)

    monkeypatch.setattr(soup_module, "fine_tune", fine_tune)
    monkeypatch.setattr(round_module, "leave_out", leave_out)
    await teach(bus, engine, EXAM, TAUGHT)
    first = await run_round(engine)
    await promote(bus, first.id)
    await teach(bus, engine, make_switch_rows(30, seed=4))
    second = await run_round(engine)
    assert second.state == "done"
    assert second.result["parent"] == first.id
    # Nothing is old in the first round; dev rows are scored by heads that have not seen them.
    assert recalled[0] == 0 < recalled[1] <= settings.sft_epochs * second.result["new_rows"]
    assert left_out == [{"dev_local", "dev_quality"}] * 2
    # One old row for each new one in each epoch.
    assert 0 < second.result["replay_rows"] <= settings.sft_epochs * second.result["new_rows"]
    # As good as before is a normal result: no reason to swap, and nothing is lost.
    assert second.result["verdict"] in ("undecided", "held")
    assert (await DirectoryStore(tmp_path / "store").get_release(second.id)).parent == first.id


async def test_a_release_that_is_worse_is_held_published_and_acknowledged(
    engine: TrainerEngine, bus: Bus, tmp_path: Path
) -> None:
    await teach(bus, engine, EXAM, TAUGHT)
    first = await run_round(engine)
    await promote(bus, first.id)
    wrong = [
        replace(row, response="no" if row.response == "yes" else "yes", reference="no", grader="")
        for row in make_switch_rows(300, seed=6)
    ]
    sequence = await teach(bus, engine, wrong)
    job = await run_round(engine)
    assert job.result["verdict"] == "held"
    assert any("switch" in reason for reason in job.result["reasons"])
    assert (await DirectoryStore(tmp_path / "store").get_release(job.id)).verdict == "held"
    assert (await engine.read_status()).acked_sequence == sequence
    wanted = await bus.kv_get("wanted")
    assert wanted is not None
    assert job.id not in parse_wanted(wanted.value).releases
    assert (await champion_of(bus)).release == first.id


async def test_a_crash_after_publishing_is_finished_and_not_trained_again(
    settings, bus: Bus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = await start_engine(settings)
    sequence = await teach(bus, engine, EXAM, TAUGHT)
    with monkeypatch.context() as patch:
        # The process dies between the release and the ledger.
        def die(*_: object) -> None:
            raise RuntimeError("killed here")

        patch.setattr(runner_module, "mark_published", die)
        job = await run_round(engine)
    assert job.state == "failed"
    await engine.close()
    assert set(trained_counts(settings)) == {0}
    again = await start_engine(settings)
    assert set(trained_counts(settings)) == {1}
    assert await DirectoryStore(tmp_path / "store").get_release(job.id)
    wanted = await bus.kv_get("wanted")
    assert wanted is not None
    assert parse_wanted(wanted.value).candidate == job.id
    assert len(await DirectoryStore(tmp_path / "store").list_releases()) == 2
    assert (await again.read_status()).ledger_sequence == sequence
    await again.close()


async def test_a_crash_before_publishing_repeats_the_round(settings, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await start_engine(settings)
    await teach(bus, engine, EXAM, TAUGHT)
    with monkeypatch.context() as patch:

        async def die(*_: object, **__: object) -> None:
            raise RuntimeError("killed here")

        patch.setattr(runner_module, "publish", die)
        assert (await run_round(engine)).state == "failed"
    await engine.close()
    again = await start_engine(settings)
    assert set(trained_counts(settings)) == {0}
    job = await run_round(again)
    assert job.result["verdict"] == "promote"
    await again.close()


async def test_a_lost_ledger_is_rebuilt_from_the_log(settings, bus: Bus) -> None:
    engine = await start_engine(settings)
    await teach(bus, engine, EXAM, TAUGHT)
    before = (await engine.read_status()).categories
    await engine.close()
    for path in settings.data_dir.glob("ledger.sqlite*"):
        path.unlink()
    again = await start_engine(settings)
    assert (await again.read_status()).categories == before
    await again.close()


async def test_a_full_disk_while_publishing_loses_nothing(
    engine: TrainerEngine, bus: Bus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await teach(bus, engine, EXAM, TAUGHT)
    before = await champion_of(bus)

    async def refuse(*_: object, **__: object) -> None:
        raise StorageFullError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "publish_version", refuse)
        job = await run_round(engine)
    assert (job.state, job.error_code) == ("failed", "storage_full")
    assert await champion_of(bus) == before
    assert await DirectoryStore(tmp_path / "store").list_releases() == [before.release]
    assert (await run_round(engine)).result["verdict"] == "promote"


async def test_a_full_disk_while_exporting_has_its_name(
    engine: TrainerEngine, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await teach(bus, engine, EXAM, TAUGHT)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(learn_generator_module, "export_generator", refuse)
    job = await run_round(engine)
    assert (job.state, job.error_code) == ("failed", "storage_full")


async def test_an_export_that_computes_something_else_ends_the_round(
    engine: TrainerEngine, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await teach(bus, engine, EXAM, TAUGHT)

    def differ(*_: object, **__: object) -> float:
        raise ArtifactError("differs")

    monkeypatch.setattr(learn_generator_module, "check_parity", differ)
    job = await run_round(engine)
    assert (job.state, job.error_code) == ("failed", "bad_artifact")
    assert (await engine.read_status()).queue_size > 0


async def test_new_exam_rows_alone_certify_again_without_training(settings, bus: Bus) -> None:
    # It takes 73 accepted answers without an error; the first exam has about 50 rows, the second 110.
    engine = await start_engine(settings.model_copy(update={"delta": 1e-7}))
    await teach(bus, engine, EXAM[:4], TAUGHT)
    first = await run_round(engine)
    assert not first.result["exam"]["after"]["switch"]["certified"]
    await promote(bus, first.id)
    await teach(bus, engine, EXAM[4:])
    second = await run_round(engine)
    assert (second.state, second.result["examples_trained"]) == ("done", 0)
    assert second.result["exam"]["after"]["switch"]["certified"], second.result["exam"]
    assert second.result["verdict"] == "promote"
    await engine.close()


async def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on(engine: TrainerEngine, bus: Bus) -> None:
    await bus.jetstream.publish("examples.new.test", b"not an envelope")
    await teach(bus, engine, TAUGHT[:5])
    status = await engine.read_status()
    assert status.dead_letters == 1
    assert sum(sum(entry.values()) - entry["new_train"] for entry in status.categories.values()) == 5
    dead = await bus.jetstream.stream_info("DEAD")
    assert dead.state.messages == 1


async def test_a_full_batch_starts_a_round_by_itself(settings, bus: Bus) -> None:
    made = await start_engine(settings.model_copy(update={"auto_train": True, "batch_size": 40}))
    await teach(bus, made, EXAM, TAUGHT)
    await wait_until(lambda: made._jobs.last is not None and made._jobs.last.ended.is_set(), seconds=120)
    assert made._jobs.last is not None
    assert made._jobs.last.state == "done"
    await made.close()


async def test_samples_are_dev_rows_only_and_never_exam(engine: TrainerEngine, bus: Bus) -> None:
    await teach(bus, engine, EXAM, TAUGHT)
    exam = {row.id for row in EXAM}
    drawn = await engine.sample(50, [], 7)
    assert drawn == await engine.sample(50, [], 7)
    assert drawn
    assert not exam & {row.id for row in drawn}
    with pytest.raises(InvalidInputError):
        await engine.sample(0, [], 7)
    with pytest.raises(InvalidInputError, match="switch"):
        await engine.sample(5, ["unheard of"], 7)
    verdicts = await engine.check([replace(EXAM[0], part_hint=""), make_example("a new thing entirely", "b")])
    assert verdicts == ["duplicate", "new"]


async def test_a_stopped_round_leaves_its_examples_queued_and_the_next_one_learns_them(settings, bus: Bus) -> None:
    engine = await start_engine(settings)
    await teach(bus, engine, EXAM[:20], TAUGHT[:40])
    waiting = (await engine.read_status()).queue_size
    before = await champion_of(bus)
    begun = await engine.train("asked for", "job-1")
    # The same request is the same round; another one joins the round that runs.
    assert (await engine.train("", "job-1")) is begun and (await engine.train("", "job-2")) is begun
    await wait_until(lambda: begun.progress > 0, seconds=30)
    stopped = await engine.stop_train("", "job-1", 25.0)
    await wait_until(stopped.ended.is_set, seconds=60)
    assert (stopped.id, stopped.state, stopped.error_code) == (begun.id, "cancelled", "training_stopped")
    assert (await engine.read_status()).queue_size == waiting
    assert await champion_of(bus) == before
    # Stopping what has ended changes nothing, an unknown round is named, and the mark does not end the next round.
    assert (await engine.stop_train(begun.id)).state == "cancelled"
    with pytest.raises(NotFoundError, match="unheard"):
        await engine.stop_train("unheard", "")
    again = await run_round(engine)
    assert (again.state, again.result["examples_trained"]) == ("done", waiting)
    assert (await engine.stop_train(again.id)).state == "done"
    await engine.close()


async def test_a_call_that_is_given_up_before_its_round_begins_blocks_no_other_round(settings, bus: Bus) -> None:
    engine = await start_engine(settings)
    await teach(bus, engine, EXAM[:20], TAUGHT[:40])
    assert engine._intake is not None
    gate = asyncio.Event()

    async def settle(seconds: float) -> None:
        await gate.wait()

    engine._intake.settle = settle
    asking = asyncio.create_task(engine.train("", "job-1"))
    await wait_until(lambda: engine._jobs.running is not None, seconds=10)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    gate.set()
    assert engine._jobs.running is None
    # The same request, once its caller is back, begins the round after all.
    begun = await engine.train("", "job-1")
    assert begun.state in ("queued", "running")
    await wait_until(begun.ended.is_set, seconds=120)
    assert begun.state == "done"
    await engine.close()


async def test_calls_before_the_start_say_what_it_is_doing(settings) -> None:
    engine = TrainerEngine(settings)
    with pytest.raises(UnavailableError, match="starts"):
        await engine.train()
    await engine.close()
