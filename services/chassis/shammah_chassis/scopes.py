"""Who may call what: the scopes, the caller of a call, and the scope that each rpc needs.

It does not know how a caller is recognised (`tokens`) nor how a call arrives: the interceptor (gRPC) and the gateway's
HTTP doors ask here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from shammah_chassis.errors import ForbiddenError, UnauthenticatedError

# What people may be granted. "audit": the teacher may be paid to check a caller's local answers.
GRANTABLE: tuple[str, ...] = ("ask", "compare", "generate", "analyze", "train", "audit", "admin")
# "serve" is for the parts among each other.
SCOPES: tuple[str, ...] = (*GRANTABLE, "serve")
# Names that no person's token has: nobody, the parts among each other, and who brings a key of the teacher's.
RESERVED: tuple[str, ...] = ("", "internal", "client", "nats")

_GATEWAY = {
    "Ask": "ask",
    "QueryLocalModel": "ask",
    "CompareResponses": "compare",
    "GenerateTrainingData": "generate",
    "AnalyzeModel": "analyze",
    "Train": "train",
    "GetJob": "ask",
    "SendFeedback": "ask",
    "SubmitExamples": "generate",
    "ListReleases": "analyze",
    "PromoteRelease": "admin",
    "RollbackRelease": "admin",
    "PinRelease": "admin",
    "GetStatus": "analyze",
    "ForgetRequest": "admin",
    "UnparkExamples": "admin",
    "TakeCheckpoint": "admin",
}
_INTERNAL = {
    "RouterService": ("Route",),
    "GeneratorService": ("Generate", "GenerateBatch"),
    "ValidatorService": ("Validate", "Compare"),
    "ModelService": ("ListVersions", "WatchVersions"),
    "TrainerService": (
        *("Train", "GetTrainJob", "StopTrain", "Status"),
        *("SampleExamples", "CheckExamples", "ForgetExamples", "UnparkExamples"),
    ),
}
METHOD_SCOPES: Mapping[str, str] = {
    **{f"/shammah.v1.GatewayService/{method}": scope for method, scope in _GATEWAY.items()},
    **{f"/shammah.v1.{service}/{method}": "serve" for service, methods in _INTERNAL.items() for method in methods},
}
OPEN_SERVICES: tuple[str, ...] = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a token: a name for logs and quotas, and what it may do."""

    name: str
    scopes: frozenset[str]


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def current_caller() -> Caller:
    """Return who makes the call that is being served.

    Raises:
        UnauthenticatedError: outside a call.
    """
    caller = _caller.get()
    if caller is None:
        raise UnauthenticatedError("no caller: this code runs outside a call")
    return caller


def set_caller(caller: Caller) -> None:
    """Make `caller` the current one of this task."""
    _caller.set(caller)


def is_open(method: str) -> bool:
    """Say whether a gRPC method ("/package.Service/Method") needs no token: health and reflection."""
    return method.startswith(OPEN_SERVICES)


def require_scope(caller: Caller, scope: str) -> None:
    """Raise ForbiddenError, naming the scope and the command that grants it, unless the caller has it."""
    if scope in caller.scopes:
        return
    has = f"{caller.name or 'this caller'} has {', '.join(sorted(caller.scopes)) or 'none'}"
    if scope not in GRANTABLE or caller.name in RESERVED:
        raise ForbiddenError(f"this needs the scope {scope!r}; {has}")
    raise ForbiddenError(f"this needs the scope {scope!r}; {has}; grant it: shammah tokens grant {caller.name} {scope}")
