"""Fine-tuning: it lowers the loss, is repeatable, and touches only what it may."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Message
from shammah_generator.chat import encode_example, load_tokenizer
from shammah_trainer.batches import RowTable, SftRow, tabulate
from shammah_trainer.passes import Passes
from shammah_trainer.problems import DeviceMemoryError, DivergedError, StoppedError
from shammah_trainer.sft import Resume, SftHyper, evaluate_loss, fine_tune
from shammah_trainer.sft_state import make_key
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
    result = fine_tune(student, encode(tiny_generator, 64), dev, hyper=HYPER, progress=shares.append)
    assert result.loss_after < 0.5 * result.loss_before
    assert result.loss_after == pytest.approx(evaluate_loss(student, dev, hyper=HYPER), rel=1e-5)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_same_seed_gives_the_same_weights(tiny_generator: Path) -> None:
    rows = encode(tiny_generator, 24)
    made = []
    for seed in (3, 3, 4):
        student = load(tiny_generator)
        fine_tune(student, rows, [], hyper=SftHyper(epochs=1, learning_rate=1e-3, seed=seed))
        made.append(weights_of(student))
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert any(not torch.equal(made[0][name], made[2][name]) for name in made[0])


def test_upper_layers_mode_changes_only_those_and_the_last_norm(tiny_generator: Path) -> None:
    student = load(tiny_generator)
    before = weights_of(student)
    hyper = SftHyper(epochs=1, learning_rate=1e-3, upper_layers=1)
    fine_tune(student, encode(tiny_generator, 16), [], hyper=hyper)
    after = weights_of(student)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("model.layers.1.") or name == "model.norm.weight" for name in changed)


def test_more_upper_layers_than_the_model_has_are_refused(tiny_generator: Path) -> None:
    with pytest.raises(InvalidInputError, match="upper_layers is 3"):
        fine_tune(load(tiny_generator), [], [], hyper=SftHyper(upper_layers=3))


def test_a_loss_that_is_no_number_is_an_error_by_name(tiny_generator: Path) -> None:
    student = load(tiny_generator)
    with torch.no_grad():
        student.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError):
        fine_tune(student, encode(tiny_generator, 8), [], hyper=HYPER)


def test_a_row_of_weight_nought_teaches_nothing(tiny_generator: Path) -> None:
    rows = encode(tiny_generator, 8)
    heavy = SftRow((1, 5, 6, 7), (False, True, True, True), 0.0)
    student = load(tiny_generator)
    hyper = SftHyper(epochs=1, learning_rate=1e-2, weight_decay=0.0)
    before = evaluate_loss(student, [SftRow(heavy.ids, heavy.mask)], hyper=hyper)
    fine_tune(student, [heavy] * 8, rows, hyper=hyper)
    after = evaluate_loss(student, [SftRow(heavy.ids, heavy.mask)], hyper=hyper)
    assert after == pytest.approx(before, abs=1e-6)


def test_an_error_of_the_progress_function_ends_the_training(tiny_generator: Path) -> None:
    def stop(share: float) -> None:
        raise StoppedError("enough")

    with pytest.raises(StoppedError):
        fine_tune(load(tiny_generator), encode(tiny_generator, 8), [], hyper=HYPER, progress=stop)


def same(one: Student, two: Student) -> bool:
    left, right = weights_of(one), weights_of(two)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_that_was_killed_is_taken_up_and_ends_with_the_same_weights(tiny_generator: Path, tmp_path: Path) -> None:
    rows = encode(tiny_generator, 40)
    hyper = replace(HYPER, averaging="ema", dev_checks=3, patience=99, save_seconds=0.0)
    whole = load(tiny_generator)
    fine_tune(whole, rows, rows[:8], hyper=hyper)

    def stop(share: float) -> None:
        if share > 0.5:
            raise StoppedError("killed")

    resume = Resume(tmp_path / "resume", "parent")
    halfway = load(tiny_generator)
    with pytest.raises(StoppedError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("shammah_trainer.sft_run._TELL_SECONDS", 0.0)
        fine_tune(halfway, rows, rows[:8], hyper=hyper, progress=stop, resume=resume)
    again = load(tiny_generator)
    result = fine_tune(again, rows, rows[:8], hyper=hyper, resume=resume)
    assert any("taken up at step" in note for note in result.notes)
    assert same(whole, again)
    assert not list((tmp_path / "resume").iterdir())


def test_a_saved_state_of_other_rows_or_another_parent_is_not_taken_up(tiny_generator: Path, tmp_path: Path) -> None:
    hyper = replace(HYPER, save_seconds=0.0)

    def stop(share: float) -> None:
        if share > 0.5:
            raise StoppedError("killed")

    rows = encode(tiny_generator, 24)
    with pytest.raises(StoppedError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("shammah_trainer.sft_run._TELL_SECONDS", 0.0)
        fine_tune(load(tiny_generator), rows, [], hyper=hyper, progress=stop, resume=Resume(tmp_path, "a"))
    assert list(tmp_path.iterdir())
    for others, parent in ((rows[1:], "a"), (rows, "b")):
        result = fine_tune(load(tiny_generator), others, [], hyper=hyper, resume=Resume(tmp_path, parent))
        assert not result.notes


def test_a_torn_state_is_ignored(tiny_generator: Path, tmp_path: Path) -> None:
    (tmp_path / "sft-state.safetensors").write_bytes(b"half a file")
    resume = Resume(tmp_path, "a")
    result = fine_tune(load(tiny_generator), encode(tiny_generator, 8), [], hyper=HYPER, resume=resume)
    assert not result.notes


class Narrow:
    """Passes on a device that has room for so many tokens at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.add = Passes.add

    def patched(self, passes: Passes, staged: Any) -> None:
        if len(staged.ids) > self.room:
            raise torch.OutOfMemoryError(f"no room for {len(staged.ids)}")
        self.add(passes, staged)


