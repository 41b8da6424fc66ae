from __future__ import annotations

from pathlib import Path

from shammah_chassis.ulid import new_ulid
from shammah_gateway.coins import Coins, load_secret


def test_a_coin_falls_the_same_way_again() -> None:
    coins = Coins(b"secret", 0.5, 0.5)
    ids = [new_ulid() for _ in range(50)]
    assert [coins.toss(name) for name in ids] == [coins.toss(name) for name in ids]


def test_coins_fall_at_their_rates_and_independently() -> None:
    coins = Coins(b"secret", 0.2, 0.5)
    tosses = [coins.toss(str(index)) for index in range(20_000)]
    audits = sum(toss.audit for toss in tosses) / len(tosses)
    both = sum(toss.audit and toss.explore for toss in tosses) / len(tosses)
    assert abs(audits - 0.2) < 0.015  # five standard deviations
    assert abs(both - 0.1) < 0.011


def test_rates_zero_and_one_are_never_and_always() -> None:
    never, always = Coins(b"s", 0.0, 0.0), Coins(b"s", 1.0, 1.0)
    assert not any(never.toss(str(index)).audit for index in range(1000))
    assert all(always.toss(str(index)).explore for index in range(1000))


def test_another_secret_gives_other_coins() -> None:
    ids = [str(index) for index in range(200)]
    one, other = Coins(b"one", 0.5, 0.5), Coins(b"other", 0.5, 0.5)
    assert [one.toss(name) for name in ids] != [other.toss(name) for name in ids]


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "own" / "coins.secret"
    secret = load_secret(path)
    assert len(secret) == 32 and load_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
