"""From a trained student to the files of a generator version, checked against PyTorch before anyone serves them.

It knows files and logits; naming and publishing the version belong to `publishing`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from shammah_chassis.errors import ArtifactError
from shammah_generator.graph import write_graphs
from shammah_generator.model import TOKENIZER_NAME, GeneratorModel
from torch.nn.attention import SDPBackend, sdpa_kernel

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
    """Return PyTorch's last-position logits of up to 16 prompts, each cut to its last 192 tokens, in true float32.

    On a GPU all at once, padded behind: what comes after a position has no say in it.
    """
    cut = [list(prompt)[-_PARITY_TOKENS:] for prompt in prompts[:PARITY_PROMPTS] if prompt]
    device = student.model.model.embed_tokens.weight.device
    student.model.eval()
    together = len(cut) if device.type == "cuda" else 1  # a CPU computes the padding too
    expected: list[Expected] = []
    with torch.no_grad(), _exact_products():
        for start in range(0, len(cut), max(1, together)):
            part = cut[start : start + together]
            longest = max(len(prompt) for prompt in part)
            ids = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in part], device=device)
            states = student.model.model(input_ids=ids, use_cache=False).last_hidden_state
            last = states[torch.arange(len(part)), torch.tensor([len(prompt) - 1 for prompt in part])]
            logits = student.model.lm_head(last).float().cpu().numpy()
            expected += [Expected(prompt, row) for prompt, row in zip(part, logits, strict=True)]
    return expected


@contextmanager
def _exact_products() -> Iterator[None]:
    """No TF32, which would be compared as if the graph were wrong; nor a fused kernel that may use it inside."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


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
