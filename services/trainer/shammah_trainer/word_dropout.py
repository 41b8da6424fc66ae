"""Variants of an example that is answered by a label: some words of its query left out.

Random deletion of "Easy data augmentation" (Wei and Zou 2019). It knows words between spaces, no meaning: a "not" may
be among those that go, which is why rows take turns with their variants.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from dataclasses import replace

from shammah_chassis.examples import Example
from shammah_chassis.text import normalise_query

GRADERS = ("label",)
_TRIES = 2
_WORD = re.compile(r"\S+\s*")


def drop_words(
    example: Example, *, count: int, chance: float, rng: random.Random, taken: Collection[str]
) -> tuple[Example, ...]:
    """Return up to `count` different variants, each word of the query's last line gone with probability `chance`.

    The lines before are kept: where a task is told before its text, they are the task. `taken`: normalised queries
    that no variant may have.
    """
    if example.grader not in GRADERS:
        return ()
    last = example.query[-1]
    lines = last.content.rstrip().splitlines(keepends=True) or [""]
    words = _WORD.findall(lines[-1])
    seen = {normalise_query(example.query_text)}
    variants: list[Example] = []
    for _ in range(count * _TRIES if len(words) > 1 else 0):
        if len(variants) == count:
            break
        left = [word for word in words if rng.random() >= chance]
        content = "".join([*lines[:-1], *left]).rstrip()
        made = replace(example, query=(*example.query[:-1], replace(last, content=content)))
        query = normalise_query(made.query_text)
        if left and query not in seen and query not in taken:
            seen.add(query)
            variants.append(made)
    return tuple(variants)
