from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shammah_chassis.errors import ArtifactError
from shammah_trainer.encoders.base import load_validator
from shammah_trainer.encoders.networks import NEIGHBOURS, STATISTICS
from shammah_trainer.encoders.results import ValidatorHyper
from shammah_trainer.encoders.storage import load_version, save_version
from shammah_trainer.encoders.train_validator import train_validator
from shammah_validator.engine import ValidateItem, ValidatorEngine
from support.encoders import base_validator, describe, make_graded_rows

HEADS = (("quality_text", 0), ("quality_full", STATISTICS))


def write_format_1(out: Path) -> dict[str, torch.Tensor]:
    """Write a version as the first program did, its heads with weights of their own; returns those weights."""
    stored = load_version(base_validator()[0], kind="validator")
    weights = dict(stored.weights)
    generator = torch.Generator().manual_seed(0)
    for name, before in HEADS:
        for part in ("wide", "wide_bias", "narrow"):
            del weights[f"{name}.{part}"]
        for part in ("mean", "scale", "weight"):
            new = weights[f"{name}.{part}"]
            weights[f"{name}.{part}"] = torch.cat([new[:before], new[before + NEIGHBOURS :]])
        shape = weights[f"{name}.weight"].shape
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator)
    config = {name: value for name, value in stored.config.items() if name not in ("format", "index_rows")}
    save_version(out, weights, config=config, labels=(), tokenizer=base_validator()[0] / "tokenizer.json")
    return weights


def test_a_version_of_format_1_is_read_and_its_heads_judge_as_before(tmp_path: Path) -> None:
    old = write_format_1(tmp_path)
    network, stored = load_validator(tmp_path)
    assert stored.config["format"] == 2
    features = torch.randn(5, len(old["quality_full.weight"]), generator=torch.Generator().manual_seed(1))
    standard = (features - old["quality_full.mean"]) / old["quality_full.scale"]
    expected = torch.sigmoid(standard.clamp(-4, 4) @ old["quality_full.weight"] + old["quality_full.bias"])
    neighbours = torch.rand(5, NEIGHBOURS)
    wider = torch.cat([features[:, :STATISTICS], neighbours, features[:, STATISTICS:]], dim=1)
    torch.testing.assert_close(network.quality_full(wider), expected)


def test_a_version_of_format_1_can_be_trained_further_and_served(tmp_path: Path) -> None:
    write_format_1(tmp_path / "old")
    hyper = ValidatorHyper(max_pairs=10)
    result = train_validator(tmp_path / "old", [], make_graded_rows(40), tmp_path / "new", hyper=hyper, seed=0)
    assert result.config["format"] == 2
    engine = ValidatorEngine(tmp_path / "new", describe("validator", tmp_path / "new", result))
    (answer,) = engine.validate([ValidateItem("my card", "yes", "bank", make_graded_rows(1)[0].statistics)])
    assert 0 < answer.quality < 1


def test_a_newer_format_is_refused_by_trainer_and_service(tmp_path: Path) -> None:
    folder, result = base_validator()
    stored = load_version(folder, kind="validator")
    newer = stored.config | {"format": 3}
    save_version(tmp_path, stored.weights, config=newer, labels=(), tokenizer=folder / "tokenizer.json")
    with pytest.raises(ArtifactError, match="format 3"):
        load_validator(tmp_path)
    manifest = describe("validator", folder, result)
    with pytest.raises(ArtifactError, match="format 3"):
        ValidatorEngine(folder, replace(manifest, config={**manifest.config, "format": 3}))


def test_a_version_whose_index_is_gone_is_refused() -> None:
    folder, result = base_validator()
    manifest = describe("validator", folder, result)
    with pytest.raises(ArtifactError, match="neighbours"):
        ValidatorEngine(folder, replace(manifest, config={**manifest.config, "index_rows": 12}))
