"""Settings of the generator, from environment variables SHAMMAH_GENERATOR_*."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from shammah_chassis.settings import ServiceSettings

from shammah_generator.precision import Precision


class GeneratorSettings(ServiceSettings):
    """What the generator is told at its start."""

    model_config = SettingsConfigDict(env_prefix="SHAMMAH_GENERATOR_")

    precision: Precision = Field("int8", description="Releases certified for another one are refused; fp16: on CUDA.")
    threads: int = Field(2, ge=1, le=256, description="Threads inside one computation.")
    slots: int = Field(32, ge=1, le=1024, description="Responses of one version that grow at the same time.")
    context: int = Field(1024, ge=2, description="Tokens of one prompt and its response together.")
    default_max_tokens: int = Field(64, ge=1, description="Length limit of a response when the request has none.")
    prefill_tokens: int = Field(64, ge=1, description="Most tokens of a prompt computed between two steps of others.")
    prefix_bytes: int = Field(64 << 20, ge=0, description="Room for prompt beginnings that requests share.")
    chunk_tokens: int = Field(8, ge=1, description="Most tokens that are sent as one message.")
