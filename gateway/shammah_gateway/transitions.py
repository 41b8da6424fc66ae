"""What the values of the two keys become at a switch: pure rules, tried without a bus.

See DESIGN "Artifacts and releases". It knows no store and no pod.
"""

from __future__ import annotations

from shammah_chassis.releases import Champion, Wanted

# The last five distinct releases can be gone back to.
KEPT = 5


def promoted(now: Champion, release: str, at: float, reason: str) -> Champion:
    """Return the champion after a switch: the old one becomes the newest of `previous`; Unix seconds `at`."""
    if now.release == release:
        return now
    previous = tuple(name for name in dict.fromkeys((now.release, *now.previous)) if name != release)
    return Champion(release, previous[:KEPT], now.pinned, at, reason)


def settled(champion: Champion, candidate: str) -> Wanted:
    """Return what the pods should hold: champion, the one before, pins, and the candidate on trial."""
    names = (champion.release, *champion.previous[:1], *champion.pinned, *((candidate,) if candidate else ()))
    return Wanted(tuple(dict.fromkeys(names)), candidate)


def default_rollback(champion: Champion) -> str:
    """Return the newest earlier release that is older than the champion (ids are ULIDs); "" where none is left.

    So a second rollback goes further back, and never forth again to what was just left.
    """
    return max((name for name in champion.previous if name < champion.release), default="")
