"""The way back to the weights that a run started from: a pull at each step, and a share that is kept at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shammah_chassis.errors import InvalidInputError
from shammah_generator.chat import encode_example, load_tokenizer
from shammah_trainer.averaging import Anchor
from shammah_trainer.batches import SftRow
from shammah_trainer.sft import SftHyper, fine_tune
from shammah_trainer.student import Student, load_student
from support.trainer import make_switch_rows

HYPER = SftHyper(epochs=2, learning_rate=5e-3, batch_tokens=512, max_rows_per_batch=8)


def make_rows(folder: Path, count: int, *, seed: int) -> list[SftRow]:
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    rows = [encode_example(tokenizer, row.query, row.response) for row in make_switch_rows(count, seed=seed)]
    return [SftRow(tuple(ids), tuple(mask)) for ids, mask in rows]


def learn(folder: Path, *, hyper: SftHyper, replay: bool = True) -> tuple[Student, tuple[str, ...]]:
    student = load_student(folder, device=torch.device("cpu"))
    old = make_rows(folder, 16, seed=2) if replay else []
    result = fine_tune(student, make_rows(folder, 16, seed=1), [], hyper=hyper, replay=old)
    return student, result.notes


def flatten(student: Student) -> torch.Tensor:
    return torch.cat([value.reshape(-1) for _, value in sorted(student.model.state_dict().items())])


def test_a_share_of_the_first_weights_is_kept(tiny_generator: Path) -> None:
    start = flatten(load_student(tiny_generator, device=torch.device("cpu")))
    end, _ = learn(tiny_generator, hyper=HYPER)
    kept, notes = learn(tiny_generator, hyper=replace(HYPER, kept=0.25))
    assert torch.allclose(flatten(kept), torch.lerp(flatten(end), start, 0.25), atol=1e-6)
    assert "25% of the weights that it started from are kept" in notes


def test_the_pull_keeps_the_weights_nearer_to_the_first(tiny_generator: Path) -> None:
    start = flatten(load_student(tiny_generator, device=torch.device("cpu")))
    ways = [float((flatten(learn(tiny_generator, hyper=replace(HYPER, anchor=a))[0]) - start).norm()) for a in (0, 20)]
    assert ways[1] < 0.95 * ways[0]


def test_where_nothing_is_recalled_nothing_is_held_back(tiny_generator: Path) -> None:
    free, _ = learn(tiny_generator, hyper=HYPER, replay=False)
    told, notes = learn(tiny_generator, hyper=replace(HYPER, anchor=20, kept=0.5), replay=False)
    assert torch.equal(flatten(free), flatten(told))
    assert not notes


@pytest.mark.parametrize(("best", "share"), [(0.0, 0.0), (0.2, 0.2), (0.4, 0.4), (0.9, 0.4)])
def test_the_share_with_the_least_dev_loss_is_kept(best: float, share: float) -> None:
    start, vector = torch.zeros(3), torch.ones(3)
    anchor = Anchor(SftHyper(kept=0.4, kept_checks=4), start, recalls=True)
    found = anchor.keep(vector, lambda: abs(float(1 - vector[0]) - best))
    assert found == pytest.approx(share)
    assert vector.tolist() == pytest.approx([1 - share] * 3)


@pytest.mark.parametrize("wrong", [{"kept": 1.0}, {"kept": -0.1}, {"anchor": -1.0}, {"kept_checks": -1}])
def test_what_is_out_of_range_is_refused(tiny_generator: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        learn(tiny_generator, hyper=replace(HYPER, **wrong))  # type: ignore[arg-type]
