"""Several trainings from the same start, by other seeds, as one student: the mean of their weights.

Wortsman et al. 2022, "Model soups" (the uniform one). It costs training time, and nothing where the student serves. It
knows students and rows, no category and no round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from shammah_trainer.batches import SftRow
from shammah_trainer.hyper import Resume, SftHyper, SftResult
from shammah_trainer.processes import BY_ITSELF, Processes
from shammah_trainer.sft import evaluate_loss, fine_tune
from shammah_trainer.student import Student


def fine_tune_soup(
    student: Student,
    train: Sequence[SftRow],
    dev: Sequence[SftRow],
    *,
    hyper: SftHyper,
    replay: Sequence[SftRow] = (),
    progress: Callable[[float], None] = lambda share: None,
    resume: Resume | None = None,
    processes: Processes = BY_ITSELF,
) -> SftResult:
    """Train `hyper.soup` times and leave the mean of the weights in `student`; one training is a plain `fine_tune`.

    Seconds and steps are of all of them; several are not resumed. Raises as `fine_tune`. What the first compiles, with
    processes that were begun ahead, the caches keep for the others.
    """
    if hyper.soup == 1:
        return fine_tune(
            student, train, dev, hyper=hyper, replay=replay, progress=progress, resume=resume, processes=processes
        )
    start = {name: tensor.clone() for name, tensor in student.model.state_dict().items()}
    mean = {name: torch.zeros_like(tensor, dtype=torch.float32) for name, tensor in start.items()}
    results: list[SftResult] = []
    for number in range(hyper.soup):

        def tell(share: float, done: int = number) -> None:
            progress((done + share) / hyper.soup)

        fill_weights(student, start)
        other = replace(hyper, seed=hyper.seed + number)
        own = replace(processes, filler=None) if number else processes
        results.append(fine_tune(student, train, dev, hyper=other, replay=replay, progress=tell, processes=own))
        for name, tensor in student.model.state_dict().items():
            mean[name] += tensor.detach().float() / hyper.soup
    fill_weights(student, mean)
    return replace(
        results[0],
        loss_after=evaluate_loss(student, dev, hyper=hyper) if dev else results[-1].loss_after,
        steps=sum(result.steps for result in results),
        seconds=round(sum(result.seconds for result in results), 3),
        prepare_seconds=round(sum(result.prepare_seconds for result in results), 3),
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
    )


@torch.no_grad()  # type: ignore[untyped-decorator]
def fill_weights(student: Student, weights: Mapping[str, torch.Tensor]) -> None:
    """Overwrite the weights of a student by those of another of its shape."""
    for name, tensor in student.model.state_dict().items():
        tensor.copy_(weights[name])
