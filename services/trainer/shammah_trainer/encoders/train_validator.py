"""One round of the validator, in two stages: the text cross-encoder, then the quality head.

The text stage learns from teacher responses and made negatives only and never sees a graded rollout, so the text
scores of graded rows are out-of-sample and need no cross-fitting. The quality head learns from graded dev rollouts
only. Knows nothing of where rows come from or what a release is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shammah_chassis.encoder import TOKENIZER_NAME, TextTokenizer
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.neighbours import INDEX_NAME, Floats, NeighbourIndex, QueryEmbedder, load_index, save_index
from shammah_chassis.text import normalise_query

from shammah_trainer.encoders.base import (
    EMBEDDER_GRAPH,
    SAMPLE_PAIRS,
    VALIDATOR_GRAPH,
    load_validator,
    sample_pairs,
)
from shammah_trainer.encoders.export import PARITY_ROWS, Sample, finish_graph
from shammah_trainer.encoders.negatives import Pair, make_pairs
from shammah_trainer.encoders.neighbours import build_index
from shammah_trainer.encoders.networks import NEIGHBOURS, STATISTICS, Embedder, ValidatorNetwork
from shammah_trainer.encoders.quality import FittedHead, fit_quality_heads, gather_features, quality_loss
from shammah_trainer.encoders.query_vectors import QueryVectors
from shammah_trainer.encoders.results import (
    GradedRow,
    IndexRow,
    RoleResult,
    TextRow,
    ValidatorHyper,
    extend_labels,
    is_held_out,
)
from shammah_trainer.encoders.storage import save_version
from shammah_trainer.encoders.text_stage import TextStage

_HELD_OUT_PAIRS = 160


@dataclass(frozen=True, slots=True)
class Means:
    """With what a validator is trained: the device of the text stage, and vectors of queries that are known already."""

    device: str = "cpu"
    vectors: QueryVectors | None = None


ON_CPU = Means()


def train_validator(
    parent_folder: Path,
    texts: Sequence[TextRow],
    graded: Sequence[GradedRow],
    out: Path,
    *,
    hyper: ValidatorHyper,
    seed: int,
    index: Sequence[IndexRow] = (),
    means: Means = ON_CPU,
) -> RoleResult:
    """Train a validator version from its parent and write it into `out`.

    Losses: mean log loss of the text scores on pairs of the fixed fifth of the queries that never trains, plus, where
    there are graded rows, the mean log loss of the quality: cross-fitted over queries for the new version, as it is for
    the parent (which may have learned from some of them, so the comparison leans to the parent).

    No texts leave the text stage as it was; no graded rows leave the quality head as it was; one class only makes it
    the smoothed prior. A text or an `index` row whose query is among the graded rows is left out. `index` are the train
    examples that the version carries (see `encoders.neighbours`); no such rows make a version without an index.

    Raises:
        InvalidInputError: neither texts nor graded rows, statistics of a wrong length, `hyper.layers` above what the
            version keeps twice, or more categories than a version has slots.
        ArtifactError: the parent can't be used, or a new graph differs from its network.
    """
    network, parent = load_validator(parent_folder)
    _check(texts, graded, hyper, tuned_layers=len(network.tuned))
    labels = extend_labels(parent.labels, [*(row.category for row in texts), *(row.category for row in graded)])
    device, max_tokens = torch.device(means.device), int(parent.config["max_tokens"])
    stage = TextStage(network, TextTokenizer(parent_folder / TOKENIZER_NAME, max_tokens=max_tokens), device=device)
    train, held = _make_pairs(texts, graded, hyper, seed=seed)
    asked = _ask_neighbours(parent_folder, graded, index, most=hyper.index_rows, vectors=means.vectors)

    before = gather_features(stage, graded, labels, asked.before)
    text = _train_texts(stage, train, held, hyper, seed=seed)
    features = gather_features(stage, graded, labels, asked.after)
    network.cpu()
    quality_before = quality_loss(network, before, graded)
    full, text_only = fit_quality_heads(network, features, graded, seed=seed, device=device)

    config = parent.config | {"index_rows": len(asked.index) if asked.index else 0}
    save_version(out, network.state_dict(), config=config, labels=labels, tokenizer=parent_folder / TOKENIZER_NAME)
    _save_index(asked.index, out)
    parity = _finish_graphs(network, (*held, *train), parent_folder=parent_folder, out=out, max_tokens=max_tokens)
    quality = {"graded": len(graded), "quality_loss_before": quality_before, **_describe_heads(full, text_only)}
    return RoleResult(
        loss_before=text.text_loss_before + quality_before,
        loss_after=text.text_loss_after + full.report.loss,
        config=config,
        labels=labels,
        hyper=asdict(hyper) | {"seed": seed},
        metrics={**asdict(text), **quality, "index_rows": config["index_rows"], "parity": parity},
        fitted=None if full.fitted is None else tuple(full.fitted.tolist()),
    )


@dataclass(frozen=True, slots=True)
class _TrainedTexts:
    """What the text stage did: pairs it had and pairs it trained on, its seconds, losses on pairs that never train."""

    pairs: int
    pairs_trained: int
    text_seconds: float
    text_loss_before: float
    text_loss_after: float


def _train_texts(
    stage: TextStage, train: Sequence[Pair], held: Sequence[Pair], hyper: ValidatorHyper, *, seed: int
) -> _TrainedTexts:
    before = stage.measure(held)
    started = time.monotonic()
    trained = stage.train(train, hyper, generator=np.random.default_rng(seed))
    seconds = time.monotonic() - started
    return _TrainedTexts(len(train), trained, round(seconds, 2), before, stage.measure(held))


def _save_index(index: NeighbourIndex | None, out: Path) -> None:
    # A round that was stopped may have left one.
    (out / INDEX_NAME).unlink(missing_ok=True)
    if index:
        save_index(index, out)


def _describe_heads(full: FittedHead, text_only: FittedHead) -> dict[str, Any]:
    """Return what the fits of both heads say of themselves."""
    return {
        "quality_loss_after": full.report.loss,
        "quality_loss_without_statistics": text_only.report.loss,
        "quality_constant": full.constant,
        "quality_head": full.kind,
        "quality_auroc": full.report.auroc,
        "quality_accepted_share": full.report.accepted_share,
        "quality_calibration_error": full.report.calibration_error,
    }


@dataclass(frozen=True, slots=True)
class _Asked:
    """The new index, and what the parent's and the new one say of the graded rows."""

    index: NeighbourIndex | None
    before: Floats
    after: Floats


