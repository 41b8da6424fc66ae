"""What rows weigh in a training: long responses by their length, or all rows alike."""

from __future__ import annotations

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_trainer.batches import SftRow
from shammah_trainer.hyper import SftHyper, check_hyper
from shammah_trainer.training_rows import balance_rows

LABEL = SftRow((1, 2, 3), (False, False, True))
QUERY = SftRow(tuple(range(101)), (False, *[True] * 100), 3.0)


def weigh(row: SftRow) -> float:
    return row.weight * sum(row.mask)


def test_without_balance_each_learned_token_weighs_the_same() -> None:
    assert balance_rows([LABEL, QUERY], 0.0) == [LABEL, QUERY]


def test_with_full_balance_each_row_weighs_what_its_user_says() -> None:
    assert [weigh(row) for row in balance_rows([LABEL, QUERY], 1.0)] == pytest.approx([1.0, 3.0])


def test_half_of_it_weighs_a_row_by_the_root_of_its_length() -> None:
    assert [weigh(row) for row in balance_rows([LABEL, QUERY], 0.5)] == pytest.approx([1.0, 30.0])


def test_a_row_without_learned_tokens_does_no_harm() -> None:
    assert balance_rows([SftRow((1, 2), (False, False))], 1.0)[0].weight == 1.0


@pytest.mark.parametrize("balance", [-0.1, 1.5])
def test_a_balance_out_of_range_is_refused(balance: float) -> None:
    with pytest.raises(InvalidInputError, match="balance"):
        check_hyper(SftHyper(balance=balance))
