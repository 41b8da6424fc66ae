"""A teacher whose answers are recorded in workload files: the offline default of demo, tests and benchmarks.

It answers only what is in its files, and makes "new" examples by handing out rows of the teachable part that nobody
was taught yet, chosen by `shammah_chassis.acquisition`. It calls no network.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
from shammah_chassis.acquisition import FEW_ROWS, RANDOM_SHARE, Floats, choose_queries
from shammah_chassis.errors import NotFoundError, TeacherError
from shammah_chassis.examples import Example, Message
from shammah_chassis.grading import grade
from shammah_chassis.text import normalise_query
from shammah_chassis.workload import read_workload

from shammah_gateway.teachers.difficulty import order_thirds, split_thirds
from shammah_gateway.teachers.ports import Generation, Judgement, OfferedExample, TeacherAnswer, Wish
from shammah_gateway.teachers.word_vectors import embed_words

TEACHABLE = frozenset({"train", "teach"})
MODEL = "recorded"
_MOST_ASKED = 256  # rows of which the student's doubts are asked for one wish: the router takes milliseconds for each


class RecordedTeacher:
    """Answers from (normalised query -> example); `teachable` are the rows it may hand out, in file order.

    The files do not say how hard a row is, so a wish's difficulty goes by the proxy of `difficulty` (length and
    rarity): rows of that third of the category first, then of the next; within a third typical ones, beyond what was
    handed out before. A fifth is drawn from all thirds: the shortest messages may all have one label. Once `FEW_ROWS`
    were taught, of some rows of the third those come first that the student is unsure of, if the wish can tell. Focus
    is not used.
    """

    name = "recorded"
    # It calls no paid model.
    models: tuple[str, ...] = ()

    def __init__(self, examples: Iterable[Example], teachable: Sequence[Example]) -> None:
        self._answers = {normalise_query(example.query_text): example for example in examples}
        self._teachable: dict[str, list[Example]] = {}
        for example in teachable:
            self._teachable.setdefault(example.category, []).append(example)
        self._thirds = {name: split_thirds([row.query_text for row in rows]) for name, rows in self._teachable.items()}
        # Rows that were handed out, by category: none is twice, whatever the difficulty.
        self._given: dict[str, set[int]] = {name: set() for name in self._teachable}
        # Made with the first wish for a category.
        self._vectors: dict[str, Floats] = {}

    async def answer(self, messages: Sequence[Message], max_tokens: int) -> TeacherAnswer:
        """Return the recorded answer to the last user turn; TeacherError when there is none.

        `max_tokens` can't be kept: what was recorded is the answer.
        """
        query = next(turn.content for turn in reversed(messages) if turn.role == "user")
        example = self._answers.get(normalise_query(query))
        if example is None:
            raise TeacherError(
                f"the recorded teacher has no answer to {query[:60]!r}; it knows {len(self._answers)} queries"
            )
        return TeacherAnswer(example.response, MODEL, "end_turn", known=example)

    async def generate(self, wish: Wish) -> Generation:
        """Return the next untaught rows of a category; none when all were handed out or are excluded."""
        rows = self._teachable.get(wish.category)
        if rows is None:
            listed = ", ".join(sorted(self._teachable)) or "none"
            raise NotFoundError(f"category {wish.category!r} is not in the recorded files; known: {listed}")
        given = self._given[wish.category]
        given |= {index for index, row in enumerate(rows) if normalise_query(row.query_text) in wish.exclude}
        doubts = await self._ask_doubts(wish, given)
        chosen = await asyncio.to_thread(self._choose, wish, frozenset(given), doubts)
        # What somebody else was given meanwhile is not given twice.
        fresh = [index for index in chosen if index not in given]
        given.update(fresh)
        return Generation(tuple(_offer(rows[index]) for index in fresh), MODEL)

    async def _ask_doubts(self, wish: Wish, given: Collection[int]) -> dict[int, float]:
        """Return how unsure the student is of some rows of the first thirds; {} where nobody is asked."""
        if wish.doubts is None or len(given) < FEW_ROWS:
            return {}
        most, rng = max(_MOST_ASKED, 2 * wish.count), Random(len(given))
        asked: list[int] = []
        for third in order_thirds(self._thirds[wish.category], wish.difficulty):
            free = [index for index in third if index not in given]
            if len(asked) < 2 * wish.count:
                asked += rng.sample(free, min(len(free), most - len(asked)))
        rows = self._teachable[wish.category]
        told = await wish.doubts([rows[index].query_text for index in asked])
        return dict(zip(asked, told, strict=True)) if told is not None else {}

    def _choose(self, wish: Wish, given: Collection[int], doubts: Mapping[int, float]) -> list[int]:
        """Return the indices of at most `wish.count` rows that were not given, by the curriculum."""
        name = wish.category
        if name not in self._vectors:
            self._vectors[name] = embed_words([row.query_text for row in self._teachable[name]])
        vectors = self._vectors[name]
        free = [index for index in range(len(vectors)) if index not in given]
        drawn = Random(len(given)).sample(free, min(len(free), round(RANDOM_SHARE * wish.count)))
        chosen = [*sorted(given), *drawn]
        for third in order_thirds(self._thirds[name], wish.difficulty):
            pool = [index for index in third if index not in given and index not in drawn]
            want = wish.count - (len(chosen) - len(given))
            if want < 1:
                break
            doubted = [index for index in pool if index in doubts]
            pool = doubted if len(doubted) >= want else pool
            picked = choose_queries(
                vectors[pool],
                want,
                taught=len(chosen),
                uncertainty=np.array([doubts[i] for i in pool], dtype=np.float32) if pool is doubted else None,
                seed=len(given),
                random_share=0.0,
                known=vectors[chosen] if chosen else None,
            )
            chosen += sorted(pool[place] for place in picked)
        return chosen[len(given) :]

    async def judge(self, query: str, reference: str, response: str, *, seconds: float | None = None) -> Judgement:
        """Judge a response by the grader of the recorded row; `reference` is not looked at, the row has its own.

        Raises:
            TeacherError: it can't judge this: the query is not recorded, or its grader can't tell offline.
        """
        example = self._answers.get(normalise_query(query))
        if example is None:
            raise TeacherError(f"the recorded teacher cannot judge an answer to {query[:60]!r}: it is not recorded")
        # Tests run in a process of their own, for seconds.
        told = await asyncio.to_thread(grade, response, example)
        if told.good is None:
            raise TeacherError(f"the recorded teacher cannot judge: {told.detail}")
        return Judgement(told.good, f"grader {told.grader}: {told.detail}", MODEL)

    def categories(self) -> frozenset[str]:
        """Return the categories of the teachable rows."""
        return frozenset(self._teachable)


def load_recorded(paths: Sequence[Path]) -> tuple[RecordedTeacher, tuple[str, ...]]:
    """Read workload files; returns the teacher, and a text for each bad line. Blocking.

    Raises:
        NotFoundError: a file is not there.
    """
    examples: list[Example] = []
    teachable: list[Example] = []
    errors: list[str] = []
    for path in paths:
        workload = read_workload(path)
        errors.extend(workload.errors)
        splits = _read_splits(path)
        for row in workload.rows:
            examples.append(row.example)
            if splits.get(row.id) in TEACHABLE:
                teachable.append(row.example)
    return RecordedTeacher(examples, teachable), tuple(errors)


def _read_splits(path: Path) -> dict[str, str]:
    """Return row id -> metadata.split; bad lines were reported by `read_workload` and are passed over."""
    splits: dict[str, str] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open("rt") as lines:
        for line in lines:
            try:
                row = json.loads(line)
                splits[row["id"]] = str(row["metadata"]["split"])
            except (ValueError, KeyError, TypeError):
                continue
    return splits


def _offer(example: Example) -> OfferedExample:
    return OfferedExample(
        query=example.query_text,
        response=example.response,
        category=example.category,
        grader=example.grader,
        known=example,
    )
