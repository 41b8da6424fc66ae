"""What plain counting tells of a response and its context: overlap, new names and numbers, form. No network.

Columns of form (length, punctuation) come last, so that a study can say what is left without them.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
FORM = 7
"""Last columns that only see the form of a response."""
_WORD = re.compile(r"[a-z0-9]+")
_NAME = re.compile(r"\b[A-Z][\w'-]*|\d[\d,.]*")
_NEAR = 12
_STOP_WORDS = """a an the of in on at to for and or is are was were be been by with from as that this it its his her
their he she they you i we not no do does did have has had will would can could about which who what when where how but
so if than then there"""
_STOP = frozenset(_STOP_WORDS.split())


def describe_rows(rows: Sequence[dict[str, Any]]) -> Array:
    """Return the features `[n, F]` of rows with query, context and response."""
    return np.array([_describe(row["query"], row["context"] or "", row["response"]) for row in rows], dtype=np.float64)


def describe_length(rows: Sequence[dict[str, Any]]) -> Array:
    """Return what the length-only rule sees: log words and log characters, `[n, 2]`."""
    return np.array([[np.log1p(len(_words(r["response"]))), np.log1p(len(r["response"]))] for r in rows])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _share(items: Sequence[Any], test: Callable[[Any], bool]) -> float:
    return sum(map(test, items)) / max(1, len(items))


def _describe(query: str, context: str, response: str) -> list[float]:
    known, asked, said = _words(context), _words(query), _words(response)
    known_set, asked_set = set(known), set(asked)
    content = [word for word in said if word not in _STOP] or said
    return [
        _share(content, lambda w: w in known_set),
        _share(content, lambda w: w in asked_set),
        _share(content, lambda w: w not in known_set and w not in asked_set),
        float(sum(w not in known_set and w not in asked_set for w in content)),
        _share(content, lambda w: w in known_set and w not in asked_set),
        float(" ".join(said) in " ".join(known)),
        float(" ".join(said) in " ".join(asked)),
        *_count_names(query, context, response),
        *_count_runs(known, asked, said),
        *_find_place(known, asked, said),
        float(any(word in said for word in ("not", "no", "never"))),
        float(any(word in said for word in ("also", "well", "actually", "however", "many", "several", "both"))),
        _share(sorted(asked_set), lambda w: w in said),
        *_describe_form(said, response),
    ]


def _count_names(query: str, context: str, response: str) -> list[float]:
    there = f"{context} {query}".lower()
    names = [name.rstrip(".,") for name in _NAME.findall(response)]
    numbers = [name for name in names if name[:1].isdigit()]
    new = [name for name in names if name.lower() not in there]
    return [
        *(len(new) / max(1, len(names)), float(len(new)), float(len(names))),
        *(float(sum(number not in there for number in numbers)), float(len(numbers))),
    ]


def _count_runs(known: list[str], asked: list[str], said: list[str]) -> list[float]:
    twos, threes = list(itertools.pairwise(said)), list(zip(said, said[1:], said[2:], strict=False))
    known_twos = set(itertools.pairwise(known))
    asked_twos = set(itertools.pairwise(asked))
    known_threes = set(zip(known, known[1:], known[2:], strict=False))
    return [
        _share(twos, lambda run: run not in known_twos and run not in asked_twos),
        float(sum(run not in known_twos for run in twos)),
        _share(threes, lambda run: run not in known_threes),
    ]


def _find_place(known: list[str], asked: list[str], said: list[str]) -> list[float]:
    """Where the response's words stand in the context, and how many words of the question stand near them."""
    places = [place for place, word in enumerate(known) if word in set(said) - _STOP]
    if not places:
        return [1.0, 0.0, 0.0, 0.0]
    content = set(asked) - _STOP
    near = max(len(content & set(known[max(0, p - _NEAR) : p + _NEAR + 1])) for p in places) / max(1, len(content))
    whole = " ".join(known).count(" ".join(said)) if said else 0
    return [places[0] / len(known), near, float(len(places)), float(whole)]


def _describe_form(said: list[str], response: str) -> list[float]:
    text = response.strip()
    return [
        *(float(np.log1p(len(said))), float(np.log1p(len(text))), len(set(said)) / max(1, len(said))),
        *(float(sum(map(text.count, ".!?"))), float(text.count(",")), float(text.endswith((".", "!")))),
        float(said[:1] in (["yes"], ["no"])),
    ]


def weigh_words(train: Sequence[str], others: Sequence[str]) -> tuple[Array, Array]:
    """Return TF-IDF rows of words and pairs of words, of unit length: vocabulary and weights from `train` alone.

    scikit-learn's defaults with `ngram_range=(1, 2), min_df=2, sublinear_tf=True`.
    """

    def split(text: str) -> list[str]:
        found = re.findall(r"\b\w\w+\b", text.lower())
        return found + [f"{one} {two}" for one, two in itertools.pairwise(found)]

    counted = [Counter(split(text)) for text in train]
    rows_of = Counter(word for counts in counted for word in counts)
    words = {word: place for place, word in enumerate(sorted(word for word in rows_of if rows_of[word] > 1))}
    rarity = np.log((1 + len(train)) / (1 + np.array([rows_of[word] for word in words]))) + 1.0

    def fill(all_counts: Sequence[Counter[str]]) -> Array:
        table = np.zeros((len(all_counts), len(words)))
        for row, counts in enumerate(all_counts):
            for word, count in counts.items():
                if word in words:
                    table[row, words[word]] = 1.0 + np.log(count)
        table *= rarity
        return np.asarray(table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12))

    return fill(counted), fill([Counter(split(text)) for text in others])
