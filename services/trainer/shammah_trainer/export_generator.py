"""From a trained student to the files of a generator version, checked against PyTorch before anyone serves them.

It knows files and logits; naming and publishing the version belong to `publishing`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
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


def export_generator(student: Student, tokenizer: Path, out: Path) -> None:
    """Write weights, `config.json`, `tokenizer.json` and the graph of every precision into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    save_student(student, out)
    (out / "config.json").write_text(json.dumps(student.config, indent=1, sort_keys=True) + "\n", "utf-8")
    shutil.copyfile(tokenizer, out / TOKENIZER_NAME)
    write_graphs(out, student.config)


def check_parity(student: Student, folder: Path, prompts: Sequence[Sequence[int]], *, threads: int) -> float:
    """Compare the last-position logits of the fp32 graph with PyTorch's on up to 16 prompts.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        ArtifactError: it is above 1e-3, or a logit is not finite.
    """
    cut = [list(prompt)[-_PARITY_TOKENS:] for prompt in prompts[:PARITY_PROMPTS] if prompt]
    if not cut:
        raise ArtifactError("parity needs at least one prompt")
    context = max(len(prompt) for prompt in cut) + 1
    model = GeneratorModel.load(folder, precision="fp32", threads=threads, slots=1, context=context)
    device = next(student.model.parameters()).device
    student.model.eval()
    worst = 0.0
    try:
        for prompt in cut:
            with torch.no_grad():
                ids = torch.tensor([prompt], device=device)
                hidden = student.model.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
                expected = student.model.lm_head(hidden).float().cpu().numpy()
            worst = max(worst, float(np.max(np.abs(model.prefill(0, prompt)[-1] - expected[0]))))
    finally:
        model.close()
    if not worst <= PARITY_LIMIT:
        raise ArtifactError(
            f"the exported graph differs from PyTorch by {worst:.3g} in a logit; allowed: {PARITY_LIMIT:g}"
        )
    return worst
