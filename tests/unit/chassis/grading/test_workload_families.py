"""The graders against real rows of every family of the public workload, where it is present."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.grading import grade_many
from shammah_chassis.workload import WorkloadRow, read_workload

FOLDER = Path(__file__).parents[4].parent / "shared" / "data" / "workload"
FILES = sorted(FOLDER.glob("*.jsonl.gz"))

pytestmark = pytest.mark.skipif(not FILES, reason=f"the public workload is not in {FOLDER}")


def sample(path: Path) -> list[WorkloadRow]:
    done = read_workload(path)
    assert done.errors == ()
    count = 3 if path.name.startswith("code_") else 20
    return list(done.rows[:: max(1, len(done.rows) // count)][:count])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_reference_is_good_and_most_others_are_bad(path: Path) -> None:
    rows = sample(path)
    own = grade_many([(row.reference, row.example) for row in rows])
    assert [item for item in own if item.good is not True] == []
    taught = grade_many([(row.example.response, row.example) for row in rows])
    assert [item for item in taught if item.good is not True] == []
    pairs = [
        (other.reference, row.example)
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
        if other.reference != row.reference
    ]
    bad = [item.good is False for item in grade_many(pairs)]
    # Only the family whose label is always "oos" has no row with another reference.
    assert bad or path.name.startswith("intent_clinc_oos")
    assert sum(bad) >= 0.9 * len(bad)
