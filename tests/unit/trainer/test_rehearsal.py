"""Blocks are compiled in a thread while bins are computed eagerly, and taken over without another compilation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shammah_trainer import rehearsal as rehearsal_module
from shammah_trainer.batches import BinLimits, BinShape, RowTable, choose_shape, fill_bin, tabulate
from shammah_trainer.cache_filler import CacheFiller
from shammah_trainer.passes import Passes, PassOptions, stage
from shammah_trainer.rehearsal import compile_parts, copy_kinds
from shammah_trainer.student import Student, freeze_lower, load_student
from torch._dynamo.testing import CompileCounterWithBackend
from unit.trainer.test_passes import CPU, gradients, make_rows

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
BEHIND = PassOptions(compiled=True, behind=True)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A quick compiler that counts what it compiles."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(rehearsal_module, "compile_parts", partial(compile_parts, counter))
    yield counter
    torch._dynamo.reset()


def make_passes(
    student: Student, options: PassOptions, filler: CacheFiller | None = None
) -> tuple[Passes, torch.Tensor]:
    table: RowTable = tabulate(make_rows())
    shape: BinShape = choose_shape(table, BinLimits(512, 16))[1]
    filled = fill_bin(table, np.arange(len(table)), total_weight=1.0, pad_id=2, shape=shape)
    passes = Passes(student.model, longest=64, shape=shape, options=options, way="padded", filler=filler)
    staged = stage(filled, shape=shape, device=CPU)
    assert isinstance(staged, torch.Tensor)
    return passes, staged


@pytest.mark.parametrize(("upper_layers", "kinds"), [(0, 1), (1, 2)])
def test_what_the_thread_compiled_serves_the_steps(
    tiny_generator: Path, backend: Any, upper_layers: int, kinds: int
) -> None:
    student = load_student(tiny_generator, device=CPU)
    freeze_lower(student, upper_layers=upper_layers)
    assert len(copy_kinds(student.model).model.layers) == kinds
    passes, staged = make_passes(student, BEHIND)
    passes.prepare(staged)
    passes.add(staged)  # eagerly: the thread may be done or not
    eager = (float(passes.loss), gradients(student.model))
    rehearsal = passes._rehearsal
    assert rehearsal is not None
    rehearsal._thread.join()
    compiled = backend.frame_count
    assert passes.improvable
    passes.improve(staged)
    assert not passes.improvable
    gradients(student.model)  # leftovers
    passes.loss.zero_()
    passes.add(staged)
    assert backend.frame_count == compiled == kinds + 1
    assert "compiled" in passes.engine
    assert float(passes.loss) == pytest.approx(eager[0], abs=1e-4)
    found = gradients(student.model)
    assert found.keys() == eager[1].keys()
    assert all(torch.allclose(found[n], eager[1][n], atol=1e-4, rtol=1e-3) for n in found)
    passes.close()


def test_the_copies_leave_weights_and_gradients_alone(tiny_generator: Path, backend: Any) -> None:
    student = load_student(tiny_generator, device=CPU)
    before = {name: value.clone() for name, value in student.model.state_dict().items()}
    passes, staged = make_passes(student, BEHIND)
    passes.prepare(staged)
    passes.close()
    assert passes._rehearsal is None
    assert not gradients(student.model)
    assert all(torch.equal(before[name], value) for name, value in student.model.state_dict().items())


def test_where_nothing_can_be_compiled_the_steps_go_on_eagerly(
    tiny_generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no compiler here")

    torch._dynamo.reset()
    monkeypatch.setattr(rehearsal_module, "compile_parts", partial(compile_parts, refuse))
    student = load_student(tiny_generator, device=CPU)
    passes, staged = make_passes(student, BEHIND)
    passes.prepare(staged)
    assert passes._rehearsal is not None
    passes._rehearsal._thread.join()
    passes.improve(staged)
    assert any("torch.compile failed" in note for note in passes.notes)
    passes.add(staged)
    assert "compiled" not in passes.engine
    assert gradients(student.model)
    passes.close()
    torch._dynamo.reset()
