"""A trainer on the real event bus goes on: no unforeseen error ends a loop of its own, and no rows end each round."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.errors import NotFoundError, PreconditionError
from shammah_chassis.releases import Wanted, parse_wanted
from shammah_trainer import engine as engine_module
from shammah_trainer import round as round_module
from shammah_trainer.engine import TrainerEngine
from shammah_trainer.ingest import Ingest
from shammah_trainer.problems import DeviceMemoryError, DivergedError
from shammah_trainer.round_log import Parked
from shammah_trainer.triggers import Triggers
from support.rounds import EXAM, TAUGHT, promote, teach
from support.trainer import make_switch_rows, run_round, start_engine, wait_until


def failing_once(work: Callable[..., object]) -> Callable[..., object]:
    """Return `work` whose first call meets what nobody foresaw."""
    calls: list[object] = []

    def call(*values: object, **named: object) -> object:
        calls.append(values)
        if len(calls) == 1:
            raise RuntimeError("unforeseen")
        return work(*values, **named)

    return call


@pytest.mark.parametrize("error", [DivergedError("the loss is nan"), DeviceMemoryError("one row is too much")])
async def test_rows_that_two_rounds_ended_on_are_parked_with_the_reason_and_later_ones_train(
    engine: TrainerEngine, bus: Bus, monkeypatch: pytest.MonkeyPatch, error: DivergedError | DeviceMemoryError
) -> None:
    await teach(bus, engine, make_switch_rows(20, part_hint="train"))
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise error

        patch.setattr(round_module, "learn_generator", fail)
        assert (await run_round(engine)).error_code == error.code
        assert (await engine.read_status()).parked == Parked(0, "")
        assert (await run_round(engine)).error_code == error.code
    status = await engine.read_status()
    assert (status.queue_size, status.parked) == (0, Parked(20, f"{type(error).__name__}: {error}"))
    assert status.categories["switch"]["parked"] == 20
    with pytest.raises(PreconditionError, match="20 are parked"):
        await engine.train()
    await teach(bus, engine, make_switch_rows(20, seed=1, part_hint="train"))
    assert (await run_round(engine)).result["new_rows"] == 20


async def test_rows_that_were_parked_are_learned_after_all_though_later_ones_were(
    engine: TrainerEngine, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_switch_rows(20, part_hint="train")
    # Two messages, as the bus takes none twice within minutes and the rows are sent again as one.
    await teach(bus, engine, rows[:10], rows[10:])
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise DivergedError("the loss is nan")

        patch.setattr(round_module, "learn_generator", fail)
        for _ in range(2):
            await run_round(engine)
    await teach(bus, engine, make_switch_rows(20, seed=1, part_hint="train"))
    await promote(bus, (await run_round(engine)).id)
    assert (await engine.read_status()).queue_size == 0
    with pytest.raises(NotFoundError, match="poems"):
        await engine.unpark("poems")
    assert len(await engine.unpark("switch")) == 20
    status = await engine.read_status()
    assert (status.queue_size, status.parked) == (20, Parked(0, ""))
    done = await run_round(engine)
    assert done.result["new_rows"] == 20
    await promote(bus, done.id)
    # And nothing is left of it, though no other message came.
    assert (await engine.read_status()).queue_size == 0
    with pytest.raises(PreconditionError, match="nothing to train on"):
        await engine.train()


async def test_exam_rows_alone_are_nothing_to_train_on(engine: TrainerEngine, bus: Bus) -> None:
    await teach(bus, engine, EXAM[:20])
    with pytest.raises(PreconditionError, match="only exam rows"):
        await engine.train()


async def test_a_message_that_was_not_stored_for_an_unforeseen_error_is_read_again(
    engine: TrainerEngine, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ingest, "take_message", failing_once(Ingest.take_message))
    await teach(bus, engine, make_switch_rows(5))
    assert sum((await engine.read_status()).categories["switch"].values()) >= 5


async def test_a_look_that_failed_is_not_the_last_one(settings, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "count_due", failing_once(engine_module.count_due))
    engine = await start_engine(settings.model_copy(update={"auto_train": True, "batch_size": 40}))
    await teach(bus, engine, make_switch_rows(60, part_hint="train"))
    await wait_until(lambda: engine._jobs.last is not None, seconds=60)
    await engine.close()


async def test_a_forgotten_row_makes_rounds_due_until_an_index_without_it_serves_also_after_a_rollback(
    settings, bus: Bus
) -> None:
    engine = await start_engine(settings)
    engine._triggers = Triggers(batch_size=1, max_wait_seconds=1e-9, cooldown_seconds=0.0, settle_seconds=0.0)

    async def is_due() -> bool:
        # The gateway has settled: no candidate is on trial.
        entry = await bus.kv_get("wanted")
        assert entry is not None
        await bus.kv_update("wanted", Wanted(parse_wanted(entry.value).releases).to_json(), entry.revision)
        # The first look begins the waiting time.
        return [await engine._should_start() for _ in range(2)][1]

    rows = make_switch_rows(20, part_hint="train")
    await teach(bus, engine, rows)
    first = await run_round(engine)
    await promote(bus, first.id)
    assert not await is_due()
    await engine.forget(rows[0].id)
    assert await is_due()
    second = await run_round(engine)
    # Whatever its verdict: the index that serves still has the row.
    assert second.result["new_rows"] == 0 and await is_due()
    await promote(bus, second.id)
    assert not await is_due()
    await promote(bus, first.id)
    assert await is_due()
    await engine.close()


async def test_a_round_that_could_not_be_planned_is_a_failed_one_and_not_one_that_waits_for_ever(
    engine: TrainerEngine, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await teach(bus, engine, TAUGHT[:20])
    assert engine._runner is not None
    with monkeypatch.context() as patch:

        async def fail(_: str) -> None:
            raise sqlite3.ProgrammingError("unforeseen")

        patch.setattr(engine._runner, "plan", fail)
        with pytest.raises(sqlite3.ProgrammingError):
            await engine.train()
    assert engine._jobs.running is None
    assert (await engine.read_status()).last_round.state == "failed"


async def test_a_start_that_failed_is_tried_again(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "load_last_round", failing_once(engine_module.load_last_round))
    engine = await start_engine(settings)
    assert engine.ready
    await engine.close()
