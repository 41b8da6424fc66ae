"""From a trained student to the files of a generator version, checked against PyTorch before anyone serves them.

It knows files and logits; naming and publishing the version belong to `publishing`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from shammah_chassis.errors import ArtifactError
from shammah_generator.graph import write_graphs
from shammah_generator.model import TOKENIZER_NAME, GeneratorModel

from shammah_trainer.student import Student, save_student

PARITY_LIMIT = 1e-3
PARITY_PROMPTS = 16
_PARITY_TOKENS = 192


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """A prompt and PyTorch's logits of its last position, float32 `[vocab]`."""

    prompt: list[int]
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def export_generator(student: Student, tokenizer: Path, out: Path) -> None:
    """Write weights, `config.json`, `tokenizer.json` and the graph of every precision into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    save_student(student, out)
    (out / "config.json").write_text(json.dumps(student.config, indent=1, sort_keys=True) + "\n", "utf-8")
    shutil.copyfile(tokenizer, out / TOKENIZER_NAME)
    write_graphs(out, student.config)


def compute_expected(student: Student, prompts: Sequence[Sequence[int]]) -> list[Expected]:
    """Return PyTorch's last-position logits of up to 16 prompts, each cut to its last 192 tokens.

    The model moves to the CPU: a GPU may round to TF32, which would be compared here as if the graph were wrong.
    """
    device = torch.device("cpu")
    student.model.to(device).eval()
    expected = []
    for prompt in [list(prompt)[-_PARITY_TOKENS:] for prompt in prompts[:PARITY_PROMPTS] if prompt]:
        with torch.no_grad():
            ids = torch.tensor([prompt], device=device)
            hidden = student.model.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
            expected.append(Expected(prompt, student.model.lm_head(hidden).float().cpu().numpy()[0]))
    return expected


def check_parity(folder: Path, expected: Sequence[Expected], *, threads: int) -> float:
    """Compare the fp32 graph of a version folder with what PyTorch computed.

    The PyTorch model may be gone by then: both at once would double the memory of a round.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        ArtifactError: it is above 1e-3, a logit is not finite, or there is nothing to compare.
    """
    if not expected:
        raise ArtifactError("parity needs at least one prompt")
    context = max(len(entry.prompt) for entry in expected) + 1
    model = GeneratorModel.load(folder, precision="fp32", threads=threads, slots=1, context=context)
    try:
        differences = [np.max(np.abs(model.prefill(0, entry.prompt).logits(0) - entry.logits)) for entry in expected]
    finally:
        model.close()
    worst = float(np.max(differences))
    if not worst <= PARITY_LIMIT:
        raise ArtifactError(
            f"the exported graph differs from PyTorch by {worst:.3g} in a logit; allowed: {PARITY_LIMIT:g}"
        )
    return worst