def test_memory_that_runs_out_halves_the_batches_and_teaches_the_same(
    tiny_generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = encode(tiny_generator, 32)
    roomy = load(tiny_generator)
    wanted = fine_tune(roomy, rows, [], hyper=HYPER)
    narrow = Narrow(130)
    monkeypatch.setattr(Passes, "add", lambda passes, staged: narrow.patched(passes, staged))
    student = load(tiny_generator)
    result = fine_tune(student, rows, [], hyper=HYPER)
    assert result.steps == wanted.steps
    assert any("out of memory with 512 tokens at once" in note for note in result.notes)
    assert result.loss_after == pytest.approx(wanted.loss_after, abs=1e-3)


def test_a_row_that_alone_has_no_room_is_an_error_by_name(
    tiny_generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = Narrow(3)
    monkeypatch.setattr(Passes, "add", lambda passes, staged: narrow.patched(passes, staged))
    with pytest.raises(DeviceMemoryError, match="no room"):
        fine_tune(load(tiny_generator), encode(tiny_generator, 8), [], hyper=HYPER)


def test_several_bins_a_step_are_one_larger_step(tiny_generator: Path) -> None:
    rows = encode(tiny_generator, 32)
    one, two = load(tiny_generator), load(tiny_generator)
    large = replace(HYPER, batch_tokens=4096, max_rows_per_batch=8, epochs=1)
    first = fine_tune(one, rows, [], hyper=large)
    second = fine_tune(two, rows, [], hyper=replace(large, max_rows_per_batch=4, accumulate=2))
    assert first.steps == second.steps == 4
    assert second.loss_after == pytest.approx(first.loss_after, abs=1e-4)


def test_a_dev_loss_that_rises_ends_the_training_with_the_best_weights(tiny_generator: Path) -> None:
    train, dev = encode(tiny_generator, 16), encode(tiny_generator, 16, seed=1)
    wrong = [SftRow((*row.ids[:-2], 7, 2), row.mask) for row in train]
    hyper = replace(HYPER, epochs=20, dev_checks=20, patience=2, learning_rate=2e-2)
    student = load(tiny_generator)
    result = fine_tune(student, wrong, dev, hyper=hyper)
    assert result.cut_short
    assert any("did not fall any more" in note for note in result.notes)
    unchecked = load(tiny_generator)
    worse = fine_tune(unchecked, wrong, dev, hyper=replace(hyper, dev_checks=0))
    assert result.loss_after < worse.loss_after


@pytest.mark.parametrize("averaging", ["ema", "tail"])
def test_averaged_weights_lie_between_those_of_the_steps(tiny_generator: Path, averaging: Any) -> None:
    rows = encode(tiny_generator, 32)
    plain, averaged = load(tiny_generator), load(tiny_generator)
    fine_tune(plain, rows, [], hyper=HYPER)
    result = fine_tune(averaged, rows, [], hyper=replace(HYPER, averaging=averaging))
    assert not same(plain, averaged)
    assert result.loss_after < result.loss_before


def test_lora_learns_and_leaves_a_plain_model(tiny_generator: Path) -> None:
    pytest.importorskip("peft")
    rows = encode(tiny_generator, 48)
    student = load(tiny_generator)
    names, before = set(student.model.state_dict()), weights_of(student)
    result = fine_tune(student, rows, [], hyper=replace(HYPER, lora_rank=4, learning_rate=2e-2))
    assert result.loss_after < 0.8 * result.loss_before
    assert set(student.model.state_dict()) == names
    after = weights_of(student)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])


