from __future__ import annotations

import hashlib

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.neardup import NearDuplicates
from shammah_chassis.text import normalise_query

LONG = (
    "please tell me which of the many trains that leave from the central station tomorrow in the "
    "morning between eight and ten will arrive in the old harbour town before the shops close there"
)


def test_the_cluster_is_the_digest_of_its_first_member() -> None:
    known = NearDuplicates()
    digest = hashlib.sha256(normalise_query(LONG).encode()).hexdigest()
    assert known.add(LONG) == digest
    assert known.add(LONG.upper() + "!") == digest
    assert known.add(LONG + " please") == digest
    assert known.find(LONG + " thanks") == digest


def test_a_different_query_is_a_cluster_of_its_own() -> None:
    known = NearDuplicates()
    first = known.add("What is 2 + 3?")
    assert known.find("What is 2 + 4?") is None
    assert known.add("What is 2 + 4?") != first


def test_find_adds_nothing() -> None:
    known = NearDuplicates()
    assert known.find(LONG) is None
    assert known.find(LONG) is None
    assert len(known) == 0


def test_a_chain_of_small_changes_stays_one_cluster() -> None:
    known = NearDuplicates()
    words = LONG.split()
    clusters = set()
    for count in range(8):
        changed = [f"x{index}" if index < count else word for index, word in enumerate(words)]
        clusters.add(known.add(" ".join(reversed(changed))))
    assert len(clusters) == 1


def test_rebuilding_from_the_same_texts_gives_the_same_clusters() -> None:
    texts = [f"{LONG} number {index % 7} {'again ' * (index % 3)}" for index in range(60)]
    assert NearDuplicates().extend(texts) == NearDuplicates().extend(texts)


def test_texts_without_words_are_one_cluster() -> None:
    known = NearDuplicates()
    assert known.add("?!") == known.add("…")
    assert known.find("word") is None


@pytest.mark.parametrize("threshold", [0.4, 1.1, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(InvalidInputError, match=r"0\.5 to 1"):
        NearDuplicates(threshold)


def test_near_duplicates_are_found_among_thousands() -> None:
    known = NearDuplicates()
    originals = [
        " ".join(f"w{(seed * 7919 + place * place * 104729) % 5003}" for place in range(40)) for seed in range(2_000)
    ]
    clusters = known.extend(originals)
    assert len(set(clusters)) == 2_000
    found = [known.find(text + " please") for text in originals]
    assert found == clusters
