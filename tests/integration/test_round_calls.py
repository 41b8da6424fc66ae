"""Calls of a trainer on the real event bus: how a round begins and is stopped, and which rows are handed out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.errors import InvalidInputError, NotFoundError, UnavailableError
from shammah_trainer.engine import TrainerEngine
from support.rounds import EXAM, TAUGHT, champion_of, teach
from support.trainer import make_example, run_round, start_engine, wait_until


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
