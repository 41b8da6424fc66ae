"""What the settings of a trainer say to a round."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from shammah_chassis.errors import InvalidInputError
from shammah_trainer import config
from shammah_trainer.config import TrainerSettings
from shammah_trainer.hyper import SftHyper, check_hyper


def settings(tmp_path: Path, **changes: object) -> TrainerSettings:
    return TrainerSettings(data_dir=tmp_path, **changes)


def test_a_round_keeps_a_tenth_of_the_old_weights_and_varies_nothing_unless_told(tmp_path: Path) -> None:
    told = settings(tmp_path).round_settings("cpu").sft
    assert (told.kept, told.variants, told.word_dropout, told.computed, told.copied, told.coined) == (
        0.1,
        0,
        0,
        0,
        0,
        0,
    )
    wanted = {"kept": 0.0, "variants": 2, "word_dropout": 0.1, "computed": 3, "copied": 4, "coined": 0.5}
    told = settings(tmp_path).round_settings("cpu").sft
    assert [getattr(told, name) for name in wanted] == [0.1, 0, 0, 0, 0, 0]
    told = settings(tmp_path, **{f"sft_{name}": value for name, value in wanted.items()}).round_settings("cpu").sft
    assert {name: getattr(told, name) for name in wanted} == wanted


def test_low_rank_additions_keep_nothing(tmp_path: Path) -> None:
    assert settings(tmp_path, sft_lora_rank=4).round_settings("cpu").sft.kept == 0.0
    for beside in ({"kept": 0.1}, {"anchor": 1.0}):
        with pytest.raises(InvalidInputError, match="lora_rank"):
            check_hyper(SftHyper(lora_rank=4, **beside))


@pytest.mark.parametrize(
    "wrong",
    [
        {"sft_kept": 1.0},
        {"sft_variants": -1},
        {"sft_computed": -1},
        {"sft_word_dropout": 1.0},
        {"sft_copied": -1},
        {"sft_coined": 1.1},
    ],
)
def test_what_is_out_of_its_range_is_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        settings(tmp_path, **wrong)


def test_what_a_round_would_refuse_is_refused_at_the_start_by_the_names_of_its_settings(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="SFT_LORA_RANK and SFT_UPPER_LAYERS are both set; allowed: one of them"):
        settings(tmp_path, sft_lora_rank=8, sft_upper_layers=2)
    # With each alone a round begins.
    for alone in ({"sft_lora_rank": 8}, {"sft_upper_layers": 2}):
        check_hyper(settings(tmp_path, **alone).round_settings("cpu").sft)


def test_whatever_else_is_refused_of_a_round_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: SftHyper) -> None:
        raise InvalidInputError("dev_checks is set beside what is new; allowed: one of them")

    monkeypatch.setattr(config, "check_hyper", refuse)
    with pytest.raises(ValidationError, match="SFT_DEV_CHECKS is set beside what is new"):
        settings(tmp_path)
