from __future__ import annotations

from shammah_chassis.releases import Champion, Wanted
from shammah_gateway.retention import kept_releases
from shammah_gateway.transitions import default_rollback, promoted, settled


def test_the_old_champion_becomes_the_newest_of_the_last_five() -> None:
    champion = Champion("A")
    for name in "BCDEFGH":
        champion = promoted(champion, name, 1.0, "test")
    assert (champion.release, champion.previous) == ("H", ("G", "F", "E", "D", "C"))


def test_a_release_is_never_its_own_predecessor() -> None:
    champion = promoted(Champion("C", ("B", "A")), "B", 1.0, "rolled back")
    assert (champion.release, champion.previous) == ("B", ("C", "A"))
    assert promoted(champion, "B", 2.0, "again") == champion


def test_wanted_is_champion_one_before_pins_and_candidate() -> None:
    champion = Champion("C", ("B", "A"), pinned=("P", "B"))
    assert settled(champion, "") == Wanted(("C", "B", "P"))
    assert settled(champion, "D") == Wanted(("C", "B", "P", "D"), "D")


def test_rollback_goes_to_the_newest_older_release() -> None:
    assert default_rollback(Champion("B", ("C", "A"))) == "A"
    # Where nothing older is left, what was just rolled back is no way to go.
    assert default_rollback(Champion("A", ("B", "C"))) == ""
    assert default_rollback(Champion("A")) == ""


def test_the_store_keeps_what_served_what_is_wanted_pins_and_the_newest_five() -> None:
    stored = list("ZYXWVUTSRQPONMLKJIHGFEDCBA")
    champion = Champion("M", ("L", "K", "J", "I", "H"), pinned=("A",))
    kept = kept_releases(stored, champion, Wanted(("M", "L", "N"), "N"))
    assert kept == set("ZYXWV") | set("MLKJIHAN")
