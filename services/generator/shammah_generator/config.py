"""Settings of the generator, from environment variables SHAMMAH_GENERATOR_*."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from shammah_chassis.settings import ServiceSettings


class GeneratorSettings(ServiceSettings):
    """What the generator is told at its start."""

    model_config = SettingsConfigDict(env_prefix="SHAMMAH_GENERATOR_")

    precision: Literal["fp32", "int8"] = Field("int8", description="Releases certified for another one are refused.")
    threads: int = Field(2, ge=1, le=256, description="Threads inside one computation (ONNX Runtime).")
    slots: int = Field(32, ge=1, le=1024, description="Responses of one version that grow at the same time.")
    context: int = Field(1024, ge=2, description="Tokens of one prompt and its response together.")
    default_max_tokens: int = Field(64, ge=1, description="Length limit of a response when the request has none.")
    chunk_tokens: int = Field(8, ge=1, description="Most tokens that are sent as one message.")
