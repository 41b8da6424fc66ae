"""The loop on the real base models: two categories, one short round, a certified local answer.

Skips where the base models are neither cached nor to be had from a package index.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shammah_chassis.grading import grade
from shammah_chassis.workload import read_workload
from shammah_gateway.demo.workload import write_workload
from support.whole import Whole, start, wait_until, write_rows

pytestmark = [pytest.mark.e2e, pytest.mark.real_models, pytest.mark.timeout(900)]
CATEGORIES = ("booking_extraction", "command_intent")
SETTINGS = (
    "SHAMMAH_TRAINER_SFT_UPPER_LAYERS=10",
    "SHAMMAH_TRAINER_SFT_LEARNING_RATE=3e-4",
    "SHAMMAH_TRAINER_SFT_EPOCHS=2",
    "SHAMMAH_TRAINER_BASE_ROWS=10",
    "SHAMMAH_TRAINER_VALIDATOR_SECONDS=10",
)


def first_rows(path: Path, count: int) -> list[dict[str, object]]:
    """Return the first rows of each of the two categories."""
    with gzip.open(path, "rt", encoding="utf-8") as source:
        rows = [json.loads(line) for line in source]
    return [row for name in CATEGORIES for row in [item for item in rows if item["category"] == name][:count]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    pulled = subprocess.run(
        [sys.executable, "-m", "shammah_trainer.pull"], capture_output=True, text=True, timeout=600, check=False
    )
    if pulled.returncode:
        pytest.skip(f"the base models can't be had: {pulled.stderr[-400:]}")
    root = tmp_path_factory.mktemp("real")
    files = write_workload(root / "demo")
    system = Whole(
        root / "data",
        teach=write_rows(root / "teach.jsonl.gz", first_rows(files.teach, 75)),
        exam=write_rows(root / "exam.jsonl.gz", first_rows(files.exam, 60)),
        test=write_rows(root / "test.jsonl.gz", first_rows(files.check, 15)),
    )
    start(system, SETTINGS)
    yield system
    system.shammah("down", check=False)


def test_it_learns_certifies_and_serves_what_it_was_taught(whole: Whole) -> None:
    whole.shammah("learn", str(whole.exam), "--exam")
    whole.shammah("learn", str(whole.teach))
    result = json.loads(whole.shammah("train", timeout=600).stdout)
    assert result["verdict"] == "promoted", result
    wait_until(lambda: whole.champion() == result["release"], what="the swap")
    exam = {row["category"]: row for row in result["exam"]}
    assert exam["booking_extraction"]["after"] - exam["booking_extraction"]["before"] > 0.5
    assert exam["booking_extraction"]["certified"]
    served = 0
    for row in read_workload(whole.test).rows:
        answer = whole.json("ask", row.example.query_text, "--no-learn", "--json")
        served += answer["route"] == "ROUTE_LOCAL"
        if answer["route"] == "ROUTE_TEACHER":
            assert grade(str(answer["text"]), row.example).good
    assert served >= 5
