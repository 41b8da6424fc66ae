from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.errors import BudgetError, StorageFullError
from shammah_gateway.spending import Spending


def test_the_budget_is_hard_and_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "calls.json"
    spending = Spending(path, total=2)
    spending.take("answer")
    spending.take("teach")
    again = Spending(path, total=2)
    assert again.calls == 2
    with pytest.raises(BudgetError):
        again.take("answer")


def test_audits_have_a_budget_of_their_own() -> None:
    spending = Spending(None, total=None, limits={"audit": 1})
    spending.take("audit")
    with pytest.raises(BudgetError):
        spending.take("audit")
    spending.take("answer")
    assert spending.left("audit") == 0 and spending.left("answer") is None


def test_the_smaller_limit_counts() -> None:
    spending = Spending(None, total=3, limits={"audit": 10})
    spending.take("answer")
    assert spending.left("audit") == 2


def test_tokens_are_kept_by_purpose(tmp_path: Path) -> None:
    path = tmp_path / "calls.json"
    Spending(path, total=None).add_tokens("teach", 100, 20)
    assert Spending(path, total=None).spent("teach").output_tokens == 20


def test_on_a_full_disk_only_a_call_under_a_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "calls.new").symlink_to("/dev/full")
    spending = Spending(tmp_path / "calls.json", total=None, limits={"audit": 5})
    spending.take("answer")
    spending.add_tokens("answer", 100, 20)
    with pytest.raises(StorageFullError):
        spending.take("audit")
    assert (spending.calls, spending.left("audit")) == (1, 5)
