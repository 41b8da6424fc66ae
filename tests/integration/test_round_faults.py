"""Faults of a round on the real event bus: crashes, a lost ledger, full disks, a wrong export and poison."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import ArtifactError, StorageFullError
from shammah_chassis.releases import parse_wanted
from shammah_chassis.streams import EXAMPLES
from shammah_trainer import learn_generator as learn_generator_module
from shammah_trainer import runner as runner_module
from shammah_trainer.engine import TrainerEngine
from support.rounds import EXAM, TAUGHT, champion_of, promote, teach, trained_counts
from support.trainer import make_switch_rows, run_round, start_engine


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
    status = await again.read_status()
    assert status.ledger_sequence == sequence
    # What the start has finished is not told as a failure.
    assert status.last_round is not None
    assert (status.last_round.id, status.last_round.state) == (job.id, "done")
    await again.close()


async def test_a_crash_before_publishing_repeats_the_round(settings, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await start_engine(settings)
    await teach(bus, engine, EXAM, TAUGHT)
    with monkeypatch.context() as patch:

        async def die(*_: object, **__: object) -> None:
            raise RuntimeError("killed here")

        patch.setattr(runner_module, "publish", die)
        failed = await run_round(engine)
    assert (failed.state, failed.error_code) == ("failed", "internal")
    await engine.close()
    again = await start_engine(settings)
    assert set(trained_counts(settings)) == {0}
    # It says of that round what it said before.
    told = (await again.read_status()).last_round
    assert told is not None
    assert (told.id, told.state, told.error_code) == (failed.id, "failed", "internal")
    assert told.error_message == failed.error_message == "RuntimeError: killed here"
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


async def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on(engine: TrainerEngine, bus: Bus) -> None:
    await bus.jetstream.publish("examples.new.test", b"not an envelope")
    await teach(bus, engine, TAUGHT[:5])
    status = await engine.read_status()
    assert status.dead_letters == 1
    assert sum(sum(entry.values()) - entry["new_train"] for entry in status.categories.values()) == 5
    dead = await bus.jetstream.stream_info("DEAD")
    assert dead.state.messages == 1


async def test_a_log_that_was_made_anew_loses_no_example(settings, bus: Bus) -> None:
    engine = await start_engine(settings)
    for rows in (EXAM[:20], TAUGHT[:40]):
        for row in rows:
            await teach(bus, engine, [row])
    job = await run_round(engine)
    await promote(bus, job.id)
    assert (await engine.read_status()).queue_size == 0
    await engine.close()
    await bus.jetstream.delete_stream(EXAMPLES)
    again = await start_engine(settings)
    assert (await again.read_status()).ledger_sequence == 0
    # Fewer messages than the log of before had: by their numbers alone they would all be known.
    await teach(bus, again, make_switch_rows(20, seed=2, part_hint="train"))
    assert (await again.read_status()).queue_size == 20
    # A place of the log of before is none of this one: nothing of it is erased.
    erased = await again.forget(TAUGHT[0].id)
    assert (erased.forgotten.examples, erased.forgotten.messages) == ((TAUGHT[0].id,), 0)
    await again.close()