def test_weights_of_rows_count(tiny_generator: Path) -> None:
    prompt = (1, 40, 41, 42)
    rows = [SftRow((*prompt, answer, 2), (False,) * 4 + (True,) * 2, weight) for answer, weight in ((9, 10), (11, 1))]
    student = load(tiny_generator)
    hyper = replace(HYPER, epochs=30)
    fine_tune(student, rows * 4, [], hyper=hyper)
    losses = [evaluate_loss(student, [SftRow(row.ids, row.mask)], hyper=hyper) for row in rows]
    # Contradictory answers to one query: the one of weight 10 has ten times the say.
    assert losses[0] < losses[1]
    assert 2 * (losses[1] - losses[0]) == pytest.approx(2.3, abs=0.7)  # ln 10, over two ids of which one is sure


@pytest.mark.parametrize(
    "kind", ["none", "one", "identical", "huge response", "huge prompt", "empty response", "no weight", "no epoch"]
)
def test_odd_rows_are_no_accident(tiny_generator: Path, kind: str) -> None:
    tokenizer = load_tokenizer(tiny_generator / "tokenizer.json")
    long = "all work and no play " * 5000
    texts = {
        "one": [("a", "b")],
        "identical": [("start", "yes")] * 10_000,
        "huge response": [("a", long), ("a", "b")],
        "huge prompt": [(long, "b"), ("a", "b")],
        "empty response": [("a", ""), ("b", "c")],
        "no weight": [("a", "b")],
        "no epoch": [("a", "b")],
    }.get(kind, [])
    encoded = [encode_example(tokenizer, (Message("user", query),), response) for query, response in texts]
    rows = [SftRow(tuple(ids), tuple(mask), 0.0 if kind == "no weight" else 1.0) for ids, mask in encoded]
    epochs = 0 if kind == "no epoch" else 1
    hyper = SftHyper(epochs=epochs, batch_tokens=8192, max_rows_per_batch=512, max_tokens=256, learning_rate=1e-3)
    result = fine_tune(load(tiny_generator), rows, [], hyper=hyper)
    assert result.rows + result.dropped == len(rows)
    assert result.dropped == (1 if kind == "huge response" else 0)
    assert bool(result.notes) == (kind == "huge response")
    assert (result.steps == 0) == (kind in ("none", "no epoch"))
    if kind == "identical":
        assert result.loss_after < result.loss_before


def test_hyper_parameters_out_of_range_are_refused(tiny_generator: Path) -> None:
    with pytest.raises(InvalidInputError, match="accumulate is 0"):
        fine_tune(load(tiny_generator), [], [], hyper=SftHyper(accumulate=0))


def test_old_rows_are_recalled_and_make_another_run_of_it(tiny_generator: Path) -> None:
    rows = encode(tiny_generator, 12)
    result = fine_tune(load(tiny_generator), rows[:4], [], hyper=replace(HYPER, epochs=2), replay=rows[4:])
    assert result.rows == 12
    # Two epochs of four new and four old rows, not of all twelve.
    alone = fine_tune(load(tiny_generator), rows[:8], [], hyper=replace(HYPER, epochs=2))
    assert result.steps == alone.steps

    def name(table: RowTable) -> str:
        return make_key(table, tabulate([]), HYPER, parent="a", device="cpu")

    assert name(tabulate(rows)) != name(tabulate(rows[:4], rows[4:]))
