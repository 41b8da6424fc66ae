"""Variants of an example whose response copies values out of its query: other values, the same in both.

"Play To Be Still" with `{"album": "To Be Still"}` becomes "Play Dune" with `{"album": "Dune"}`. Values come from other
train examples of the category where they stood under the same name; slot substitution (Louvan and Magnini 2020,
"Simple is Better!") without annotated slots. Only quoted texts and numbers that stand behind a name are values, only
those of `json` and `exact` responses, none that the query itself has in quotes (it may be a name in a schema), and
none that the response also has as something else, such as a key or a column. It knows texts, no meaning: that two
values stood under one name, both in quotes or both not, is all that makes them alike.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from shammah_chassis.examples import Example, Message
from shammah_chassis.text import normalise_query

from shammah_trainer.coined_words import Coiner

GRADERS = ("json", "exact")
_SWAP_CHANCE = 0.7
_TRIES = 3
_QUOTES = ('"', "'", "`")
_MOST_CHARACTERS = 8192  # of query and response: what is longer is hardly trained on, and takes long to look through
# A whole name, then `": "`, ` = "`, ` LIKE "%` or the like, then a quoted text without escapes or a number. What was
# taken is never given back (`*+`): in a long word or run of spaces the time would grow with its square.
_VALUE = re.compile(
    r"""(?<![\w.])(?P<name>[A-Za-z_][\w.]*+(?:\s++(?:LIKE|IN|BETWEEN))?+)"?\s*+[:=(<>]*+\s*+
    (?:"%?(?P<text>[^"\\%]++)%?"|(?P<number>-?\d+(?:\.\d+)?)(?![\w.]))""",
    re.VERBOSE,
)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"(?P<key>\s*+:)?+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Slot:
    """A value that the response copies: its name, as the query writes it, as the response does, where the query has it.

    Query and response may differ in case. `start`: character in the last message of the query. `bare`: a number that
    the response has without quotes.
    """

    name: str
    asked: str
    answered: str
    start: int
    bare: bool = False

    @property
    def kind(self) -> tuple[str, bool]:
        """Values of one kind may stand for each other."""
        return self.name, self.bare

    @property
    def end(self) -> int:
        """The character behind it."""
        return self.start + len(self.asked)


_Donors = dict[tuple[str, bool], list[Slot]]


def find_slots(example: Example) -> list[Slot]:
    """Return the copied values in the order of the query: each is there once, and none lies in another.

    Texts of more than 8,192 characters have none.
    """
    size = sum(len(message.content) for message in example.query) + len(example.response)
    if example.grader not in GRADERS or size > _MOST_CHARACTERS:
        return []
    found: dict[str, Slot] = {}
    for match in _VALUE.finditer(example.response):
        answered = match["text"] or match["number"]
        start = _find_copy(answered, example.query)
        if answered in found or start is None or _is_more(answered, example.response, bare=not match["text"]):
            continue
        asked = example.query[-1].content[start : start + len(answered)]
        found[answered] = Slot(" ".join(match["name"].split()), asked, answered, start, not match["text"])
    slots = sorted(found.values(), key=lambda slot: slot.start)
    overlapping = {slot for one, other in pairwise(slots) if one.end > other.start for slot in (one, other)}
    return [slot for slot in slots if slot not in overlapping]


def _find_copy(answered: str, query: Sequence[Message]) -> int | None:
    """Return where the last message has a value, if it is there once, not in quotes, and in no message before."""
    content = query[-1].content
    if answered.lower() not in content.lower():  # most are not: no pattern need be made
        return None
    word = re.compile(_as_word(answered), re.IGNORECASE)
    places = [place.span() for place in word.finditer(content)]
    if len(places) != 1 or any(word.search(message.content) for message in query[:-1]):
        return None
    start, end = places[0]
    # A label such as "Play" is no copy of the "play" of the query; "ai", sought by LIKE, is one of its "AI".
    copied = answered in (content[start:end], content[start:end].lower())
    return start if copied and content[max(0, start - 1) : start] not in _QUOTES else None


