"""The router's studies: which queries to send to the strong model, ranked by what the query alone tells.

Scores of four kinds are averaged: a fine-tuned encoder, a ridge regression and the nearest neighbours on the untouched
embedding, and what is known of the subject or benchmark that the encoder takes the query for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from judges_data import FOLDS, Row, Site, fold_of_row
from judges_tune import Base, QueryNetwork, Recipe, cross_fit_network
from judges_words import weigh_words
from shammah_trainer.encoders.logistic import cross_fit, solve_logistic
from torch import Tensor

Array = npt.NDArray[np.float64]
_RIDGE = 30.0
_NEAREST = 100
_SHRINK = 10.0
_TFIDF_PENALTY = 1.0


@dataclass(frozen=True, slots=True)
class Routing:
    """Rows with the right answers of both models; scores by name, cross-fitted on train rows, test rows have fold -1.

    A higher score means: rather to the strong model.
    """

    rows: list[Row]
    folds: npt.NDArray[np.int64]
    strong: Array
    weak: Array
    scores: dict[str, Array]

    @property
    def benchmarks(self) -> npt.NDArray[np.str_]:
        """Benchmark of each row."""
        return np.array([row["benchmark"] for row in self.rows])


def study_routing(site: Site, base: Base, name: str, *, test: bool, recipe: Recipe) -> Routing:
    """Fit all scores on the train file of `name`; the subject of a test row is used nowhere."""
    rows = site.read(f"router/{name}.train")
    folds = [fold_of_row(row) for row in rows]
    if test:
        held = site.read(f"router/{name}.test")
        rows, folds = [*rows, *held], [*folds, *[-1] * len(held)]
    fold = np.array(folds, dtype=np.int64)
    strong, weak = (np.array([float(row[f"{which}_correct"]) for row in rows]) for which in ("strong", "weak"))
    embedding = base.embed([row["query"] for row in rows])
    tuned, chances = _tune(base, rows, fold, recipe)
    gain = strong - weak
    difficulty = _difficulty(rows, weak)
    subjects = np.array([row["subject"] for row in rows])
    scores = {
        "tuned": tuned,
        "ridge": _cross_fit(fold, lambda seen, asked: _ridge(embedding, gain, seen, asked)),
        "ridge_difficulty": _cross_fit(fold, lambda seen, asked: _ridge(embedding, difficulty, seen, asked)),
        "neighbours": _cross_fit(fold, lambda seen, asked: _nearest(embedding, gain, seen, asked)),
        "subject": _cross_fit(fold, lambda seen, asked: _by_subject(chances, subjects, gain, seen, asked)),
        "length": np.log1p([len(row["query"]) for row in rows]),
        "tfidf": _tfidf(rows, fold, weak),
        # What knowing the true subject would give; no judge, a reference.
        "true_subject": _cross_fit(fold, lambda seen, asked: _by_subject(None, subjects, gain, seen, asked)),
    }
    return Routing(rows, fold, strong, weak, scores)


def average(routing: Routing, names: Sequence[str]) -> Array:
    """Return the mean of scores, each brought to mean 0 and deviation 1 on the train rows."""
    train = routing.folds != -1
    parts = [routing.scores[name] for name in names]
    return np.asarray(np.mean([(part - part[train].mean()) / max(1e-9, part[train].std()) for part in parts], axis=0))


def _difficulty(rows: Sequence[Row], weak: Array) -> Array:
    """Return how many of the models that were asked fail; where only two were asked, whether the weak one fails."""
    scores = [row["metadata"].get("scores") for row in rows]
    return np.array([1.0 - np.mean(list(s.values())) if s else 1.0 - weak[n] for n, s in enumerate(scores)])


def _tune(base: Base, rows: Sequence[Row], folds: npt.NDArray[np.int64], recipe: Recipe) -> tuple[Array, Array]:
    """Fine-tune on all that is known of a row; returns the score `[n]` and logits of the subjects `[n, S]`."""
    names = sorted({row["subject"] for row, fold in zip(rows, folds, strict=True) if fold != -1})
    place = {name: number for number, name in enumerate(names)}
    subject = torch.tensor([place.get(row["subject"], 0) for row in rows], device=base.device)
    answers = _answers(rows)
    target = torch.from_numpy(answers).float().to(base.device)
    count = answers.shape[1]

    def loss(outputs: Tensor, numbers: Tensor) -> Tensor:
        wrong = torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, :count], target[numbers])
        return wrong + 0.3 * torch.nn.functional.cross_entropy(outputs[:, count:], subject[numbers])

    tokens = base.tokenizer.encode([row["query"] for row in rows])
    made = cross_fit_network(
        lambda body: QueryNetwork(body, count + len(names)), base, tokens, folds, [[n] for n in range(len(rows))],
        loss, recipe=recipe,
    )  # fmt: skip
    right = 1.0 / (1.0 + np.exp(-made[:, :count]))
    # Strong minus weak first; of more models, what the others find hard says something of it too.
    score = right[:, 0] - right[:, 1] - (0.5 * right[:, 2:].mean(axis=1) if count > 2 else 0.0)
    return score, made[:, count:]


def _answers(rows: Sequence[Row]) -> Array:
    """Return how right each model was, 0 to 1: strong, weak, then every model of the row's own scores."""
    names = sorted(rows[0]["metadata"].get("scores") or {})
    return np.array(
        [
            [float(row["strong_correct"]), float(row["weak_correct"]), *(row["metadata"]["scores"][n] for n in names)]
            for row in rows
        ]
    )


