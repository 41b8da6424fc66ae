"""Low-rank additions to the weights (LoRA, Hu et al. 2021) by peft: put on before the training, merged after it.

peft is optional (`pip install shammah-trainer[lora]`). It knows modules, no data.
"""

from __future__ import annotations

from typing import Any

from shammah_chassis.errors import UnavailableError

from shammah_trainer.student import Network, Student

_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add_lora(student: Student, *, rank: int, alpha: float) -> tuple[Network, list[Any]]:
    """Put additions of `rank` on all products of the blocks, scaled by `alpha / rank`; only they learn.

    Returns:
        peft's wrapper for `merge_lora`, and what learns.

    Raises:
        UnavailableError: peft is not installed.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise UnavailableError("lora_rank needs peft: pip install 'shammah-trainer[lora]'") from error
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=list(_TARGETS))
    wrapped = LoraModel(student.model, config, "default")
    return wrapped, [parameter for parameter in wrapped.parameters() if parameter.requires_grad]


def merge_lora(wrapped: Network) -> None:
    """Add what was learned to the weights and take the additions off: the student is a plain model again."""
    wrapped.merge_and_unload()