def _ask_neighbours(
    parent_folder: Path,
    graded: Sequence[GradedRow],
    rows: Sequence[IndexRow],
    *,
    most: int,
    vectors: QueryVectors | None,
) -> _Asked:
    seen = {normalise_query(row.query) for row in graded}
    usable = [row for row in rows if normalise_query(row.query) not in seen]
    old = load_index(parent_folder)
    nothing = np.zeros((len(graded), NEIGHBOURS), dtype=np.float32)
    if old is None and (not usable or not most):
        return _Asked(None, nothing, nothing)
    embedder = vectors or QueryEmbedder(parent_folder, threads=torch.get_num_threads())
    try:
        new = build_index(usable, old, embedder, most=most) if most else None
        queries = embedder.embed([row.query for row in graded])
    finally:
        if embedder is not vectors:
            embedder.close()
    categories, responses = [row.category for row in graded], [row.response for row in graded]
    before, after = (index.measure(queries, categories, responses) if index else nothing for index in (old, new))
    return _Asked(new, before, after)


def _finish_graphs(
    network: ValidatorNetwork, pairs: Sequence[Pair], *, parent_folder: Path, out: Path, max_tokens: int
) -> float:
    """Write the validator's graph and the embedder's; return the largest difference of the first from its network."""
    texts = [(pair.query, pair.response) for pair in pairs[:PARITY_ROWS]]
    sample = sample_pairs((*SAMPLE_PAIRS, *texts)[:PARITY_ROWS], max_tokens=max_tokens)
    difference = finish_graph(network, VALIDATOR_GRAPH, parent=parent_folder, folder=out, sample=sample)
    embedded = Sample([response for _, response in SAMPLE_PAIRS], max_tokens, {})
    finish_graph(Embedder(network.body), EMBEDDER_GRAPH, parent=parent_folder, folder=out, sample=embedded)
    return difference


def _check(texts: Sequence[TextRow], graded: Sequence[GradedRow], hyper: ValidatorHyper, *, tuned_layers: int) -> None:
    if not texts and not graded:
        raise InvalidInputError("nothing to train the validator on; it needs texts or graded rollouts")
    if not 0 <= hyper.layers <= tuned_layers:
        raise InvalidInputError(f"layers is {hyper.layers}; this version can train 0 to {tuned_layers}")
    for row in graded:
        if len(row.statistics) != STATISTICS or not np.isfinite(row.statistics).all():
            raise InvalidInputError(f"statistics of a graded row must be {STATISTICS} finite numbers")


def _make_pairs(
    texts: Sequence[TextRow], graded: Sequence[GradedRow], hyper: ValidatorHyper, *, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Return pairs to train on and pairs to measure on; few texts may leave nothing to measure on."""
    seen = {normalise_query(row.query) for row in graded}
    usable = [row for row in texts if row.query.strip() and row.response.strip()]
    usable = [row for row in usable if normalise_query(row.query) not in seen]
    train = [row for row in usable if not is_held_out(row.query)]
    held = [row for row in usable if is_held_out(row.query)]
    return (
        make_pairs(train, limit=hyper.max_pairs, generator=np.random.default_rng([seed, 1])),
        # Always the same negatives, so that the losses of two versions can be compared.
        make_pairs(held, limit=min(_HELD_OUT_PAIRS, hyper.max_pairs), generator=np.random.default_rng(0)),
    )
