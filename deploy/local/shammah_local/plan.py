"""What is started: the parts, their commands, their environment, and in which order.

A plan is data: the supervisor runs any. It starts nothing itself.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.nats_server import read_ports, server_command, write_config

from shammah_local.layout import Layout
from shammah_local.ports import read_ready_file

Ports = Mapping[str, Mapping[str, int]]
"""Name of a part -> its ports ("port", "admin_port"), as far as they are known."""

# The parts share few cores: a thread that waits for its team must sleep, not spin away a neighbour's time.
_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
ROLES = ("router", "generator", "validator")
_SETTING = re.compile(r"SHAMMAH_[A-Z0-9_]+")


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and the variables that are added to our own environment."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One child process.

    Parts of one `stage` start together; the next stage starts when all of this one accept calls. Lower `stop_rank`
    stops earlier. `launch` is asked before each start, with the ports known by then: a part that was there before finds
    its own and must take them again. `read_ports` returns the ports of process `pid` once it accepts calls.
    `stop_seconds` is the patience between SIGTERM and SIGKILL.
    """

    name: str
    stage: int
    stop_rank: int
    launch: Callable[[Ports], Launch]
    read_ports: Callable[[int], Mapping[str, int] | None]
    stop_seconds: float = 20.0
    progress_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """What the plan of one machine depends on: folders, the token of NATS, variables that win, and CPU threads."""

    layout: Layout
    nats_token: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    cpus: int = 1


def parse_overrides(settings: Sequence[str]) -> dict[str, str]:
    """Read `SHAMMAH_X=Y` texts.

    Raises:
        InvalidInputError: another form, or another name.
    """
    found = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not _SETTING.fullmatch(name):
            raise InvalidInputError(f"--set {text!r} is not allowed; allowed: SHAMMAH_SERVICE_FIELD=value")
        found[name] = value
    return found


def count_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def embedded_plan(settings: PlanSettings) -> list[Part]:
    """Return the whole of Shammah on one machine: NATS, then trainer and roles, then the gateway."""
    layout = settings.layout
    services = [_service(settings, name, stop_rank=1) for name in ROLES]
    trainer = _service(settings, "trainer", stop_rank=2, progress_file=layout.progress_file("trainer"))
    return [_nats(settings), trainer, *services, _service(settings, "gateway", stop_rank=0, stage=2)]


def _nats(settings: PlanSettings) -> Part:
    folder = settings.layout.nats

    def launch(ports: Ports) -> Launch:
        config = write_config(folder, port=ports.get("nats", {}).get("port", 0), token=settings.nats_token)
        return Launch(server_command(config))

    def read(pid: int) -> Mapping[str, int] | None:
        port = read_ports(folder, pid)
        return {"port": port} if port else None

    return Part(name="nats", stage=0, stop_rank=3, launch=launch, read_ports=read)


def _service(
    settings: PlanSettings, name: str, *, stop_rank: int, stage: int = 1, progress_file: Path | None = None
) -> Part:
    ready_file = settings.layout.ready_file(name)

    def launch(ports: Ports) -> Launch:
        ready_file.unlink(missing_ok=True)
        prefix = f"SHAMMAH_{name.upper()}_"
        variables = {f"{prefix}{key}": value for key, value in _fields(settings, name, ports).items()}
        return Launch([sys.executable, "-m", f"shammah_{name}"], {**_PATIENT, **variables, **settings.overrides})

    return Part(
        name=name,
        stage=stage,
        stop_rank=stop_rank,
        launch=launch,
        read_ports=lambda pid: read_ready_file(ready_file, pid),
        progress_file=progress_file,
    )


def _fields(settings: PlanSettings, name: str, ports: Ports) -> dict[str, str]:
    """Return the settings of one service by field name in capitals; ports that it had before are kept."""
    layout, own = settings.layout, ports.get(name, {})
    common = {
        "HOST": "127.0.0.1",
        "PORT": str(own.get("port", 0)),
        "ADMIN_PORT": str(own.get("admin_port", 0)),
        "READY_FILE": str(layout.ready_file(name)),
        "TOKENS_FILE": str(layout.tokens_file),
        "NATS_URL": f"nats://127.0.0.1:{ports['nats']['port']}",
        "NATS_TOKEN_FILE": str(layout.token_file("nats")),
        "STORE_URL": f"dir:{layout.store}",
        "CACHE_DIR": str(layout.cache(name)),
        "DATA_DIR": str(layout.root),
        # The threads of the encoders are one: a small machine needs the rest for generator and trainer.
        "INFERENCE_THREADS": "1",
    }
    return {**common, **_own_fields(settings, name, ports)}


def _own_fields(settings: PlanSettings, name: str, ports: Ports) -> dict[str, str]:
    own = ports.get(name, {})
    if name == "trainer":
        return {
            "DATA_DIR": str(settings.layout.root / "trainer"),
            "PROGRESS_FILE": str(settings.layout.progress_file("trainer")),
            "THREADS": str(settings.cpus),
        }
    if name == "generator":
        return {"THREADS": str(settings.cpus)}
    if name == "gateway":
        targets = {f"{role.upper()}_TARGETS": f"127.0.0.1:{ports[role]['port']}" for role in ROLES}
        return {
            **targets,
            "TRAINER_TARGET": f"127.0.0.1:{ports['trainer']['port']}",
            "INTERNAL_TOKEN_FILE": str(settings.layout.token_file("internal")),
            # Unset at the first start: it prefers its well-known port and takes another where that is taken.
            **({"HTTP_PORT": str(own["http_port"])} if "http_port" in own else {}),
        }
    return {"SESSION_THREADS": "1"}
