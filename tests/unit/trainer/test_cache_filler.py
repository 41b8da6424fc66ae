"""Processes beside the training fill the compiler's caches; whatever befalls them, the training goes on as without."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from shammah_trainer.cache_filler import CacheFiller
from shammah_trainer.compile_plan import describe
from shammah_trainer.passes import Passes
from shammah_trainer.student import Student, load_student
from torch._dynamo.utils import counters
from unit.trainer.test_passes import CPU, gradients
from unit.trainer.test_rehearsal import BEHIND, backend, make_passes

__all__ = ["backend"]  # a fixture

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

DIES = "import sys; sys.exit('no room here')"
WAITS = "import sys; sys.stdin.buffer.read()"
# As where the plan comes late: what is compiled to warm up must not change what is compiled for it.
WARMS_UP = """
import select
select.select = lambda *_: ([], [], [])
from shammah_trainer.cache_filling import main
main()
"""
BEGINS = """
import sys, torch
from shammah_trainer.cache_filler import CacheFiller
filler = CacheFiller(torch.device("cpu"))
print(*filler.processes, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, for this process and those that it starts."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture
def student(tiny_generator: Path) -> Student:
    return load_student(tiny_generator, device=CPU)


def make_filler(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, *, most_seconds: float = 60.0) -> CacheFiller:
    """Start processes that run `text` instead of a compiler."""
    (folder / "stand_in.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return CacheFiller(CPU, module="stand_in", most_seconds=most_seconds)


def take_over(passes: Passes, staged: torch.Tensor) -> None:
    """Prepare, wait until blocks are compiled, take them over and clear what that leaves."""
    passes.prepare(staged)
    assert passes._rehearsal is not None
    passes._rehearsal._thread.join()
    passes.improve(staged)
    for parameter in passes.flat.model.parameters():
        parameter.grad = None
    passes.loss.zero_()


def compute(passes: Passes, staged: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    passes.add(staged)
    found = float(passes.loss), gradients(passes.flat.model)
    passes.loss.zero_()
    return found


def check_same(found: tuple[float, dict[str, torch.Tensor]], wanted: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert found[0] == pytest.approx(wanted[0], abs=1e-4)
    assert found[1].keys() == wanted[1].keys()
    assert all(torch.allclose(found[1][name], wanted[1][name], atol=1e-4, rtol=1e-3) for name in wanted[1])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("late", [False, True])
def test_what_the_processes_compiled_is_found_by_the_training(
    student: Student, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    torch._dynamo.reset()
    counters.clear()
    made = make_filler(tmp_path, WARMS_UP, monkeypatch, most_seconds=600) if late else None
    passes, staged = make_passes(student, BEHIND, made or CacheFiller(CPU, most_seconds=600))
    eager = compute(passes, staged)
    take_over(passes, staged)
    assert "in processes beside the training" in passes.notes[0]
    # A block forward and backward, and the loss; the first two are one entry of the other cache.
    assert passes.notes[1:] == ["the compiler's caches had 3 of 3 graphs"]
    assert counters["aot_autograd"]["autograd_cache_hit"] == 2
    assert not counters["aot_autograd"]["autograd_cache_miss"]
    assert passes.timings["blocks_compile"] > 0 < passes.timings["loss_compile"]
    assert 0 < passes.timings["given"] < passes.timings["fill"]
    assert "compiled" in passes.engine
    check_same(compute(passes, staged), eager)
    passes.close()
    # The next training of this kind knows that nothing is left to be compiled.
    assert passes.shape is not None
    filler = CacheFiller(CPU)
    filler.give(describe(passes.flat, passes.shape, chunk=passes.chunk))
    assert (filler.fill(), filler.closed, filler.seconds) == ("", True, {})
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("text", "most_seconds", "said"), [(DIES, 60.0, "blocks: exit 1, no room here"), (WAITS, 0.0, "not done in time")]
)
def test_where_a_process_dies_or_is_late_a_thread_compiles(
    student: Student,
    caches: Path,
    backend: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    most_seconds: float,
    said: str,
) -> None:
    filler = make_filler(tmp_path, text, monkeypatch, most_seconds=most_seconds)
    passes, staged = make_passes(student, BEHIND, filler)
    eager = compute(passes, staged)
    take_over(passes, staged)
    assert said in passes.notes[0]
    assert backend.frame_count == 2
    assert "compiled" in passes.engine
    check_same(compute(passes, staged), eager)
    assert filler.closed
    assert not list(caches.glob("shammah/*"))
    passes.close()


def test_a_training_that_ends_first_ends_the_processes_and_compiles_nothing(
    student: Student, caches: Path, backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = make_filler(tmp_path, WAITS, monkeypatch)
    ends = [os.pidfd_open(process) for process in filler.processes]
    passes, staged = make_passes(student, BEHIND, filler)
    passes.prepare(staged)
    passes.close()
    assert backend.frame_count == 0
    for end in ends:
        assert select.select([end], [], [], 0)[0]
        os.close(end)


def test_processes_end_with_the_training_that_is_killed() -> None:
    training = subprocess.Popen([sys.executable, "-c", BEGINS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert training.stdin is not None
    assert training.stdout is not None
    ends = [os.pidfd_open(int(process)) for process in training.stdout.readline().split()]
    assert len(ends) == 2
    training.kill()
    training.wait()
    for end in ends:
        assert select.select([end], [], [], 120)[0]
        os.close(end)
    training.stdin.close()
    training.stdout.close()
