"""Coined words: new, like the rare ones they replace, and nothing else changes."""

from __future__ import annotations

import json
import random
import re

from shammah_chassis.examples import Example, Message, Provenance
from shammah_trainer.coined_words import Coiner
from shammah_trainer.substitution import find_slots, vary

NAMES = (
    *("Vernon", "Shubuta", "Bowlegs", "Vanlue", "Monson", "Horatio", "Calistoga", "Fayette", "Bock", "Heck"),
    *("Jeffrey", "Whitehouse", "Moonlight", "Kiama", "Mattawa", "Seward", "Ponta", "Bracey", "Dolgan", "Ritchie"),
)


def asked(name: str, when: str = "tonight") -> Example:
    response = json.dumps({"city": name, "time": when})
    return Example(
        query=(Message("user", f"Weather in {name} {when}"),),
        response=response,
        reference=response,
        category="weather",
        grader="json",
        provenance=Provenance(origin="dataset"),
    )


ROWS = [asked(name) for name in NAMES]
TEXTS = [row.query_text for row in ROWS]


def test_rare_words_are_coined_and_common_ones_stay() -> None:
    coined = Coiner(TEXTS).coin("Weather in Vernon tonight", random.Random(0))
    made = re.fullmatch(r"Weather in ([A-Z][a-z]{3,}) tonight", coined)
    assert made and made[1] not in NAMES


def test_a_coined_word_begins_like_one_rare_word_and_ends_like_another() -> None:
    rare = [name.lower() for name in NAMES]
    for seed in range(50):
        word = Coiner(TEXTS).coin("Vernon", random.Random(seed)).lower()
        assert any(word.startswith(name[:2]) for name in rare) and any(word.endswith(name[-2:]) for name in rare)


def test_no_coined_word_is_one_that_was_seen_however_often() -> None:
    heads, tails = [f"ton{letter}orb" for letter in "abcdefghijkl"], [f"ver{letter}ight" for letter in "abcdefghijkl"]
    texts = [f"in {name} tonight" for name in (*heads, *tails)]
    made = {Coiner(texts).coin(heads[0], random.Random(seed)) for seed in range(300)} - {heads[0]}
    assert len(made) > 20 and not made & {"tonight", *heads, *tails}


def test_letters_stay_as_large_as_they_were() -> None:
    coiner = Coiner(TEXTS)
    for text in ("vernon", "VERNON", "Vernon"):
        made = coiner.coin(text, random.Random(1))
        assert (made.islower(), made.isupper(), made.istitle()) == (text.islower(), text.isupper(), text.istitle())


def test_few_rare_words_coin_nothing() -> None:
    assert Coiner(TEXTS[:15]).coin("Vernon", random.Random(0)) == "Vernon"


def test_words_that_nobody_asked_short_ones_and_numbers_stay() -> None:
    assert Coiner(TEXTS).coin("Oslo is 12.5 km from Bonn", random.Random(0)) == "Oslo is 12.5 km from Bonn"


def test_query_and_response_have_the_same_coined_value() -> None:
    found = [made for own in vary(ROWS, count=4, seed=0, coined=1.0) for made in own]
    cities = [json.loads(made.response)["city"] for made in found]
    assert all(f"Weather in {city} tonight" == made.query_text for city, made in zip(cities, found, strict=True))
    assert not set(cities) & set(NAMES) and len(set(cities)) > len(NAMES)
    assert all(len(find_slots(made)) == 2 for made in found)


def test_the_share_of_coined_values_is_what_was_asked() -> None:
    def count(coined: float) -> float:
        found = [made for own in vary(ROWS, count=4, seed=0, coined=coined) for made in own]
        return sum(json.loads(made.response)["city"] not in NAMES for made in found) / len(found)

    # What is neither coined nor another's makes no variant.
    assert count(0.0) == 0.0 and 0.3 < count(0.5) < 0.75 and count(1.0) == 1.0
