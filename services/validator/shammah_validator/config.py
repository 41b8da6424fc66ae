"""Settings of the validator, from environment variables SHAMMAH_VALIDATOR_*."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from shammah_chassis.settings import ServiceSettings


class ValidatorSettings(ServiceSettings):
    """What the validator is told at its start."""

    model_config = SettingsConfigDict(env_prefix="SHAMMAH_VALIDATOR_")

    session_threads: int = Field(1, ge=1, le=256, description="Threads inside one inference (ONNX Runtime).")
