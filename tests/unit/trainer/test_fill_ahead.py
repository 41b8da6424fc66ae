"""Processes that compile are begun before the training that may use them, and end where it does not or never comes."""

from __future__ import annotations

import gzip
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from shammah_chassis.errors import ArtifactError
from shammah_trainer.cache_filler import CacheFiller
from shammah_trainer.fill_ahead import COMPILE_TOKENS, compiles_behind, fill_ahead, guess_tokens, read_size
from shammah_trainer.hyper import SftHyper
from shammah_trainer.processes import Processes
from shammah_trainer.sft import fine_tune
from shammah_trainer.soup import fine_tune_soup
from shammah_trainer.student import load_student
from unit.trainer.test_passes import CPU, make_rows

HYPER = SftHyper(epochs=1, learning_rate=1e-3)
GPU = torch.device("cuda")


def open_ends(filler: CacheFiller | None) -> list[int]:
    """Return a descriptor for each process, which can be read once it has ended."""
    assert filler is not None
    return [os.pidfd_open(process) for process in filler.processes]


def have_ended(ends: Sequence[int]) -> bool:
    found = [bool(select.select([end], [], [], 0)[0]) for end in ends]
    for end in ends:
        os.close(end)
    return all(found)


def test_where_the_load_fails_the_processes_end(tmp_path: Path) -> None:
    ends: list[int] = []

    def load() -> None:
        with fill_ahead(CPU, wanted=True) as filler:
            ends.extend(open_ends(filler))
            load_student(tmp_path, device=CPU)

    with pytest.raises(ArtifactError):
        load()
    assert len(ends) == 2
    assert have_ended(ends)


@pytest.mark.parametrize("train", [fine_tune, fine_tune_soup])
def test_a_training_that_compiles_nothing_ends_them_before_its_first_step(tiny_generator: Path, train) -> None:
    student = load_student(tiny_generator, device=CPU)
    closed: list[bool] = []
    with fill_ahead(CPU, wanted=True) as filler:
        ends = open_ends(filler)
        assert filler is not None

        def note(share: float) -> None:
            closed.append(filler.closed)

        train(student, make_rows(), [], hyper=HYPER, processes=Processes(filler=filler), progress=note)
        assert have_ended(ends)
    assert closed
    assert all(closed)


def test_where_they_are_not_wanted_or_can_not_be_started_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with fill_ahead(CPU, wanted=False) as filler:
        assert filler is None
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with fill_ahead(CPU, wanted=True) as filler:
        assert filler is None


@pytest.mark.parametrize(
    ("device", "mode", "tokens", "wanted"),
    [
        (GPU, "auto", COMPILE_TOKENS, True),
        (GPU, "auto", COMPILE_TOKENS - 1, False),
        (GPU, "on", COMPILE_TOKENS, False),
        (GPU, "off", COMPILE_TOKENS, False),
        (CPU, "auto", COMPILE_TOKENS, False),
    ],
)
def test_only_a_long_training_on_a_gpu_compiles_beside_its_steps(device, mode, tokens: int, wanted: bool) -> None:
    assert compiles_behind(SftHyper(compile_mode=mode), device, tokens=tokens) is wanted


def test_the_size_of_a_training_is_guessed_from_its_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 4000))
    assert read_size(path) == 4000
    assert guess_tokens(read_size(path), SftHyper(epochs=3)) == 3000
    assert read_size(tmp_path / "none") == 0
