"""Settings of the HTTP doors; a part of the gateway's settings (SHAMMAH_GATEWAY_HTTP_*). It starts nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode

DEFAULT_HTTP_PORT = 8080
HTTP_OFF = -1
Names = Annotated[frozenset[str], NoDecode]


class HttpSettings(BaseModel):
    """What the HTTP doors are told."""

    http_port: int = Field(
        DEFAULT_HTTP_PORT,
        ge=HTTP_OFF,
        le=65535,
        description="HTTP port; 0 takes any free one, -1 or empty: no HTTP. Unset: 8080, any free one if it is taken.",
    )
    http_host: str = Field("", description="Address that HTTP listens on; empty: that of gRPC.")
    http_max_body_bytes: int = Field(32 << 20, ge=1 << 10, description="Longest request body; a longer one gets 413.")
    http_auto_models: Names = Field(
        frozenset(), description='Model ids that mean shammah-auto, separated by commas; "*": every id.'
    )
    http_credentials: Literal["own", "client"] = Field(
        "own",
        description="Whose key the teacher sees: the gateway's own, or the caller's (\"client\": callers need no token "
        "of ours then; only on a loopback address).",
    )
    http_routing: bool = Field(True, description="False: what may be forwarded is; only forced-local names are local.")
    http_routed_max_bytes: int = Field(
        128 << 10, ge=1 << 10, description="A longer request body is agentic traffic: it goes to the teacher unread."
    )

    mcp_hosts: Names = Field(
        frozenset(),
        description="Further host names, separated by commas, by which clients reach /mcp (names of this machine are "
        "always allowed); the Host and Origin of a request must be one of them.",
    )

    @field_validator("http_port", mode="before")
    @classmethod
    def _read_off(cls, value: object) -> object:
        """Read an empty port as "no HTTP"."""
        return HTTP_OFF if value == "" else value

    @field_validator("http_auto_models", "mcp_hosts", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        """Read a list that is separated by commas."""
        if isinstance(value, str):
            return frozenset(part.strip() for part in value.split(",") if part.strip())
        return value
