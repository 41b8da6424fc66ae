"""Settings that every service has, read once from environment variables with the prefix of the service.

A service subclasses `ServiceSettings` (or `PodSettings`) and sets its prefix; nothing else reads the environment.
Secrets are never values here, always paths of files. It does not know what any service does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.setting_names import describe_unknown, find_unknown


class ServiceSettings(BaseSettings):
    """What each service is told at its start. All fields are frozen; an unknown variable is refused."""

    model_config = SettingsConfigDict(env_prefix="SHAMMAH_SERVICE_", frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, description="Address that gRPC and the admin HTTP listen on.")
    port: int = Field(0, ge=0, le=65535, description="gRPC port; 0 takes any free one (see ready_file).")
    admin_port: int = Field(0, ge=0, le=65535, description="Port of /livez /readyz /metrics; 0 takes any free one.")
    data_dir: Path = Field(description="Folder that this service may write to.")
    nats_url: str = Field("nats://127.0.0.1:4222", description="The event bus.")
    nats_token_file: Path | None = Field(None, description="File with the token of the event bus, if it wants one.")
    store_url: str = Field(
        default_factory=lambda data: f"dir:{data['data_dir'] / 'store'}",
        pattern=r"^(dir:.+|nats:)$",
        description='Where releases are: "dir:/path" or "nats:" (the object store of the bus).',
    )
    cache_dir: Path = Field(
        default_factory=lambda data: data["data_dir"] / "cache",
        description="Folder for fetched versions; it may be deleted while the service is down.",
    )
    tokens_file: Path | None = Field(
        None, description="Table of tokens and scopes; a service refuses to start without."
    )
    ready_file: Path | None = Field(
        None, description="Written as JSON {port, admin_port, pid} once calls are accepted."
    )
    drain_seconds: float = Field(10.0, ge=0, le=600, description="How long running calls may go on after SIGTERM.")
    inference_threads: int = Field(1, ge=1, le=256, description="Threads that do the blocking work.")
    queue_limit: int = Field(256, ge=1, description="Calls that may wait; more are refused with a retry hint.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")

    @classmethod
    def load(cls) -> Self:
        """Read the settings of this class from the environment.

        Raises:
            InvalidInputError: names each wrong, missing or unknown variable.
        """
        return load_settings(cls)


Settings = TypeVar("Settings", bound=BaseSettings)


def load_settings(kind: type[Settings]) -> Settings:
    """Read any settings class from the environment; as `ServiceSettings.load`.

    A misspelt variable is refused too: pydantic-settings itself ignores what it does not know in the environment.
    """
    prefix = str(kind.model_config.get("env_prefix", "")).upper()
    known = {f"{prefix}{name.upper()}" for name in kind.model_fields}
    unknown = find_unknown(os.environ, prefix, known) if prefix else []
    if unknown:
        raise InvalidInputError(describe_unknown(unknown, sorted(known), f"known: {', '.join(sorted(known))}"))
    try:
        return kind()
    except ValidationError as error:
        # A default that is made of another field is not at fault where that field is.
        items = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
        # What is wrong of several fields together has no field; its message names them.
        faults = [f"{prefix}{'.'.join(map(str, item['loc'])).upper() or '...'}: {item['msg']}" for item in items]
        raise InvalidInputError("; ".join(faults)) from error
    except SettingsError as error:
        # A list that is no JSON: it names the field, its cause what was wrong with the text.
        raise InvalidInputError(f"{prefix}...: {error}: {error.__cause__}") from error


def read_secret(path: Path | None) -> str | None:
    """Return the text of a secret file without the line end; None when there is no file to read.

    Raises:
        InvalidInputError: the file can't be read.
    """
    if path is None:
        return None
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise InvalidInputError(f"secret file {path} can't be read: {error.strerror}") from error
