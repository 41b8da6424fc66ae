"""Fine-tuning: it lowers the loss, is repeatable, and touches only what it may."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shammah_chassis.errors import InvalidInputError
from shammah_generator.chat import encode_example, load_tokenizer
from shammah_trainer.batches import SftRow
from shammah_trainer.problems import DivergedError, StoppedError
from shammah_trainer.sft import SftHyper, evaluate_loss, fine_tune
from shammah_trainer.student import Student, load_student
from support.trainer import make_switch_rows

HYPER = SftHyper(epochs=3, learning_rate=5e-3, batch_tokens=512, max_rows_per_batch=8)


def load(folder: Path) -> Student:
    return load_student(folder, device=torch.device("cpu"))


def encode(folder: Path, count: int, *, seed: int = 0) -> list[SftRow]:
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    rows = [encode_example(tokenizer, row.query, row.response) for row in make_switch_rows(count, seed=seed)]
    return [SftRow(tuple(ids), tuple(mask)) for ids, mask in rows]


def weights_of(student: Student) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in student.model.state_dict().items()}


def test_training_lowers_the_loss_on_rows_it_has_not_seen(tiny_generator: Path) -> None:
    student = load(tiny_generator)
    dev = encode(tiny_generator, 20, seed=1)
    shares: list[float] = []
    result = fine_tune(student, encode(tiny_generator, 64), dev, hyper=HYPER, pad_id=2, progress=shares.append)
    assert result.loss_after < 0.5 * result.loss_before
    assert result.loss_after == pytest.approx(evaluate_loss(student, dev, hyper=HYPER, pad_id=2), rel=1e-5)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_same_seed_gives_the_same_weights(tiny_generator: Path) -> None:
    rows = encode(tiny_generator, 24)
    made = []
    for seed in (3, 3, 4):
        student = load(tiny_generator)
        fine_tune(student, rows, [], hyper=SftHyper(epochs=1, learning_rate=1e-3, seed=seed), pad_id=2)
        made.append(weights_of(student))
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert any(not torch.equal(made[0][name], made[2][name]) for name in made[0])


def test_upper_layers_mode_changes_only_those_and_the_last_norm(tiny_generator: Path) -> None:
    student = load(tiny_generator)
    before = weights_of(student)
    hyper = SftHyper(epochs=1, learning_rate=1e-3, upper_layers=1)
    fine_tune(student, encode(tiny_generator, 16), [], hyper=hyper, pad_id=2)
    after = weights_of(student)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("model.layers.1.") or name == "model.norm.weight" for name in changed)


def test_more_upper_layers_than_the_model_has_are_refused(tiny_generator: Path) -> None:
    with pytest.raises(InvalidInputError, match="upper_layers is 3"):
        fine_tune(load(tiny_generator), [], [], hyper=SftHyper(upper_layers=3), pad_id=2)


def test_a_loss_that_is_no_number_is_an_error_by_name(tiny_generator: Path) -> None:
    student = load(tiny_generator)
    with torch.no_grad():
        student.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError):
        fine_tune(student, encode(tiny_generator, 8), [], hyper=HYPER, pad_id=2)


def test_a_row_of_weight_nought_teaches_nothing(tiny_generator: Path) -> None:
    rows = encode(tiny_generator, 8)
    heavy = SftRow((1, 5, 6, 7), (False, True, True, True), 0.0)
    student = load(tiny_generator)
    hyper = SftHyper(epochs=1, learning_rate=1e-2, weight_decay=0.0)
    before = evaluate_loss(student, [SftRow(heavy.ids, heavy.mask)], hyper=hyper, pad_id=2)
    fine_tune(student, [heavy] * 8, rows, hyper=hyper, pad_id=2)
    after = evaluate_loss(student, [SftRow(heavy.ids, heavy.mask)], hyper=hyper, pad_id=2)
    assert after == pytest.approx(before, abs=1e-6)


def test_an_error_of_the_progress_function_ends_the_training(tiny_generator: Path) -> None:
    def stop(share: float) -> None:
        raise StoppedError("enough")

    with pytest.raises(StoppedError):
        fine_tune(load(tiny_generator), encode(tiny_generator, 8), [], hyper=HYPER, pad_id=2, progress=stop)
