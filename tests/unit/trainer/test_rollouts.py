"""Rollouts: graded, cached, honest about what was cut."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from shammah_generator.chat import encode_text, load_tokenizer
from shammah_trainer.batches import cut_row
from shammah_trainer.forget import erase_from_ledger
from shammah_trainer.ledger import Ledger
from shammah_trainer.rollouts import (
    LONGEST_RESPONSE,
    UNTAUGHT_RESPONSE,
    RolloutSettings,
    choose_limits,
    read_rollouts,
    roll_out,
)
from shammah_trainer.training_rows import encode_rows
from support.trainer import make_example, make_switch_rows

SETTINGS = RolloutSettings(precision="fp32", threads=1, slots=4, context=128)


@pytest.fixture
def ledger(tmp_path: Path):
    made = Ledger(tmp_path / "ledger.sqlite")
    for row in make_switch_rows(12):
        made.insert(row, sequence=1, part="dev", cluster=row.id, given=False, evidence=True)
    yield made
    made.close()


def test_each_row_is_answered_and_graded_once_per_version(ledger: Ledger, tiny_generator: Path) -> None:
    rows = ledger.rows("1")
    limits = {"switch": 6}
    made = roll_out(ledger, version="v1", folder=tiny_generator, rows=rows, limits=limits, settings=SETTINGS)
    assert made.keys() == {row.id for row in rows}
    assert all(len(rollout.statistics) == 10 and rollout.good is not None for rollout in made.values())
    # The second time nothing is computed: a folder that does not exist would be an error.
    missing = Path("/does/not/exist")
    again = roll_out(ledger, version="v1", folder=missing, rows=rows, limits=limits, settings=SETTINGS)
    assert again == made
    assert read_rollouts(ledger, version="v2", rows=rows, limits=limits) == {}


def test_a_response_cut_at_its_limit_is_bad_whatever_it_says(ledger: Ledger, tiny_generator: Path) -> None:
    rows = ledger.rows("1")
    made = roll_out(ledger, version="v", folder=tiny_generator, rows=rows, limits={"switch": 1}, settings=SETTINGS)
    cut = [rollout for rollout in made.values() if rollout.reason == "length"]
    assert cut
    assert all(rollout.good is False and not rollout.whole and rollout.tokens == 1 for rollout in cut)


def test_a_cut_response_is_made_again_under_a_larger_limit(ledger: Ledger, tiny_generator: Path) -> None:
    rows = ledger.rows("1")
    roll_out(ledger, version="v", folder=tiny_generator, rows=rows, limits={"switch": 1}, settings=SETTINGS)
    kept = read_rollouts(ledger, version="v", rows=rows, limits={"switch": 5})
    assert all(rollout.whole for rollout in kept.values())
    more = roll_out(ledger, version="v", folder=tiny_generator, rows=rows, limits={"switch": 5}, settings=SETTINGS)
    assert more.keys() == {row.id for row in rows}


def test_of_a_row_that_is_forgotten_while_it_is_answered_nothing_stays(ledger: Ledger, tiny_generator: Path) -> None:
    rows = ledger.rows("1")
    gone = rows[0]
    ledger.execute("INSERT INTO sources VALUES (?, 1, 'REQUEST')", (gone.id,))
    # The plan of the round still holds the row.
    assert erase_from_ledger(ledger, "REQUEST", 1).examples == (gone.id,)
    made = roll_out(ledger, version="v", folder=tiny_generator, rows=rows, limits={"switch": 6}, settings=SETTINGS)
    assert gone.id in made
    kept = {example for (example,) in ledger.fetch("SELECT example FROM rollouts")}
    assert kept == {row.id for row in rows[1:]}


def test_limits_follow_the_longest_taught_response(tiny_generator: Path, ledger: Ledger) -> None:
    for category, text in (("short", "a"), ("long", "a b c " * 400)):
        row = make_example(f"q {category}", text, category=category)
        ledger.insert(row, sequence=2, part="train", cluster=row.id, given=False, evidence=True)
    tokenizer = tiny_generator / "tokenizer.json"
    taught, judged = ledger.rows("part = 'train'"), ledger.rows("part = 'dev'")
    limits = choose_limits(taught, judged, tokenizer=tokenizer, max_tokens=4096)
    assert limits == {"short": 6, "long": LONGEST_RESPONSE, "switch": UNTAUGHT_RESPONSE}


def test_a_response_that_is_too_long_to_be_taught_lifts_no_limit(tiny_generator: Path, ledger: Ledger) -> None:
    tokenizer = load_tokenizer(tiny_generator / "tokenizer.json")
    rows = [make_example(f"q {number}", "a b " * number) for number in range(1, 60)]
    for row in rows:
        ledger.insert(row, sequence=2, part="train", cluster=row.id, given=False, evidence=True)
    taught = ledger.rows("part = 'train'")
    for max_tokens in (20, 21, 22, 60):
        kept = [
            len(encode_text(tokenizer, row.example.response))
            for row, encoded in zip(taught, encode_rows(taught, tokenizer), strict=True)
            if cut_row(encoded, max_tokens) is not None
        ]
        assert 0 < len(kept) < len(taught)
        limits = choose_limits(taught, [], tokenizer=tiny_generator / "tokenizer.json", max_tokens=max_tokens)
        assert limits == {"switch": math.ceil(1.5 * max(kept)) + 4}
