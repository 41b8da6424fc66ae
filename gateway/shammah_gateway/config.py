"""Settings of the gateway, from variables SHAMMAH_GATEWAY_*. It starts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict
from shammah_chassis.settings import ServiceSettings

from shammah_gateway.consent.settings import ConsentSettings
from shammah_gateway.http.settings import HttpSettings
from shammah_gateway.money.settings import MoneySettings
from shammah_gateway.teachers.settings import TeacherSettings

Targets = Annotated[tuple[str, ...], NoDecode]
Paths = Annotated[tuple[Path, ...], NoDecode]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class GatewaySettings(HttpSettings, TeacherSettings, MoneySettings, ConsentSettings, ServiceSettings):
    """What the gateway is told at its start. Lists are separated by commas."""

    model_config = SettingsConfigDict(env_prefix="SHAMMAH_GATEWAY_", frozen=True, extra="forbid")

    router_targets: Targets = Field((), description='Router pods, "host:port,host:port".')
    generator_targets: Targets = Field((), description="Generator pods.")
    validator_targets: Targets = Field((), description="Validator pods.")
    trainer_target: str = Field("", description="The trainer; empty: no training from here.")
    internal_token_file: Path | None = Field(None, description="File with the token for the services behind.")
    role_timeout_seconds: float = Field(2.0, gt=0, le=600, description="Patience with each role.")
    hold_seconds: float = Field(300.0, gt=0, description="How long an order waits until pods hold a release.")

    recorded_files: Paths = Field((), description="Workload files of the recorded teacher.")
    teacher_max_tokens: int = Field(1024, ge=1, le=16_000, description="Length of an answer if the caller says none.")
    teacher_max_calls: int | None = Field(None, ge=0, description="Hard budget of teacher calls; unset: none.")

    audit_rate: float = Field(0.02, ge=0, le=1, description="Share of local answers that the teacher answers too.")
    explore_rate: float = Field(0.02, ge=0, le=1, description="Share of forwarded queries the student also answers.")
    audit_max_calls: int = Field(1000, ge=0, description="Hard budget of audits.")
    secret_file: Path = Field(
        default_factory=lambda data: data["data_dir"] / "gateway" / "coins.secret",
        description="Secret of the audit and explore coins; made when it is not there.",
    )
    spool_max_bytes: int = Field(256 << 20, ge=1 << 20, description="Room for examples while the bus is away.")
    bus_max_bytes: int = Field(8 << 30, ge=1 << 20, description="Byte limit of the example log, if made here.")
    feedback_daily_weight: float = Field(200.0, ge=0, description="Most weight of one user's feedback a day.")

    @field_validator("router_targets", "generator_targets", "validator_targets", "recorded_files", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Read a list that is separated by commas."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _keep_keys_at_home(self) -> Self:
        """Refuse to let anybody on the network ask by a key that only the teacher judges."""
        if self.http_credentials == "client" and self.http_address not in LOOPBACK:
            raise ValueError(f"http_credentials=client is for loopback addresses only, not {self.http_address}")
        return self

    @property
    def http_address(self) -> str:
        """The address that HTTP listens on."""
        return self.http_host or self.host

    @property
    def own_dir(self) -> Path:
        """The gateway's folder: spool, jobs, ledgers."""
        return self.data_dir / "gateway"

    @property
    def targets(self) -> dict[str, tuple[str, ...]]:
        """Targets by role."""
        return {
            "router": self.router_targets,
            "generator": self.generator_targets,
            "validator": self.validator_targets,
        }
