"""What one fine-tuning is told, and what it says afterwards: plain values, written into the manifest.

It knows no model and no file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shammah_chassis.errors import InvalidInputError

CompileMode = Literal["auto", "on", "off"]
Averaging = Literal["off", "ema", "tail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SftHyper:
    """Hyper-parameters of one fine-tuning; they are written into the manifest.

    `upper_layers` 0 trains everything, n only the upper n blocks (embeddings frozen). `batch_tokens` counts the tokens
    of a batch, which are packed without padding. `max_tokens` is the longest example; a longer prompt loses its head.
    `accumulate` batches make one step. `max_seconds` 0 means no limit; a limit that strikes makes the result depend on
    the machine's speed.

    `compile_mode`: torch.compile of a block; `auto` on a GPU when the run is long enough to pay for it. `cuda_graph`:
    a batch is replayed as one CUDA graph when there are enough of them.
    `averaging`: of the weights over the steps, `ema` with `ema_decay`, or `tail`, the mean of the last `tail_share` of
    the steps. `dev_checks`: how often the loss on dev rows is measured on the way (0: never); the best weights are
    kept, and `patience` checks without a better one end the training.
    `lora_rank` 0 trains the weights themselves, n low-rank additions (peft) that are merged at the end.
    `balance`: each learned id of a row with n of them weighs n to the power of -`balance`; 0: long responses count by
    their length, 1: all rows count the same.
    `variants`: at most so many of a row whose response copies values out of its query, with other values (see
    `substitution`), or, with a `word_dropout` above 0, of a row that is answered by a label, each word left out with
    that probability; the row and they take turns, one each epoch.
    `coined`: the share of these other values whose rare words are made up (see `coined_words`).
    `computed`: so many further rows of each whose answer follows from the numbers of its query, with other numbers in
    each epoch (see `computed_examples`).
    `copied`: so many further rows of each whose response copies values out of its query, with other values in each
    epoch.
    `soup`: so many trainings from the same start by other seeds, whose weights are averaged.
    Where old rows are recalled: `anchor` draws the weights back to those that the run started from, each step by the
    share learning rate x `anchor`; of these, the result keeps the share `kept` (both are interpolated), or the best by
    dev loss of `kept_checks` + 1 even shares from 0 to `kept`.
    `save_seconds`: how often the state is saved where a crash can be resumed.
    """

    epochs: int = 2
    learning_rate: float = 2e-4
    upper_layers: int = 0
    batch_tokens: int = 1024
    max_rows_per_batch: int = 8
    max_tokens: int = 512
    weight_decay: float = 0.0
    warmup_share: float = 0.1
    clip_norm: float = 1.0
    seed: int = 0
    max_seconds: float = 0.0
    accumulate: int = 1
    compile_mode: CompileMode = "auto"
    cuda_graph: bool = True
    averaging: Averaging = "off"
    ema_decay: float = 0.98
    tail_share: float = 0.2
    dev_checks: int = 0
    patience: int = 2
    lora_rank: int = 0
    lora_alpha: float = 32.0
    balance: float = 0.0
    variants: int = 0
    word_dropout: float = 0.0
    coined: float = 0.0
    computed: int = 0
    copied: int = 0
    soup: int = 1
    anchor: float = 0.0
    kept: float = 0.0
    kept_checks: int = 0
    save_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class SftResult:
    """Losses in nats per response token (on dev rows when there are any, else on train rows) and what was done.

    `tokens` of one pass over the rows; `seconds` of the steps alone, `prepare_seconds` of compiling and capturing
    before and between them. `engine` says how a batch was computed at the end; `notes` are sentences for people: rows
    left out, memory that ran out, what was resumed. `timings`: seconds by name, for whoever makes it faster.
    """

    loss_before: float
    loss_after: float
    steps: int
    rows: int
    dropped: int
    tokens: int
    cut_short: bool
    seconds: float = 0.0
    prepare_seconds: float = 0.0
    engine: str = ""
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a run that crashed may be taken up: a folder, and what names the weights that it started from."""

    folder: Path
    parent: str


_Range = tuple[tuple[str, ...], str, Callable[[float], bool]]
_RANGES: tuple[_Range, ...] = (
    (("epochs", "dev_checks", "variants", "computed", "copied"), "0 or more", lambda value: value >= 0),
    (("lora_rank", "anchor", "kept_checks"), "0 or more", lambda value: value >= 0),
    (("batch_tokens", "max_rows_per_batch", "accumulate", "patience", "soup"), "1 or more", lambda value: value >= 1),
    (("max_tokens",), "2 or more", lambda value: value >= 2),
    (("ema_decay", "tail_share"), "between 0 and 1", lambda value: 0 < value < 1),
    (("kept", "word_dropout"), "0 or more, below 1", lambda value: 0 <= value < 1),
    (("balance", "coined"), "0 to 1", lambda value: 0 <= value <= 1),
)


def check_hyper(hyper: SftHyper) -> None:
    """Check the ranges that no later part checks.

    Raises:
        InvalidInputError: a value is out of its range; the message names it.
    """
    for names, allowed, holds in _RANGES:
        for name in names:
            if not holds(getattr(hyper, name)):
                raise InvalidInputError(f"{name} is {getattr(hyper, name)}; allowed: {allowed}")
    if hyper.lora_rank and hyper.upper_layers:
        raise InvalidInputError("lora_rank and upper_layers are both set; allowed: one of them")
    if hyper.lora_rank and (hyper.kept or hyper.anchor):
        # Between two low-rank additions lies no share of the way between two sets of weights.
        raise InvalidInputError("lora_rank is set beside kept or anchor; allowed: one of them")
