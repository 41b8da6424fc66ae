"""Settings of the router, from environment variables SHAMMAH_ROUTER_*."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from shammah_chassis.settings import ServiceSettings


class RouterSettings(ServiceSettings):
    """What the router is told at its start."""

    model_config = SettingsConfigDict(env_prefix="SHAMMAH_ROUTER_")

    session_threads: int = Field(1, ge=1, le=256, description="Threads inside one inference (ONNX Runtime).")
