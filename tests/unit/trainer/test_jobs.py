"""Jobs and phases: what a caller may know of a round."""

from __future__ import annotations

import threading

import pytest
from shammah_chassis.errors import NotFoundError
from shammah_trainer.jobs import JobBook, TrainJob
from shammah_trainer.phases import Phases
from shammah_trainer.problems import StoppedError


async def test_waiting_for_a_job_ends_with_the_job_or_with_the_time() -> None:
    book = JobBook()
    job = TrainJob("1")
    book.add(job)
    assert book.running is job
    assert (await book.get("1", 0.01)).state == "queued"
    job.start()
    job.finish({"release": "1"})
    assert (await book.get("1", 25)).result == {"release": "1"}
    assert book.running is None


async def test_an_unknown_job_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        await JobBook().get("nobody", 0)


async def test_a_stopped_job_is_cancelled_and_not_failed() -> None:
    job = TrainJob("1")
    job.fail("training_stopped", "stop", cancelled=True)
    assert (job.state, job.ended.is_set()) == ("cancelled", True)


def test_phases_report_a_growing_fraction_and_their_seconds() -> None:
    seen: list[tuple[str, float]] = []
    phases = Phases((("one", 1), ("two", 3)), lambda text, share: seen.append((text, share)))
    with phases.run("one", "first"):
        pass
    with phases.run("two", "second") as advance:
        advance(0.5)
        advance(1.0)
    assert seen == [("first", 0.0), ("second", 0.25), ("second", 0.625), ("second", 1.0)]
    assert phases.seconds.keys() == {"one", "two"}


def test_a_stop_ends_the_round_at_its_next_report() -> None:
    stop = threading.Event()
    phases = Phases((("one", 1),), lambda text, share: None, stop)
    with pytest.raises(StoppedError), phases.run("one", "first") as advance:
        stop.set()
        advance(0.1)


def test_a_job_is_found_by_the_request_that_began_it() -> None:
    book = JobBook()
    book.add(TrainJob("a", request_id="r1"))
    book.add(TrainJob("b"))
    found = book.find("r1")
    assert found is not None and found.id == "a"
    assert book.find("r2") is None and book.find("") is None
