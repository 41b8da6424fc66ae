"""The mean of several trainings: of the same start, by other seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from shammah_trainer.sft import SftHyper, evaluate_loss, fine_tune
from shammah_trainer.soup import fine_tune_soup
from unit.trainer.test_sft import encode, load, weights_of

HYPER = SftHyper(epochs=2, learning_rate=3e-3, batch_tokens=512, max_rows_per_batch=8, seed=5)


def test_a_soup_is_the_mean_of_trainings_by_other_seeds_from_the_same_start(tiny_generator: Path) -> None:
    rows, dev = encode(tiny_generator, 32), encode(tiny_generator, 12, seed=1)
    parts = []
    for seed in (5, 6):
        student = load(tiny_generator)
        fine_tune(student, rows, dev, hyper=replace(HYPER, seed=seed))
        parts.append(weights_of(student))
    student = load(tiny_generator)
    shares: list[float] = []
    result = fine_tune_soup(student, rows, dev, hyper=replace(HYPER, soup=2), progress=shares.append)
    for name, tensor in student.model.state_dict().items():
        torch.testing.assert_close(tensor, (parts[0][name] + parts[1][name]) / 2)
    assert result.loss_after == evaluate_loss(student, dev, hyper=HYPER) < result.loss_before
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_a_soup_of_one_is_a_plain_training(tiny_generator: Path) -> None:
    rows = encode(tiny_generator, 16)
    made = []
    for train in (fine_tune, fine_tune_soup):
        student = load(tiny_generator)
        train(student, rows, [], hyper=HYPER)
        made.append(weights_of(student))
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
