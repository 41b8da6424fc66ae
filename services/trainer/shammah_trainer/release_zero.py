"""Release 0: the base models as a release that forwards everything until an exam says otherwise.

It knows the base models and how a version is described; publishing it and making it the champion is the engine's job.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from shammah_chassis.manifest import Role
from shammah_chassis.releases import Release
from shammah_chassis.ulid import new_ulid
from shammah_generator.graph import write_graphs
from shammah_generator.model import TOKENIZER_NAME

from shammah_trainer.base_models import BaseModels
from shammah_trainer.encoders.base import make_base_router, make_base_validator
from shammah_trainer.publishing import Description, Version, make_version
from shammah_trainer.student import WEIGHTS_NAME, read_config


def build_release_zero(
    base: BaseModels, work: Path, *, precision: str, fence: int
) -> tuple[Release, dict[Role, Version]]:
    """Build the three base versions below `work` and the release that names them.

    Raises:
        ArtifactError: a base model can't be used.
        OSError: the disk is full; nothing was published.
    """
    provenance = {"base": {"generator": str(base.generator), "encoder": str(base.encoder)}}
    versions: dict[Role, Version] = {
        "generator": build_base_generator(base.generator, work / "generator", provenance=provenance)
    }
    for role, make in (("router", make_base_router), ("validator", make_base_validator)):
        named: Role = "router" if role == "router" else "validator"
        result = make(base.encoder, work / role)
        about = Description(
            config=result.config,
            labels=result.labels,
            hyper=result.hyper,
            metrics=result.metrics,
            provenance=provenance,
        )
        versions[named] = make_version(named, work / role, parent=None, about=about)
    release = Release(
        id=new_ulid(),
        parent="",
        created_at=time.time(),
        router=versions["router"].manifest.version,
        generator=versions["generator"].manifest.version,
        validator=versions["validator"].manifest.version,
        verdict="base",
        precision=precision,
        fence=fence,
        reasons=("base models: every query is forwarded until an exam certifies a category",),
    )
    return release, versions


def build_base_generator(source: Path, folder: Path, *, provenance: Mapping[str, object]) -> Version:
    """Make the generator of release 0 in `folder` from a Hugging Face folder; the weights are linked, not copied."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS_NAME, TOKENIZER_NAME):
        _link_or_copy(source / name, folder / name)
    config = read_config(source)
    write_graphs(folder, config)
    return make_version("generator", folder, parent=None, about=Description(config=config, provenance=provenance))


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