def _is_more(answered: str, response: str, *, bare: bool) -> bool:
    """Say whether the response has a value also where another would be wrong: as a key, or a text outside of quotes."""
    keys = [match[0] for match in _QUOTED.finditer(response) if match["key"]]
    others = "".join(keys) if bare else _QUOTED.sub(lambda match: match[0] if match["key"] else "", response)
    return re.search(_as_word(answered), others) is not None


def vary(
    examples: Sequence[Example], *, count: int, seed: int, coined: float = 0.0, taken: Collection[str] = ()
) -> list[tuple[Example, ...]]:
    """Return up to `count` variants of each example, all different; none where nothing is copied.

    `coined`: the probability that the rare words of a value are coined ones.
    `taken`: normalised queries (`normalise_query`) that no variant may have, above all those that judge.
    """
    slots = [find_slots(example) for example in examples]
    donors = _gather_donors(examples, slots)
    rng = random.Random(seed)
    coiners = _make_coiners(examples) if coined else {}
    draws = {name: _Draw(own, coiners.get(name), coined, rng) for name, own in donors.items()}
    return [
        tuple(_vary_one(example, own, draws[example.category], count, taken)) if own else ()
        for example, own in zip(examples, slots, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Draw:
    """Draws the values of one category."""

    donors: _Donors
    coiner: Coiner | None
    coined: float
    rng: random.Random

    def value(self, slot: Slot) -> Slot:
        """Return what stands for a slot: often another's value, sometimes with words that are coined."""
        donor = self.rng.choice(self.donors[slot.kind]) if self.rng.random() < _SWAP_CHANCE else slot
        if self.coiner is None or slot.bare or self.rng.random() >= self.coined:
            return donor
        asked = self.coiner.coin(donor.asked, self.rng)
        return replace(donor, asked=asked, answered=asked if donor.answered == donor.asked else asked.lower())


def _make_coiners(examples: Sequence[Example]) -> dict[str, Coiner]:
    """Return the rare words of the queries of each category."""
    texts: dict[str, list[str]] = {}
    for example in examples:
        texts.setdefault(example.category, []).append(example.query[-1].content)
    return {name: Coiner(own) for name, own in texts.items()}


def _gather_donors(examples: Sequence[Example], slots: Iterable[Sequence[Slot]]) -> dict[str, _Donors]:
    """Return the values of each kind in each category, as often as they were seen."""
    donors: dict[str, _Donors] = {}
    for example, own in zip(examples, slots, strict=True):
        for slot in own:
            donors.setdefault(example.category, {}).setdefault(slot.kind, []).append(slot)
    return donors


def _vary_one(
    example: Example,
    slots: Sequence[Slot],
    draw: _Draw,
    count: int,
    taken: Collection[str],
) -> list[Example]:
    """Try a few times for each variant that is wanted; names with few values may not have so many."""
    seen = {normalise_query(example.query_text)}
    variants: list[Example] = []
    for _ in range(count * _TRIES):
        if len(variants) == count:
            break
        chosen = [(slot, draw.value(slot)) for slot in slots]
        made = _substitute(example, [(slot, donor) for slot, donor in chosen if donor.answered != slot.answered])
        query = normalise_query(made.query_text)
        if query not in seen and query not in taken:
            seen.add(query)
            variants.append(made)
    return variants


def _substitute(example: Example, swaps: Sequence[tuple[Slot, Slot]]) -> Example:
    """Put the donors' values in place; everywhere in the response, as SQL may use a value twice."""
    last = example.query[-1]
    content = last.content
    for slot, donor in sorted(swaps, key=lambda swap: -swap[0].start):
        content = content[: slot.start] + donor.asked + content[slot.end :]
    new = {slot.answered: donor.answered for slot, donor in swaps}
    response = example.response
    if new:
        # One pass, so that a value that was just put in is not replaced again.
        known = "|".join(_as_word(old) for old in sorted(new, key=len, reverse=True))
        response = re.sub(known, lambda match: new[match[0]], response)
    return replace(
        example, query=(*example.query[:-1], replace(last, content=content)), response=response, reference=response
    )


def _as_word(text: str) -> str:
    """Return a pattern of the text where it is not a part of a longer word or number."""
    before = r"(?<![\w.])" if text[0].isalnum() else ""
    after = r"(?!\w)(?!\.\d)" if text[-1].isalnum() else ""
    return before + re.escape(text) + after
