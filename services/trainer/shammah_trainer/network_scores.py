"""The quality of many responses by the validator's torch network on a GPU: what its graph would say, much sooner.

The graph that will serve has the last word: the network's qualities count only where both agree on a sample of these
very responses. It knows one folder and texts, no thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from shammah_chassis.encoder import TOKENIZER_NAME, EncoderSession, Floats, TextTokenizer, pad_rows, plan_batches

from shammah_trainer.encoders.base import VALIDATOR_GRAPH, load_validator
from shammah_trainer.encoders.export import MAX_DIFFERENCE, PARITY_ROWS


def score_by_network(
    folder: Path,
    session: EncoderSession,
    pairs: Sequence[tuple[str, str]],
    extra: Mapping[str, Floats],
    *,
    device: str,
) -> Floats | None:
    """Return the quality `[n]` of (query, response) pairs; None where graph and network differ on 16 of them.

    `session` is the open graph of `folder`; `extra` holds its further inputs, one row a pair.

    Raises:
        ArtifactError: the version's weights can't be read.
    """
    quality = _compute(folder, pairs, extra, device=torch.device(device))
    # From all over: neighbours are of one category.
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(PARITY_ROWS, len(pairs))).astype(int))
    sample = {name: values[chosen] for name, values in extra.items()}
    served = session.run([pairs[row] for row in chosen], sample).outputs["quality"]
    difference = float(np.abs(served.astype(np.float32) - quality[chosen]).max())
    return quality if difference <= MAX_DIFFERENCE else None


def _compute(
    folder: Path, pairs: Sequence[tuple[str, str]], extra: Mapping[str, Floats], *, device: torch.device
) -> Floats:
    network, stored = load_validator(folder)
    network.to(device).eval()
    rows = TextTokenizer(folder / TOKENIZER_NAME, max_tokens=int(stored.config["max_tokens"])).encode(list(pairs))
    quality = np.zeros(len(pairs), dtype=np.float32)
    with torch.no_grad():
        for batch in plan_batches([len(row.ids) for row in rows]):
            texts = pad_rows([rows[number] for number in batch]).values()
            inputs = [torch.from_numpy(values).to(device) for values in texts]
            inputs += [torch.from_numpy(extra[name][batch]).to(device) for name, _ in VALIDATOR_GRAPH.extra]
            quality[batch] = network(*inputs)[0].cpu().numpy()
    return quality
