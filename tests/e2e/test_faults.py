"""Kill it in the middle: every process, tiny models, nothing lost and nobody refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.whole import Whole, make_rows, start_whole, wait_until, write_rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    system = start_whole(tmp_path_factory.mktemp("whole"), settings=["SHAMMAH_TRAINER_SFT_EPOCHS=20"])
    system.shammah("learn", str(system.exam), "--exam")
    system.shammah("learn", str(system.teach))
    yield system
    system.shammah("down", check=False)


def learned_rows(whole: Whole) -> int:
    """Return how many new train rows the trainer's ledger has."""
    return whole.status().queue_size


def test_a_killed_trainer_trains_the_same_rows_once(whole: Whole) -> None:
    waiting = wait_until(lambda: learned_rows(whole), what="rows in the ledger")
    job = whole.json("tool", "train", "--no-wait", "--json", '{"wait": false}')["job"]
    assert isinstance(job, dict)
    wait_until(lambda: "fine-tuning" in whole.stage(str(job["id"])), what="the round to train")
    dead = whole.kill("trainer")
    whole.wait_for_return("trainer", dead=dead)
    assert wait_until(lambda: learned_rows(whole), what="rows after the crash") == waiting
    result = json.loads(whole.shammah("train", timeout=300).stdout)
    assert result["verdict"] == "promoted", result
    assert result["examples_trained"] == waiting
    wait_until(lambda: whole.champion() == result["release"], what="the swap")
    assert learned_rows(whole) == 0


def test_a_killed_generator_means_the_teacher_then_local_again(whole: Whole) -> None:
    query = str(make_rows("colour", 1, offset=2003)[0]["query"])
    dead = whole.kill("generator")
    answer = whole.json("ask", query, "--no-learn", "--json")
    assert answer["text"] == "blue"
    assert answer["route"] in ("ROUTE_TEACHER", "ROUTE_LOCAL")
    whole.wait_for_return("generator", dead=dead)

    def local() -> bool:
        return whole.json("ask", query, "--no-learn", "--json")["route"] == "ROUTE_LOCAL"

    assert wait_until(local, what="a local answer")


def test_examples_survive_a_killed_event_bus(whole: Whole) -> None:
    before = wait_until(lambda: learned_rows(whole) + 1, what="the ledger")
    rows = make_rows("animal", 40, offset=7000)
    path = write_rows(whole.folder.parent / "during.jsonl.gz", rows)
    dead = whole.kill("nats")
    done = whole.shammah("learn", str(path))
    assert "queued 40 of 40" in done.stdout
    whole.wait_for_return("nats", dead=dead)
    wait_until(lambda: whole.status().spooled == 0, what="the spool to drain")
    whole.shammah("learn", str(path))
    # Some of the 40 become dev; none comes in twice.
    new = wait_until(lambda: learned_rows(whole) + 1 - before, what="the new rows")
    assert 20 <= new <= 40
