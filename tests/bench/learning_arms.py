"""The arms of the learning study: which rows each learns from, how, and what it is asked. Plain facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

NARROW = (
    *("spam_sms", "sentiment_reviews", "intent_clinc150", "intent_banking77", "topic_stackoverflow"),
    *("extract_restaurant8k", "tool_call_snips", "facts_countries"),
)
# Left out together: short labels, JSON and facts. None of them has a near relative among the others.
UNSEEN = ("topic_stackoverflow", "tool_call_snips", "facts_countries")
# Reported beside the others: its rows look like those of intent_clinc150, and all have one answer.
ASIDE = "intent_clinc_oos"
LISTED_ROWS = 250
# A student that errs in 3 of 100 needs about this many rows to show that it errs in at most 5 (see DESIGN.md).
EXAM_ROWS = 1000


# Found on dev rows (`learning_tune.py`; DESIGN.md, decisions 57, 63, 72, 75 and 80).
WELL = (
    *("epochs=5", "balance=0.5", "variants=4", "word_dropout=0.1", "soup=3"),
    *("computed=14", "copied=3", "coined=0.5", "max_rows_per_batch=224"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One study. `families` empty: all. `whole_test`: the whole test files, not only the published list.

    `hyper`: changes to the trainer's own choice for studies. `judged` False: nothing is certified, all rows train.
    `exam_rows`: rows of a category that are taken out of the train files as the user's exam, at most a third of them.
    """

    name: str
    families: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    train_rows: int = 0
    judged_rows: int = 1000
    exam_rows: int = 0
    judged: bool = True
    whole_test: bool = False
    hyper: tuple[str, ...] = ()
    seed: int = 0


def find_work(*, dry: bool) -> Path:
    """Return the folder where arms are cut and judged; a dry run has one of its own."""
    return ROOT / ".bench" / ("learning-dry" if dry else "learning")


def find_bundle(*, dry: bool) -> Path:
    """Return the file that the machine with the GPU gets."""
    return find_work(dry=dry).with_suffix(".tar")


def _few(rows: int, *, epochs: int, together: int) -> Arm:
    """About 320 steps whatever the number of rows: three passes over 500 rows in large batches would be 12."""
    hyper = (f"epochs={epochs}", f"max_rows_per_batch={together}", "learning_rate=0.0002")
    return Arm(name=f"narrow_{rows}", families=NARROW, train_rows=rows, exam_rows=EXAM_ROWS, hyper=hyper)


# The most wanted first: a machine that is taken away early has made those.
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(name="all", exam_rows=EXAM_ROWS, whole_test=True, hyper=WELL),
        Arm(name="every", judged=False, whole_test=True),
        Arm(name="unseen", leave_out=UNSEEN, exam_rows=EXAM_ROWS, judged_rows=600),
        _few(500, epochs=10, together=16),
        _few(2000, epochs=5, together=32),
        _few(5000, epochs=4, together=64),
    )
}