def _cross_fit(
    folds: npt.NDArray[np.int64], fit: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Array]
) -> Array:
    """Return `fit(seen, asked)` for each fold by the rows outside it, and for test rows by all train rows."""
    made = np.zeros(len(folds))
    for fold in (-1, *range(FOLDS)):
        asked = np.flatnonzero(folds == fold)
        if len(asked):
            made[asked] = fit(np.flatnonzero((folds != fold) & (folds != -1)), asked)
    return made


def _ridge(table: Array, target: Array, seen: npt.NDArray[np.int64], asked: npt.NDArray[np.int64]) -> Array:
    mean = target[seen].mean()
    square = table[seen].T @ table[seen] + _RIDGE * np.eye(table.shape[1])
    weight = np.linalg.solve(square, table[seen].T @ (target[seen] - mean))
    return np.asarray(table[asked] @ weight)


def _nearest(table: Array, target: Array, seen: npt.NDArray[np.int64], asked: npt.NDArray[np.int64]) -> Array:
    cosine = table[asked] @ table[seen].T
    count = min(_NEAREST, len(seen) - 1)
    near = np.argpartition(-cosine, count, axis=1)[:, :count]
    return np.asarray(target[seen][near].mean(axis=1))


def _by_subject(
    logits: Array | None, subjects: npt.NDArray[np.str_], target: Array, seen: npt.NDArray[np.int64],
    asked: npt.NDArray[np.int64],
) -> Array:  # fmt: skip
    """Return the shrunken mean of the subject that a query is of, as far as `logits` know it (None: known)."""
    names = sorted(set(subjects.tolist())) if logits is None else sorted(set(subjects.tolist()))[: logits.shape[1]]
    overall = target[seen].mean()
    means = np.array(
        [
            (target[seen][subjects[seen] == name].sum() + _SHRINK * overall)
            / ((subjects[seen] == name).sum() + _SHRINK)
            for name in names
        ]
    )
    if logits is None:
        return np.array([means[names.index(subjects[number])] for number in asked])
    chance = np.exp(logits[asked] - logits[asked].max(axis=1, keepdims=True))
    return np.asarray((chance / chance.sum(axis=1, keepdims=True)) @ means)


def _tfidf(rows: Sequence[Row], folds: npt.NDArray[np.int64], weak: Array) -> Array:
    """Return the baseline: P(the weak model fails) by logistic regression on TF-IDF of words and pairs of words."""
    train, test = np.flatnonzero(folds != -1), np.flatnonzero(folds == -1)
    texts = [row["query"] for row in rows]
    inside, outside = weigh_words([texts[n] for n in train], [texts[n] for n in test])
    # The penalised optimum lies in the span of the rows: solving there is exact and far smaller.
    basis = np.linalg.qr(inside.T)[0] if inside.shape[0] < inside.shape[1] else np.eye(inside.shape[1])
    wrong = weak[train] < 0.5
    made = np.zeros(len(rows))
    made[train] = cross_fit(inside @ basis, wrong, folds[train], penalty=_TFIDF_PENALTY)
    if len(test):
        weight, bias = solve_logistic(inside @ basis, wrong, penalty=_TFIDF_PENALTY)
        made[test] = 1.0 / (1.0 + np.exp(-(outside @ basis @ weight + bias)))
    return made
