"""The text stage of the validator: fine-tune the upper layers on pairs, measure them, score pairs.

It knows no files and no quality; pairs and their targets are made in `negatives`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from shammah_chassis.encoder import TextTokenizer, TokenRow, pad_rows, plan_batches
from torch import Tensor

from shammah_trainer.encoders.negatives import UNKNOWN, Pair
from shammah_trainer.encoders.networks import TEXT_SCORES, ValidatorNetwork
from shammah_trainer.encoders.results import ValidatorHyper

_WEIGHT_DECAY = 0.01
_LARGEST_GRADIENT = 1.0


class TextStage:
    """The trainable text half of a validator network with its tokenizer."""

    def __init__(
        self, network: ValidatorNetwork, tokenizer: TextTokenizer, *, device: torch.device | None = None
    ) -> None:
        self._device = device or torch.device("cpu")
        self._network = network.to(self._device)
        self._tokenizer = tokenizer

    def train(self, pairs: Sequence[Pair], hyper: ValidatorHyper, *, generator: np.random.Generator) -> int:
        """Train one pass over the pairs, at most `hyper.max_seconds`; returns how many pairs were used.

        Shared layers run without gradients; the learning rate falls linearly to 0.
        """
        if not pairs:
            return 0
        rows = self._tokenizer.encode([(pair.query, pair.response) for pair in pairs])
        targets = torch.tensor([pair.targets for pair in pairs], device=self._device)
        lengths = [len(row.ids) for row in rows]
        batches = list(plan_batches(lengths, max_rows=hyper.batch_rows, max_padded_tokens=hyper.batch_tokens))
        optimizer, scheduler = self._make_optimizer(hyper, steps=len(batches))
        deadline = time.monotonic() + hyper.max_seconds
        used = 0
        for number in generator.permutation(len(batches)):
            if time.monotonic() > deadline:
                break
            batch = batches[number]
            loss = masked_loss(self._logits([rows[row] for row in batch], train=True), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), _LARGEST_GRADIENT)
            optimizer.step()
            scheduler.step()
            used += len(batch)
        for parameter in self._network.parameters():
            parameter.requires_grad_(False)
        return used

    def measure(self, pairs: Sequence[Pair]) -> float:
        """Return the mean log loss in nats of the known targets of pairs; 0 for no pairs."""
        if not pairs:
            return 0.0
        logits, _ = self.score([(pair.query, pair.response) for pair in pairs])
        return float(masked_loss(torch.from_numpy(logits), torch.tensor([pair.targets for pair in pairs])))

    def score(self, pairs: Sequence[tuple[str, str]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return text logits `[n, 3]` and response lengths in tokens `[n]` (its end mark included) of pairs."""
        rows = self._tokenizer.encode(pairs)
        logits = np.zeros((len(rows), len(TEXT_SCORES)), dtype=np.float32)
        with torch.no_grad():
            for batch in plan_batches([len(row.ids) for row in rows]):
                logits[batch] = self._logits([rows[number] for number in batch], train=False).cpu().numpy()
        return logits, np.array([sum(row.types) for row in rows], dtype=np.int64)

    def _logits(self, rows: Sequence[TokenRow], *, train: bool) -> Tensor:
        ids, mask, types = (torch.from_numpy(array).to(self._device) for array in pad_rows(rows).values())
        with torch.no_grad():
            hidden = self._network.body.lower(ids, mask, types, layers=self._network.shared_layers)
        with torch.set_grad_enabled(train):
            return self._network.text_logits_from(hidden, mask)

    def _make_optimizer(
        self, hyper: ValidatorHyper, *, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        network = self._network
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        body = [p for layer in list(network.tuned)[len(network.tuned) - hyper.layers :] for p in layer.parameters()]
        head = list(network.text.parameters())
        for parameter in (*body, *head):
            parameter.requires_grad_(True)
        groups = [
            {"params": body, "lr": hyper.learning_rate},
            {"params": head, "lr": hyper.head_learning_rate},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=_WEIGHT_DECAY)
        return optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)


def masked_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of `[n, 3]` over the targets that are not `UNKNOWN`."""
    known = (targets != UNKNOWN).to(logits.dtype)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.clamp(min=0.0), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1.0)
