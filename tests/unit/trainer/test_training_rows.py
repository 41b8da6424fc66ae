"""From examples to rows: variants of labels, and what `SftHyper` asks for."""

from __future__ import annotations

import random
from collections.abc import Collection

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.examples import Example, Message, Provenance
from shammah_chassis.text import normalise_query
from shammah_trainer.hyper import SftHyper, check_hyper
from shammah_trainer.ledger import LedgerRow
from shammah_trainer.training_rows import make_rows
from shammah_trainer.word_dropout import drop_words

WORDS = ["Message:", "see", "you", "in", "a", "bit", "then"]
TASK = "Reply with one word.\nMessage: "


def label(text: str, grader: str = "label") -> Example:
    return Example(
        query=(Message("user", TASK + text),),
        response="ham",
        category="spam",
        grader=grader,
        provenance=Provenance(origin="dataset"),
    )


def drop(
    example: Example, *, count: int = 4, chance: float = 0.4, seed: int = 0, taken: Collection[str] = ()
) -> list[str]:
    made = drop_words(example, count=count, chance=chance, rng=random.Random(seed), taken=taken)
    assert all(variant.response == example.response for variant in made)
    return [variant.query[-1].content for variant in made]


def test_words_of_the_last_line_go_and_the_rest_stays() -> None:
    found = drop(label("see you in a bit then"))
    assert len(found) == len(set(found)) == 4
    for content in found:
        task, last = content.split("\n")
        assert task == "Reply with one word."
        left = iter(WORDS)
        assert all(word in left for word in last.split())  # a subsequence
        assert last.split() != WORDS


def test_no_variant_asks_what_a_judge_asks() -> None:
    example = label("see you")
    found = drop(example, count=6, chance=0.5, seed=3)
    taken = {normalise_query(found[0])}
    assert found[0] not in drop(example, count=6, chance=0.5, seed=3, taken=taken)


def test_only_labels_vary_and_one_word_is_kept() -> None:
    assert drop(label("see you", grader="json")) == []
    one = Example(
        query=(Message("user", "hello"),),
        response="ham",
        category="spam",
        grader="label",
        provenance=Provenance(origin="dataset"),
    )
    assert drop(one) == []


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_share_out_of_its_range_is_refused(value: float) -> None:
    with pytest.raises(InvalidInputError, match="word_dropout"):
        check_hyper(SftHyper(word_dropout=value))


def test_what_is_copied_has_further_rows_with_other_values_in_each_epoch() -> None:
    names = [*(head + tail for head in ("Du", "Blu", "Her", "Ru") for tail in ("ne", "es", "mours", "lo", "ra")), "Low"]
    rows = [ledger_row(f"play {name}", f'{{"track": "{name}"}}', number) for number, name in enumerate(names)]
    further = make_rows(rows, SftHyper(epochs=3, copied=2), taken={"play low"})
    assert {made.source for made in further} == set(range(len(names))) and len(further) == 2 * len(names)
    assert sum(len(made.variants) == 2 for made in further) > len(names)
    for made in further:
        turns = [made.row.example, *made.variants]
        assert len(turns) == len({turn.query_text for turn in turns}) <= 3  # one for each epoch
        for turn in turns:
            assert turn.response == f'{{"track": "{turn.query_text.removeprefix("play ")}"}}'
            assert turn.query_text not in ("play Low", rows[made.source].example.query_text)


def test_no_further_rows_unless_they_are_asked_for() -> None:
    rows = [ledger_row("play Dune", '{"track": "Dune"}', 1), ledger_row("play Low", '{"track": "Low"}', 2)]
    assert make_rows(rows, SftHyper(), taken=()) == []


def ledger_row(query: str, response: str, sequence: int) -> LedgerRow:
    example = Example(
        query=(Message("user", query),),
        response=response,
        category="calls",
        grader="json",
        provenance=Provenance(origin="dataset"),
    )
    return LedgerRow(str(sequence), sequence, "train", "calls", str(sequence), False, 1.0, 0, example)
