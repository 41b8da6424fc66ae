"""Variants of examples: what is taken for a copied value, and what changes with it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from shammah_chassis.examples import Example, Message, Provenance
from shammah_chassis.text import normalise_query
from shammah_trainer.substitution import Slot, find_slots, vary


def example(query: str, response: str, *, grader: str = "json", category: str = "calls") -> Example:
    return Example(
        query=(Message("system", "Be brief."), Message("user", query)),
        response=response,
        category=category,
        grader=grader,
        provenance=Provenance(origin="dataset"),
    )


PLAY = example("play Dune by Toto please", '{"artist": "Toto", "name": "Play", "track": "Dune"}')
SEND = example("put on Blue by Joni Mitchell", '{"artist": "Joni Mitchell", "name": "Play", "track": "Blue"}')
SQL = example(
    "Is EECS 790 hard? I like AI",
    'SELECT C.X FROM C WHERE C.DEPARTMENT = "EECS" AND C.NUMBER = 790 AND C.NUMBER < 790 + 1 AND C.AREA LIKE "%ai%" ;',
    grader="exact",
    category="sql",
)


def test_values_that_the_query_has_once_are_slots() -> None:
    assert find_slots(PLAY) == [Slot("track", "Dune", "Dune", 5), Slot("artist", "Toto", "Toto", 13)]
    assert [(slot.name, slot.answered) for slot in find_slots(SQL)] == [
        ("C.DEPARTMENT", "EECS"),
        ("C.NUMBER", "790"),
        ("C.AREA LIKE", "ai"),
    ]


@pytest.mark.parametrize(
    ("query", "response"),
    [
        ("play something", '{"artist": "Toto"}'),  # not in the query
        ("Toto sings Toto", '{"artist": "Toto"}'),  # twice in it: which one is meant?
        ("play Totoro", '{"artist": "Toto"}'),  # a part of a word
        ("seat 12.5 people", '{"people": 12}'),  # a part of a number
        ('call it "Toto"', '{"artist": "Toto"}'),  # in quotes: may be a name in a schema
        ("will you play", '{"name": "Play"}'),  # a label, not a copy
        ("play it", '{"artist": "say \\"it\\""}'),  # with escapes
        ("top 2 cities", "SELECT x FROM city AS city2 WHERE city2.size > least"),  # a part of a name
        ("name of kind name", 'SELECT name FROM t WHERE kind = "name"'),  # twice in the query
        ("what is of kind name", 'SELECT name FROM t WHERE kind = "name"'),  # a column too
        ("play the album here", '{"item": "album", "album": "Dune"}'),  # a key too
        ("in Fall , or when", 'x IN ( "FA" , "Fall" , "SP" )'),  # what stands between two texts
    ],
)
def test_what_is_no_slot(query: str, response: str) -> None:
    assert find_slots(example(query, response)) == []


def test_a_value_that_an_earlier_message_has_too_is_no_slot() -> None:
    turns = (Message("user", "I like Dune"), Message("assistant", "So?"), Message("user", "play Dune by Toto"))
    assert [slot.answered for slot in find_slots(replace(PLAY, query=turns))] == ["Toto"]


def test_what_is_too_long_to_be_trained_on_is_not_looked_through() -> None:
    assert find_slots(example("play Dune" + " and" * 1000, '{"track": "Dune"}'))
    assert find_slots(example("play Dune" + " and" * 3000, '{"track": "Dune"}')) == []
    assert find_slots(example("play Dune", '{"track": "Dune", "of": "' + "x" * 90_000 + '"}')) == []


def test_texts_and_numbers_of_one_name_do_not_stand_for_each_other() -> None:
    rows = [
        example("in the year 1989", '{"year": 1989}'),
        example("in the year MMI", '{"year": "MMI"}'),
        example("in the year 1990", '{"year": 1990}'),
        example("in the year 0007", '{"year": "0007"}'),
    ]
    found = vary(rows, count=9, seed=0)
    assert all(found)
    for row, own in zip(rows, found, strict=True):
        years = [json.loads(made.response)["year"] for made in own]
        assert {type(year) for year in years} == {type(json.loads(row.response)["year"])}


def test_values_in_each_other_are_left_alone() -> None:
    found = find_slots(
        example("book in New York City for two", '{"state": "New York", "city": "York City", "n": "two"}')
    )
    assert [slot.answered for slot in found] == ["two"]


@pytest.mark.parametrize("grader", ["label", "numeric", "contains", ""])
def test_other_graders_have_no_slots(grader: str) -> None:
    assert find_slots(example("play Dune", '{"track": "Dune"}', grader=grader)) == []


def test_a_variant_has_the_same_value_in_query_and_response() -> None:
    found = vary([PLAY, SEND], count=3, seed=1)[0]
    assert found
    for made in found:
        call = json.loads(made.response)
        assert set(call) == {"artist", "name", "track"}
        assert made.query[-1].content == f"play {call['track']} by {call['artist']} please"
        assert call["track"] in ("Dune", "Blue") and call["artist"] in ("Toto", "Joni Mitchell")
        assert (made.query[0], made.category, made.reference) == (PLAY.query[0], PLAY.category, made.response)


def test_all_places_of_the_response_change_and_case_is_kept_apart() -> None:
    other = example(
        "eecs 281 and AI",
        'SELECT * FROM C WHERE C.DEPARTMENT = "EECS" AND C.NUMBER = 281 AND C.AREA LIKE "%ai%" ;',
        grader="exact",
        category="sql",
    )
    texts = {made.response: made.query[-1].content for made in vary([SQL, other], count=8, seed=0)[0]}
    changed = next(response for response in texts if "281" in response)
    assert "790" not in changed and changed.count("281") == 2
    assert "281" in texts[changed] and "790" not in texts[changed]
    assert all('"EECS"' in response for response in texts)


def test_variants_are_new_and_none_asks_what_a_judge_asks() -> None:
    rows = [PLAY, SEND]
    queries = [normalise_query(made.query_text) for made in vary(rows, count=9, seed=0)[0]]
    assert len(queries) == len(set(queries)) == 3 and normalise_query(PLAY.query_text) not in queries
    left = [normalise_query(made.query_text) for made in vary(rows, count=9, seed=0, taken=queries[:1])[0]]
    assert sorted(left) == sorted(queries[1:])


def test_values_stay_in_their_category_and_seeds_decide() -> None:
    stranger = example("play Rumours by Abba", '{"artist": "Abba", "track": "Rumours"}', category="other")
    rows = [PLAY, SEND, stranger]
    assert vary(rows, count=4, seed=5) == vary(rows, count=4, seed=5)
    assert vary(rows, count=4, seed=5)[2] == ()
    assert not any("Abba" in made.response for own in vary(rows, count=4, seed=5)[:2] for made in own)
