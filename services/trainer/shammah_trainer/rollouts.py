"""Graded greedy responses of a student on dev and exam rows, at the precision that will serve; kept in the ledger.

A rollout is only ever made on a row whose cluster nobody trained on: the rows come from `evidence`. It knows the
generator's engine and the graders, no judges and no thresholds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shammah_chassis.grading import Grade, SimilarityModel, grade_many
from shammah_generator.architecture import Architecture
from shammah_generator.chat import encode_text, load_tokenizer
from shammah_generator.engine import Engine
from shammah_generator.models import load_model
from shammah_generator.requests import Completion, Request
from shammah_generator.sampling import Sampling
from shammah_generator.statistics import FEATURES
from shammah_generator.stepping import Model

from shammah_trainer.ledger import Ledger, LedgerRow
from shammah_trainer.student import read_config

LONGEST_RESPONSE = 320
UNTAUGHT_RESPONSE = 64
_LENGTH = FEATURES.index("length")
_ROOM = 1.5  # a student's answer may be this much longer than the longest it was taught
_ROOM_TOKENS = 4
_LEAST_AROUND = 2  # tokens of an example beside its response: the end of turn, and the last one of the prompt
_CHUNK = 64
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Rollout:
    """One graded response. `reason` is how it ended ("stop", "length", "error"); `good` None: it could not be graded.

    `max_tokens` is the limit that it was made under. A response cut at its limit is not good and is never served.
    """

    text: str
    reason: str
    statistics: tuple[float, ...]
    good: bool | None
    max_tokens: int

    @property
    def whole(self) -> bool:
        """Whether it ended by itself."""
        return self.reason == "stop"

    @property
    def tokens(self) -> int:
        """Tokens of the response; the statistics count the end of turn too, limits do not."""
        return int(self.statistics[_LENGTH]) - int(self.whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """How rollouts are computed: the precision that serves, threads, rows decoded together, tokens of a row at most.

    `longest`: new tokens of a response at most, whatever its category was taught.
    """

    precision: str = "int8"
    threads: int = 2
    slots: int = 8
    context: int = 2048
    longest: int = LONGEST_RESPONSE


Progress = Callable[[float], None]
Load = Callable[[], Model]


def choose_limits(
    taught: Sequence[LedgerRow],
    judged: Sequence[LedgerRow],
    *,
    tokenizer: Path,
    max_tokens: int,
    longest: int = LONGEST_RESPONSE,
) -> dict[str, int]:
    """Return `max_new_tokens` per category from its taught responses: 1.5 times the longest + 4, at most `longest`.

    A category that is judged but was never taught gets 64. A response that leaves no room in `max_tokens` for the end
    of turn and one token of its prompt is left out of training (`cut_row`), so it lifts no limit.
    """
    loaded = load_tokenizer(tokenizer)
    taught_tokens: dict[str, int] = {}
    for row in taught:
        length = len(encode_text(loaded, row.example.response))
        if length + _LEAST_AROUND <= max_tokens:
            taught_tokens[row.category] = max(taught_tokens.get(row.category, 0), length)
    limits = {name: min(longest, math.ceil(_ROOM * length) + _ROOM_TOKENS) for name, length in taught_tokens.items()}
    return {row.category: min(longest, UNTAUGHT_RESPONSE) for row in judged} | limits


def roll_out(
    ledger: Ledger,
    *,
    version: str,
    folder: Path | Load,
    rows: Sequence[LedgerRow],
    limits: Mapping[str, int],
    settings: RolloutSettings,
    similarity: SimilarityModel | None = None,
    progress: Progress = lambda share: None,
) -> dict[str, Rollout]:
    """Return a rollout of generator `version` for each row, by example id; only those not in the ledger are computed.

    `folder`: of the version, or what gives its model.

    Raises:
        ArtifactError: the version can't be loaded.
    """
    found = read_rollouts(ledger, version=version, rows=rows, limits=limits)
    missing = [row for row in rows if row.id not in found]
    if not missing:
        return found
    done = 0
    with closing(complete_rows(folder, missing, limits=limits, settings=settings)) as chunks:
        for chunk in chunks:
            found |= _grade_and_keep(ledger, version, chunk, limits, similarity)
            done += len(chunk)
            progress(done / len(missing))
    return found


def load_for_rollouts(folder: Path, settings: RolloutSettings) -> Model:
    """Load the generator in `folder` to answer rows, and nobody beside them.

    Raises:
        ArtifactError: the version can't be loaded.
    """
    model = load_model(
        folder,
        precision=settings.precision,
        threads=settings.threads,
        slots=settings.slots,
        context=fit_context(folder, settings.context),
    )
    # No user waits for the next token: all slots are filled before a step, so that each step serves all of them.
    model.prompts_a_turn = settings.slots
    return model


def complete_rows(
    folder: Path | Load,
    rows: Sequence[LedgerRow],
    *,
    limits: Mapping[str, int],
    settings: RolloutSettings,
) -> Generator[list[tuple[LedgerRow, Completion]], None, None]:
    """Answer rows greedily by the generator in `folder`, some at a time; a caller who keeps each list may be killed.

    Raises:
        ArtifactError: the version can't be loaded.
    """
    model = load_for_rollouts(folder, settings) if isinstance(folder, Path) else folder()
    # Prompts as a whole, for the same reason as above.
    engine = Engine(model, queue_limit=1, prefill_tokens=model.context)
    try:
        # Rows of like length together: the slots then empty at the same time.
        ordered = sorted(rows, key=lambda row: (limits[row.category], len(row.example.query_text)))
        together = max(_CHUNK, 4 * settings.slots)
        for start in range(0, len(ordered), together):
            chunk = ordered[start : start + together]
            made = engine.generate_batch([make_request(row, limits) for row in chunk])
            yield list(zip(chunk, made, strict=True))
    finally:
        engine.close(_CLOSE_SECONDS)
        model.close()


def read_rollouts(
    ledger: Ledger, *, version: str, rows: Sequence[LedgerRow], limits: Mapping[str, int]
) -> dict[str, Rollout]:
    """Return the rollouts of a version that the ledger has for these rows under these limits.

    A response that ended by itself within a smaller or equal limit is the same under a larger one.
    """
    sql = "SELECT example, max_tokens, text, reason, statistics, good FROM rollouts WHERE generator = ?"
    wanted = {row.id: limits[row.category] for row in rows}
    found: dict[str, Rollout] = {}
    for example, made_under, text, reason, statistics, good in ledger.fetch(sql, (version,)):
        if example not in wanted:
            continue
        rollout = Rollout(text, reason, tuple(json.loads(statistics)), None if good is None else bool(good), made_under)
        limit = wanted[example]
        if made_under == limit or (rollout.whole and rollout.tokens <= limit):
            found[example] = rollout
    return found


def make_request(row: LedgerRow, limits: Mapping[str, int]) -> Request:
    """Return the greedy request of one row."""
    return Request(messages=row.example.query, sampling=Sampling(max_tokens=limits[row.category]))


def _grade_and_keep(
    ledger: Ledger,
    version: str,
    made: Sequence[tuple[LedgerRow, Completion]],
    limits: Mapping[str, int],
    similarity: SimilarityModel | None,
) -> dict[str, Rollout]:
    grades = grade_many([(done.text, row.example) for row, done in made], similarity=similarity)
    kept: dict[str, Rollout] = {}
    with ledger.transaction():
        for (row, done), grade in zip(made, grades, strict=True):
            good = decide_good(done.reason, grade)
            rollout = Rollout(done.text, done.reason, tuple(done.statistics.as_features()), good, limits[row.category])
            kept[row.id] = rollout
            values: tuple[Any, ...] = (
                *(version, row.id, rollout.max_tokens, rollout.text, rollout.reason),
                *(json.dumps(rollout.statistics), None if good is None else int(good), grade.detail),
            )
            # Not of a row that was forgotten while it was answered.
            ledger.execute(
                "INSERT OR REPLACE INTO rollouts SELECT ?, ?, ?, ?, ?, ?, ?, ? "
                "WHERE EXISTS (SELECT 1 FROM examples WHERE id = ?)",
                (*values, row.id),
            )
    return kept


def decide_good(reason: str, grade: Grade) -> bool | None:
    """Return whether a response counts as good: its grade, and never where it was cut or failed."""
    return grade.good if reason == "stop" else False


def fit_context(folder: Path, context: int) -> int:
    """Return `context`, or what the model has positions for if that is less."""
    return min(context, Architecture.from_config(read_config(folder)).max_positions)
