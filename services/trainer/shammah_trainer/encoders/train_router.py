"""One round of the router: embed once, with the graph and precision that will serve; fit the heads on the embeddings.

The encoder itself stays as it is, so its embedding is comparable over all versions. Knows nothing of where rows come
from or what a release is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from shammah_chassis.encoder import TOKENIZER_NAME, EncoderSession, Precision
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.neighbours import Floats
from torch import Tensor

from shammah_trainer.encoders.base import ROUTER_GRAPH, SAMPLE_PAIRS, load_router
from shammah_trainer.encoders.categories import fit_category_head, fit_nearness, recall_absent
from shammah_trainer.encoders.export import PARITY_ROWS, Sample, finish_graph
from shammah_trainer.encoders.logistic import FOLDS, Logistic, fit_logistic, leave_out, log_loss, number_folds
from shammah_trainer.encoders.networks import RouterNetwork
from shammah_trainer.encoders.results import (
    RoleResult,
    RouterHyper,
    RouterRow,
    extend_labels,
    fold_of,
    is_held_out,
)
from shammah_trainer.encoders.storage import save_version

# Category probabilities weigh more than one of 384 coordinates of a unit vector: they carry the base rates.
_CATEGORY_SCALE = 3.0


def train_router(
    parent_folder: Path,
    rows: Sequence[RouterRow],
    out: Path,
    *,
    hyper: RouterHyper,
    seed: int,
    embed: Callable[[Sequence[str]], Floats] | None = None,
) -> RoleResult:
    """Train a router version from its parent and write it into `out`; `embed` stands for the parent's graph.

    Losses: mean category cross-entropy on the fixed fifth of the queries that never trains (all of them where that
    fifth is empty), plus, where rows have `local_good`, the mean log loss of it: cross-fitted for the new version, as
    it is for the parent. A category that the parent didn't know counts as a uniform guess.

    Raises:
        InvalidInputError: no rows with a category, or more categories than a version has slots.
        ArtifactError: the parent can't be used, or the new graph differs from the network.
    """
    rows = [row for row in rows if row.category and row.query.strip()]
    if not rows:
        raise InvalidInputError("no rows to train the router on; it needs at least 1 with a query and a category")
    network, parent = load_router(parent_folder)
    labels = extend_labels(parent.labels, [row.category for row in rows])
    max_tokens = int(parent.config["max_tokens"])
    queries = [row.query for row in rows]
    embeddings = (
        embed_queries(parent_folder, queries, max_tokens=max_tokens, precision=hyper.precision)
        if embed is None
        else torch.from_numpy(embed(queries))
    )
    local_before = _measure_local(network, embeddings, rows)
    before, after = _train_categories(network, embeddings, rows, (parent.labels, labels), hyper=hyper, seed=seed)
    local = fit_local_head(network, embeddings, rows)

    config = parent.config | {"category_floor": hyper.category_floor, "precision": hyper.precision}
    tokenizer = parent_folder / TOKENIZER_NAME
    save_version(out, network.state_dict(), config=config, labels=labels, tokenizer=tokenizer)
    texts = (queries + [query for query, _ in SAMPLE_PAIRS])[:PARITY_ROWS]
    sample = Sample(texts, max_tokens, {})
    difference = finish_graph(network, ROUTER_GRAPH, parent=parent_folder, folder=out, sample=sample)
    metrics = {
        "rows": len(rows),
        "graded": sum(row.local_good is not None for row in rows),
        "category_loss_before": before,
        "category_loss_after": after,
        "local_loss_before": local_before,
        "local_loss_after": local.loss,
        "local_constant": local.constant,
        "parity": difference,
    }
    hyper_values = asdict(hyper) | {"seed": seed}
    left_out = leave_out(local, _number_folds(rows))
    fitted = None if left_out is None else tuple(left_out.tolist())
    return RoleResult(before + local_before, after + local.loss, config, labels, hyper_values, metrics, fitted)


def _number_folds(rows: Sequence[RouterRow]) -> npt.NDArray[np.int64]:
    """Return the fold of each graded row."""
    return number_folds([fold_of(row.query, FOLDS) for row in rows if row.local_good is not None])


def _train_categories(
    network: RouterNetwork,
    embeddings: Tensor,
    rows: Sequence[RouterRow],
    labels: tuple[tuple[str, ...], tuple[str, ...]],
    *,
    hyper: RouterHyper,
    seed: int,
) -> tuple[float, float]:
    """Fit the category head; `labels` are the parent's and the new ones. Returns the losses before and after."""
    old, new = labels
    slot_of = {label: slot for slot, label in enumerate(new)}
    slots = torch.tensor([slot_of[row.category] for row in rows])
    measured = torch.tensor([is_held_out(row.query) for row in rows])
    fitted = measured if measured.all() else ~measured
    measured = measured if measured.any() else ~measured
    network.open_slots(len(old))
    before = _category_loss(network, embeddings[measured], slots[measured], known=len(old), total=len(new))
    network.open_slots(len(new))
    recalled, recalled_slots = recall_absent(network, present=set(slots[fitted].tolist()), known=len(old))
    fit_category_head(
        network, torch.cat([embeddings[fitted], recalled]), torch.cat([slots[fitted], recalled_slots]), hyper
    )
    fit_nearness(network, embeddings[fitted], slots[fitted], hyper, seed=seed)
    after = _category_loss(network, embeddings[measured], slots[measured], known=len(new), total=len(new))
    return before, after


