"""Rollouts in a file: none twice, none lost to a kill, graded elsewhere, found by a round."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_trainer.ledger import Ledger
from shammah_trainer.offline.answer import answer_rows, grade_file, take_into_ledger
from shammah_trainer.offline.rollouts_file import (
    CANDIDATE,
    CHAMPION,
    RolloutLine,
    append_lines,
    open_for_more,
    read_lines,
)
from shammah_trainer.offline.study import Study, make_row
from shammah_trainer.rollouts import RolloutSettings, read_rollouts, roll_out
from shammah_trainer.round_plan import RoundPlan
from support.trainer import make_switch_rows

SETTINGS = RolloutSettings(precision="fp32", threads=1, slots=4, context=128)
LIMITS = {"switch": 4}


@pytest.fixture(scope="module")
def study() -> Study:
    """150 dev rows: more than are computed together."""
    dev = tuple(make_row(example, part="dev") for example in make_switch_rows(150))
    return Study(plan=RoundPlan((), (), dev, (), 1, 0), test=(), names={}, options={})


class KilledError(Exception):
    """Stands for the end of the process."""


def answer(path: Path, study: Study, folder: Path, *, kill_after: int = 0) -> int:
    def stop(done: int, rows: int) -> None:
        if kill_after and done >= kill_after:
            raise KilledError

    return answer_rows(
        path,
        generator=CANDIDATE,
        folder=folder,
        rows=study.plan.dev,
        limits=LIMITS,
        settings=SETTINGS,
        progress=stop,
    )


def test_after_a_kill_only_what_is_missing_is_computed(study: Study, tiny_generator: Path, tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken.gz", tmp_path / "whole.gz"
    with pytest.raises(KilledError):
        answer(broken, study, tiny_generator, kill_after=1)
    there = len(read_lines(broken))
    assert 0 < there < 150
    # A kill in the middle of a write leaves a member that does not end.
    size = broken.stat().st_size
    append_lines(broken, read_lines(broken)[:1])
    broken.write_bytes(broken.read_bytes()[: size + 40])
    with pytest.raises(ArtifactError, match="damaged"):
        read_lines(broken)
    assert answer(broken, study, tiny_generator) == 150 - there
    assert answer(broken, study, Path("/does/not/exist")) == 0
    assert answer(whole, study, tiny_generator) == 150
    texts = [{line.id: (line.text, line.reason) for line in read_lines(path)} for path in (broken, whole)]
    assert texts[0] == texts[1]
    assert len(read_lines(broken)) == 150


def test_rollouts_of_a_file_are_what_a_round_would_compute(study: Study, tiny_generator: Path, tmp_path: Path) -> None:
    made, graded = tmp_path / "made.gz", tmp_path / "graded.gz"
    answer(made, study, tiny_generator)
    counts = grade_file(made, graded, study)
    assert sum(counts.values()) == 150
    assert counts["ungraded"] == 0
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert take_into_ledger(ledger, graded, versions={CANDIDATE: "v", CHAMPION: "w"}) == {CANDIDATE: 150, CHAMPION: 0}
    rows = study.plan.dev
    found = read_rollouts(ledger, version="v", rows=rows, limits=LIMITS)
    other = Ledger(tmp_path / "other.sqlite")
    computed = roll_out(other, version="v", folder=tiny_generator, rows=rows, limits=LIMITS, settings=SETTINGS)
    assert {name: (r.text, r.reason, r.good) for name, r in found.items()} == {
        name: (r.text, r.reason, r.good) for name, r in computed.items()
    }
    for name, rollout in found.items():
        assert rollout.statistics == pytest.approx(computed[name].statistics, rel=1e-6)
    ledger.close()
    other.close()


def test_grading_again_keeps_what_is_graded(study: Study, tmp_path: Path) -> None:
    made, graded = tmp_path / "made.gz", tmp_path / "graded.gz"
    rows = study.plan.dev[:3]
    lines = [make_line(row.id, text) for row, text in zip(rows, ("yes", "no", "maybe"), strict=True)]
    append_lines(made, lines[:2])
    grade_file(made, graded, study)
    append_lines(made, lines[2:])
    grade_file(made, graded, study)
    expected = {line.id: line.text == row.example.reference for line, row in zip(lines, rows, strict=True)}
    assert {line.id: line.good for line in read_lines(graded)} == expected


def test_a_response_that_was_cut_is_bad_whatever_it_says(study: Study, tmp_path: Path) -> None:
    row = study.plan.dev[0]
    append_lines(tmp_path / "made.gz", [make_line(row.id, row.example.reference, reason="length")])
    grade_file(tmp_path / "made.gz", tmp_path / "graded.gz", study)
    assert [line.good for line in read_lines(tmp_path / "graded.gz")] == [False]


def test_rollouts_of_another_study_are_refused(study: Study, tmp_path: Path) -> None:
    append_lines(tmp_path / "made.gz", [make_line("f" * 64, "yes")])
    with pytest.raises(InvalidInputError, match="of no row of this study"):
        grade_file(tmp_path / "made.gz", tmp_path / "graded.gz", study)


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert open_for_more(tmp_path / "missing.gz") == []


def make_line(name: str, text: str, *, reason: str = "stop") -> RolloutLine:
    return RolloutLine(
        generator=CANDIDATE, id=name, limit=4, text=text, reason=reason, statistics=tuple(float(n) for n in range(10))
    )
