"""The validator's studies: is a response made up (HaluEval), does it answer this query (relevance of one family).

Two stages as in the product: a fine-tuned cross-encoder gives cross-fitted text scores; a small head joins them with
counts of words. Heads and their choice are the trainer's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from judges_data import HALU, Row, Site, fold_of_row, group_of
from judges_more import add_workload, index_workload
from judges_stats import Interval, bootstrap
from judges_tune import Base, Loss, PairNetwork, Recipe, cross_fit_network
from judges_words import FORM, describe_length, describe_rows
from shammah_trainer.encoders.head_choice import measure_auroc
from shammah_trainer.encoders.logistic import fit_logistic, standardise
from shammah_trainer.encoders.small_networks import fit_ensemble
from torch import Tensor

Array = npt.NDArray[np.float64]
_CLIP = 4.0
_ON_TOPIC, _HALLUCINATION = 0, 2
_LONGEST_CONTEXT = 1800  # characters: with query and response under 512 tokens


@dataclass(frozen=True, slots=True)
class Study:
    """A judge of one file: its probability of "bad" for each row, cross-fitted on train rows; test rows come last."""

    rows: list[Row]
    bad: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int64]
    probability: Array
    without_form: Array
    length_only: Array

    def part(self, *, test: bool) -> npt.NDArray[np.int64]:
        """Return the row numbers of the test or the train part."""
        return np.flatnonzero((self.folds == -1) == test)

    def accuracy(self, probability: Array, *, test: bool) -> Interval:
        """Return the accuracy at one half."""
        own = self.part(test=test)
        right = ((probability > 0.5) == self.bad)[own].astype(np.float64)
        return bootstrap([group_of(self.rows[n]) for n in own], lambda chosen: float(right[chosen].mean()))

    def auroc(self, probability: Array, *, test: bool) -> Interval:
        """Return P(a bad one is above a good one)."""
        own = self.part(test=test)
        scores, bad = probability[own], self.bad[own]
        return bootstrap(
            [group_of(self.rows[n]) for n in own], lambda chosen: measure_auroc(scores[chosen], bad[chosen])
        )


def study_hallucination(site: Site, base: Base, *, test: bool, recipe: Recipe) -> dict[str, Study]:
    """Train one cross-encoder on all files and one on each; return a study for each of `HALU`."""
    rows, folds = _gather(site, (*HALU, "halueval_qa"), test=test)
    bad = np.array([bool(row["label_hallucinated"]) for row in rows])
    pairs = [(row["response"], f"{row['query']} {_relevant(row)}") for row in rows]
    tokens = base.tokenizer.encode(pairs)
    families = np.array([row["metadata"]["family"].removesuffix("_lencontrol") for row in rows])
    loss = _pair_loss(rows, bad, _HALLUCINATION, device=base.device)
    joint = cross_fit_network(PairNetwork, base, tokens, folds, _pairs_of(rows), loss, recipe=recipe)
    own = np.zeros(len(rows))
    for family in sorted(set(families)):
        chosen = np.flatnonzero(families == family)
        part = [rows[number] for number in chosen]
        made = cross_fit_network(
            PairNetwork, base, [tokens[number] for number in chosen], folds[chosen], _pairs_of(part),
            _pair_loss(part, bad[chosen], _HALLUCINATION, device=base.device), recipe=recipe,
        )  # fmt: skip
        own[chosen] = made[:, _HALLUCINATION]
    response = base.embed([row["response"] for row in rows])
    contexts = ([row["query"] for row in rows], [_relevant(row) for row in rows])
    likeness = [(response * base.embed(texts)).sum(axis=1) for texts in contexts]
    counted = describe_rows(rows)
    features = np.column_stack([joint[:, _HALLUCINATION], own, *likeness, counted])
    studies = {}
    for name in HALU:
        chosen = np.flatnonzero([row["metadata"]["family"] == name for row in rows])
        studies[name] = join([rows[n] for n in chosen], bad[chosen], folds[chosen], features[chosen], form=FORM)
    return studies


def study_relevance(site: Site, base: Base, *, test: bool, recipe: Recipe) -> Study:
    """Learn own answer against another of the same family (or of another), with the index of nearest train rows.

    Returns a study of the rows whose negative is of the same family.
    """
    rows, folds = _gather(site, ("relevance",), test=test)
    known = {group_of(row) for row in rows}
    added = add_workload(site, without=known)
    both = [*rows, *added]
    folds = np.concatenate([folds, np.array([fold_of_row(row) for row in added], dtype=np.int64)])
    bad = np.array([not row["label_relevant"] for row in both])
    tokens = base.tokenizer.encode([(row["query"], row["response"]) for row in both])
    loss = _pair_loss(both, bad, _ON_TOPIC, device=base.device, sign=-1.0)
    text = cross_fit_network(PairNetwork, base, tokens, folds, _pairs_of(both), loss, recipe=recipe)[:, _ON_TOPIC]
    queries, responses = (base.embed([row[name] for row in both]) for name in ("query", "response"))
    index = index_workload(site, base, without=known | {group_of(row) for row in added})
    near = index.measure(queries.astype(np.float32), ["all"] * len(both), [row["response"] for row in both])
    features = np.column_stack([text, (queries * responses).sum(axis=1), near, describe_rows(both)])
    kept = np.flatnonzero([row["metadata"]["kind"] != "answer_of_other_family" for row in both])
    # The head and the figure are of the file's own rows; what was added only taught the cross-encoder.
    kept = kept[kept < len(rows)]
    return join([both[n] for n in kept], bad[kept], folds[kept], features[kept], form=FORM)


def join(
    rows: list[Row], bad: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64], features: Array, *, form: int
) -> Study:
    """Fit the heads on train rows: on all features, without those of form, and on length alone."""
    shorter, length = features[:, : features.shape[1] - form], describe_length(rows)
    return Study(rows, bad, folds, *(_fit_head(table, bad, folds) for table in (features, shorter, length)))


def _fit_head(features: Array, bad: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]) -> Array:
    """Return P(bad): cross-fitted for train rows, by the fit on all of them for test rows; mean of the two heads."""
    train = folds != -1
    _, mean, scale = standardise(features[train], clip=_CLIP)
    standard = np.clip((features - mean) / scale, -_CLIP, _CLIP)
    line = fit_logistic(standard[train], bad[train], folds[train])
    small = fit_ensemble(standard[train], bad[train], folds[train], seed=0)
    with torch.no_grad():
        logits = small.networks.logits(torch.from_numpy(standard).float()).mean(dim=0).numpy().astype(np.float64)
    made = 0.5 * (_sigmoid(standard @ line.weight + line.bias) + _sigmoid(logits))
    made[train] = 0.5 * (line.fitted + small.fitted)
    return made


def _sigmoid(values: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -500, 500))))


def _gather(site: Site, names: Sequence[str], *, test: bool) -> tuple[list[Row], npt.NDArray[np.int64]]:
    """Return the train rows of files with their folds, and the test rows with fold -1 (of the first three files)."""
    rows = [row for name in names for row in site.read(f"validator/{name}.train")]
    folds = [fold_of_row(row) for row in rows]
    if test:
        held = [row for name in names if name != "halueval_qa" for row in site.read(f"validator/{name}.test")]
        shared = {group_of(row) for row in rows} & {group_of(row) for row in held}
        if shared:
            raise ValueError(f"{len(shared)} queries are in train and in test")
        rows, folds = [*rows, *held], [*folds, *[-1] * len(held)]
    return rows, np.array(folds, dtype=np.int64)


def _relevant(row: Row) -> str:
    """Return the sentences of the context that share most words with the response, in their order, within bounds."""
    context = row["context"] or ""
    if len(context) <= _LONGEST_CONTEXT:
        return context
    sentences = re.split(r"(?<=[.!?])\s+", context)
    said = set(row["response"].lower().split())
    order = sorted(range(len(sentences)), key=lambda n: -len(said & set(sentences[n].lower().split())))
    kept, size = [], 0
    for number in order:
        size += len(sentences[number])
        if size > _LONGEST_CONTEXT:
            break
        kept.append(number)
    return " ".join(sentences[number] for number in sorted(kept))


def _pairs_of(rows: Sequence[Row]) -> list[list[int]]:
    """Return the row numbers of each query of each file."""
    found: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(_query_of(row), []).append(number)
    return list(found.values())


def _pair_loss(
    rows: Sequence[Row], bad: npt.NDArray[np.bool_], column: int, *, device: torch.device, sign: float = 1.0
) -> Loss:
    """Cross-entropy of one output, plus for a bad and a good row of one query: the bad one higher.

    `sign` -1: the output means good.
    """
    names = {name: number for number, name in enumerate(sorted({_query_of(row) for row in rows}))}
    query = torch.tensor([names[_query_of(row)] for row in rows], device=device)
    target = torch.from_numpy(bad.astype(np.float32)).to(device)

    def loss(outputs: Tensor, numbers: Tensor) -> Tensor:
        logits, wanted, asked = sign * outputs[:, column], target[numbers], query[numbers]
        plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        # Rows of a query are neighbours in the batch: each row against the next.
        change = (wanted[1:] - wanted[:-1]) * (asked[1:] == asked[:-1])
        ranked = torch.nn.functional.softplus(-(logits[1:] - logits[:-1]) * change) * change.abs()
        return plain + 0.5 * ranked.sum() / change.abs().sum().clamp(min=1.0)

    return loss


def _query_of(row: Row) -> str:
    return str(row["metadata"]["family"]) + group_of(row)
