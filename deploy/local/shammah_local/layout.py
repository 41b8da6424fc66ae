"""The files and folders of one data folder. It only names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below `root`, which is absolute."""

    root: Path

    @property
    def run(self) -> Path:
        """Ready files, logs and state of the running parts."""
        return self.root / "run"

    @property
    def nats(self) -> Path:
        """Data of the event bus."""
        return self.root / "nats"

    @property
    def store(self) -> Path:
        """Releases and versions."""
        return self.root / "store"

    @property
    def tokens_file(self) -> Path:
        """Table of tokens and scopes."""
        return self.root / "tokens.json"

    @property
    def lock_file(self) -> Path:
        """Locked while anything runs here."""
        return self.run / "lock"

    @property
    def up_file(self) -> Path:
        """Where clients find the gateway; there once everything is ready."""
        return self.run / "up.json"

    @property
    def status_file(self) -> Path:
        """State of every part, from the first moment on."""
        return self.run / "status.json"

    @property
    def supervisor_log(self) -> Path:
        """What a supervisor in the background says."""
        return self.run / "supervisor.log"

    def token_file(self, name: str) -> Path:
        """Return the file with the clear token of `name` (owner, internal or nats)."""
        return self.root / f"{name}.token"

    def cache(self, name: str) -> Path:
        """Return the cache folder of a part."""
        return self.root / "cache" / name

    def ready_file(self, name: str) -> Path:
        """Return where a part writes its ports."""
        return self.run / f"{name}.ready.json"

    def log_file(self, name: str) -> Path:
        """Return the log of a part."""
        return self.run / f"{name}.log"

    def progress_file(self, name: str) -> Path:
        """Return where a part writes one line about its start."""
        return self.run / f"{name}.progress"
