"""Fine-tunes the trainer's encoders for the judges' studies: cross-encoder of pairs, and encoder of queries.

All layers train, in bf16 on a GPU; batches hold a bounded number of padded tokens. Cross-fitting trains one network for
each fold; a row outside all folds (a test row) gets the mean of the networks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from judges_data import FOLDS
from shammah_chassis.encoder import TextTokenizer, TokenRow, pad_rows, plan_batches
from shammah_trainer.encoders.bert import BertBody
from shammah_trainer.encoders.networks import Embedder, RouterNetwork, ValidatorNetwork
from torch import Tensor, nn

Array = npt.NDArray[np.float64]
Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs `[b, K]` and the rows' numbers `[b]` to a loss."""
_MASK_TOKEN = 103  # [MASK] of the BERT vocabulary
_FIRST_WORD = 999  # ids below are special
_WARM_UP = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is tuned; `hidden_words`: share of the tokens that training hides, against learning by heart."""

    epochs: int = 4
    learning_rate: float = 1e-4
    head_rate: float = 1e-3
    decay: float = 0.05
    hidden_words: float = 0.1
    batch_rows: int = 32
    batch_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class Base:
    """The base encoder, its tokenizer's file opened for 512 tokens, and where to compute."""

    body: BertBody
    tokenizer: TextTokenizer
    device: torch.device

    def embed(self, texts: Sequence[str]) -> Array:
        """Return unit vectors `[n, d]` of the untouched encoder."""
        network = Embedder(self.body).to(self.device)
        return run(lambda *tokens: network(*tokens), self.tokenizer.encode(list(texts)), self.device)


class PairNetwork(nn.Module):  # type: ignore[misc]
    """The validator's text stage with all layers its own: logits of on-topic, coherence, hallucination."""

    def __init__(self, body: BertBody) -> None:
        super().__init__()
        self.validator = ValidatorNetwork(body, tuned_layers=len(body.layers))
        self.head: nn.Module = self.validator.text
        self.trained = [self.validator.tuned]

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        return self.validator.text_logits(ids, mask, types)


class QueryNetwork(nn.Module):  # type: ignore[misc]
    """The router's encoder with one linear head of K outputs on its embedding."""

    def __init__(self, body: BertBody, outputs: int) -> None:
        super().__init__()
        self.router = RouterNetwork(body)
        self.head: nn.Module = nn.Linear(body.shape.hidden_size, outputs)
        self.trained = [self.router.body.layers]

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        # Unit vectors make small logits; the scale lets the head speak up without huge weights.
        return self.head(10.0 * self.router.embed(ids, mask, types))  # type: ignore[no-any-return]


def run(network: Callable[..., Tensor], rows: Sequence[TokenRow], device: torch.device) -> Array:
    """Return the outputs `[n, K]` of a network on token rows."""
    made: Array | None = None
    for batch in plan_batches([len(row.ids) for row in rows], max_rows=256, max_padded_tokens=32768):
        tokens = (torch.from_numpy(array).to(device) for array in pad_rows([rows[n] for n in batch]).values())
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            values = network(*tokens).float().cpu().numpy().astype(np.float64)
        made = np.zeros((len(rows), values.shape[1])) if made is None else made
        made[batch] = values
    assert made is not None
    return made


def tune(
    network: PairNetwork | QueryNetwork,
    rows: Sequence[TokenRow],
    groups: Sequence[list[int]],
    loss: Loss,
    *,
    recipe: Recipe,
    device: torch.device,
    seed: int,
) -> None:
    """Train a network; the rows of a group are always in one batch."""
    torch.manual_seed(seed)
    network.to(device).requires_grad_(False)
    for part in (*network.trained, network.head):
        part.requires_grad_(True)
    body = [parameter for part in network.trained for parameter in part.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": body, "lr": recipe.learning_rate}, {"params": network.head.parameters(), "lr": recipe.head_rate}],
        weight_decay=recipe.decay, fused=device.type == "cuda",
    )  # fmt: skip
    size = max(1, round(np.mean([len(group) for group in groups])))
    lengths = [max(len(rows[number].ids) for number in group) * size for group in groups]
    planned = list(
        plan_batches(lengths, max_rows=max(1, recipe.batch_rows // size), max_padded_tokens=recipe.batch_tokens)
    )
    steps = recipe.epochs * len(planned)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    generator = np.random.default_rng(seed)
    for _ in range(recipe.epochs):
        for place in generator.permutation(len(planned)):
            numbers = [number for group in planned[place] for number in groups[group]]
            ids, mask, types = (
                torch.from_numpy(array).to(device) for array in pad_rows([rows[number] for number in numbers]).values()
            )
            hidden = (torch.rand(ids.shape, device=device) < recipe.hidden_words) & (ids > _FIRST_WORD)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                outputs = network(torch.where(hidden, _MASK_TOKEN, ids), mask, types)
            optimizer.zero_grad()
            loss(outputs.float(), torch.tensor(numbers, device=device)).backward()
            torch.nn.utils.clip_grad_norm_([*body, *network.head.parameters()], 1.0)
            optimizer.step()
            scheduler.step()


def _rate(done: float) -> float:
    """Linear to full in the first tenth, then a cosine to 0."""
    return done / _WARM_UP if done < _WARM_UP else 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


def cross_fit_network(
    make: Callable[[BertBody], PairNetwork | QueryNetwork],
    base: Base,
    rows: Sequence[TokenRow],
    folds: npt.NDArray[np.int64],
    groups: Sequence[list[int]],
    loss: Loss,
    *,
    recipe: Recipe,
) -> Array:
    """Return outputs `[n, K]` of rows by networks that did not see their fold; fold -1 never trains (mean of all)."""
    made: Array | None = None
    for fold in range(FOLDS):
        network = make(copy.deepcopy(base.body).cpu())
        seen = [group for group in groups if all(folds[number] not in (fold, -1) for number in group)]
        network.train()
        tune(network, rows, seen, loss, recipe=recipe, device=base.device, seed=fold)
        wanted = np.flatnonzero((folds == fold) | (folds == -1))
        values = run(network.eval(), [rows[number] for number in wanted], base.device)
        made = np.zeros((len(rows), values.shape[1])) if made is None else made
        made[wanted] += values / np.where(folds[wanted] == -1, FOLDS, 1)[:, None]
    assert made is not None
    return made
