"""Kill it in the middle: every process, tiny models, nothing lost and nobody refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.whole import Whole, make_rows, start_whole, wait_until, write_rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    system = start_whole(tmp_path_factory.mktemp("whole"), settings=FAULTS)
    system.shammah("learn", str(system.exam), "--exam")
    system.shammah("learn", str(system.teach))
    yield system
    system.shammah("down", check=False)


# Long enough to be killed in; a dead trainer's lease ends soon.
FAULTS = ["SHAMMAH_TRAINER_SFT_EPOCHS=60", "SHAMMAH_TRAINER_LEASE_SECONDS=4"]


def learned_rows(whole: Whole) -> int:
    """Return how many new train rows the trainer's ledger has."""
    return whole.status().queue_size


def train_unless_leased(whole: Whole) -> str:
    """Train and return what it printed; "" while the lease of a killed trainer still runs."""
    done = whole.shammah("train", check=False, timeout=300)
    assert done.returncode == 0 or "lease" in done.stderr, done.stderr
    return "" if done.returncode else done.stdout


def settled_rows(whole: Whole) -> int:
    """Return how many new train rows the ledger has once it takes no more in: ten looks in a row agree."""
    seen: list[int] = []

    def agree() -> bool:
        seen.append(learned_rows(whole))
        return len(seen) >= 10 and len(set(seen[-10:])) == 1 and seen[-1] > 0

    wait_until(agree, what="the ledger to settle")
    return seen[-1]


def test_a_killed_trainer_trains_the_same_rows_once(whole: Whole) -> None:
    waiting = settled_rows(whole)
    whole.shammah("tool", "train", "--no-wait", "--json", '{"wait": false}')
    wait_until(lambda: "fine-tuning" in whole.stage(), what="the round to train")
    dead = whole.kill("trainer")
    whole.wait_for_return("trainer", dead=dead)
    assert settled_rows(whole) == waiting
    result = json.loads(wait_until(lambda: train_unless_leased(whole), what="the dead trainer's lease to end"))
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
    before = learned_rows(whole)
    rows = make_rows("animal", 40, offset=7000)
    path = write_rows(whole.folder.parent / "during.jsonl.gz", rows)
    dead = whole.kill("nats")
    done = whole.shammah("learn", str(path))
    assert "queued 40 of 40" in done.stdout
    whole.wait_for_return("nats", dead=dead)
    wait_until(lambda: whole.status().spooled == 0, what="the spool to drain")
    whole.shammah("learn", str(path))
    # Some of the 40 become dev; none comes in twice.
    new = settled_rows(whole) - before
    assert 20 <= new <= 40