def embed_queries(folder: Path, queries: Sequence[str], *, max_tokens: int, precision: Precision) -> Tensor:
    """Return the unit vectors `[n, D]` of queries, by the graph of a version, as its engine would see them.

    A round leaves the encoder as it is, so the parent's graph speaks for the new version too.

    Raises:
        ArtifactError: the version has no readable graph.
    """
    session = EncoderSession(folder, threads=torch.get_num_threads(), max_tokens=max_tokens, precision=precision)
    try:
        return torch.from_numpy(session.embed(queries))
    finally:
        session.close()


def fit_local_head(network: RouterNetwork, embeddings: Tensor, rows: Sequence[RouterRow]) -> Logistic:
    """Fit P(local is good) on the rows that are graded, by embedding and category probabilities.

    One class only makes it the smoothed prior (see `fit_logistic`). No graded row leaves the head as it was; that of
    release 0 says one half to every query.
    """
    graded, good = _graded(rows)
    folds = _number_folds(rows)
    with torch.no_grad():
        _, probability, _ = network.judge(embeddings[graded])
        features = torch.cat([embeddings[graded], probability * _CATEGORY_SCALE], dim=1)
        fit = fit_logistic(features.numpy().astype(np.float64), good, folds)
        if len(good):
            weight = torch.from_numpy(fit.weight).to(torch.float32)
            weight[embeddings.shape[1] :] *= _CATEGORY_SCALE
            network.local.weight.copy_(weight.unsqueeze(0))
            network.local.bias.fill_(fit.bias)
    return fit


def _graded(rows: Sequence[RouterRow]) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Return which rows are graded `[n]`, and how the graded ones went."""
    mask = torch.tensor([row.local_good is not None for row in rows], dtype=torch.bool)
    return mask, np.array([row.local_good for row in rows if row.local_good is not None], dtype=np.bool_)


def _measure_local(network: RouterNetwork, embeddings: Tensor, rows: Sequence[RouterRow]) -> float:
    graded, good = _graded(rows)
    with torch.no_grad():
        return log_loss(network.judge(embeddings[graded])[0].numpy().astype(np.float64), good)


def _category_loss(network: RouterNetwork, embeddings: Tensor, slots: Tensor, *, known: int, total: int) -> float:
    """Mean cross-entropy in nats; a slot from `known` on gets the probability of a uniform guess among `total`."""
    with torch.no_grad():
        _, probability, _ = network.judge(embeddings)
    own = probability.gather(1, slots[:, None]).squeeze(1)
    own = torch.where(slots < known, own, 1.0 / total)
    return float(-own.clamp(min=1e-6).log().mean())
