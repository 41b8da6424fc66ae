"""Who may call what: tokens, their scopes, and the scope that each rpc needs.

A token is a random text that only its holder has; the table keeps its SHA-256. It does not know how a call arrives:
the interceptor (gRPC) and the gateway's HTTP doors ask here.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from shammah_chassis.errors import ForbiddenError, InvalidInputError, UnauthenticatedError

SCOPES: tuple[str, ...] = ("ask", "compare", "generate", "analyze", "train", "audit", "admin", "serve")
DEFAULT_GRANTS: Mapping[str, tuple[str, ...]] = {"owner": SCOPES, "internal": ("serve",)}

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
}
_INTERNAL = {
    "RouterService": ("Route",),
    "GeneratorService": ("Generate", "GenerateBatch"),
    "ValidatorService": ("Validate", "Compare"),
    "ModelService": ("ListVersions", "WatchVersions"),
    "TrainerService": ("Train", "GetTrainJob", "Status", "SampleExamples", "CheckExamples"),
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
    """Raise ForbiddenError, naming the scope, unless the caller has it."""
    if scope not in caller.scopes:
        raise ForbiddenError(f"this needs the scope {scope!r}; {caller.name} has {', '.join(sorted(caller.scopes))}")


class TokenTable:
    """The tokens that are known, by the SHA-256 of each."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self._callers = dict(callers)

    @classmethod
    def load(cls, path: Path | None) -> TokenTable:
        """Read `{"tokens": [{"name", "sha256", "scopes": [...]}]}`.

        Raises:
            InvalidInputError: no path, no such file, malformed, an unknown scope, or no token at all.
        """
        if path is None:
            raise InvalidInputError("tokens_file is not set; a service does not start without a table of tokens")
        try:
            entries = json.loads(path.read_text("utf-8"))["tokens"]
            callers = {
                _check_digest(entry["sha256"]): Caller(str(entry["name"]), _check_scopes(entry["scopes"]))
                for entry in entries
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(f"tokens file {path} can't be used: {error}") from error
        if not callers:
            raise InvalidInputError(f"tokens file {path} has no token")
        return cls(callers)

    def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller of an `authorization` header ("Bearer X").

        Raises:
            UnauthenticatedError: no header, another form, or a token that nobody issued.
        """
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError("a token is needed: metadata or header 'authorization: Bearer <token>'")
        # Looked up by digest: neither the text nor its prefix can be found out by timing.
        caller = self._callers.get(hash_token(token.strip()))
        if caller is None:
            raise UnauthenticatedError("this token is not known")
        return caller

    def authorise(self, method: str, authorization: str | None) -> Caller:
        """Return the caller of a gRPC method if it may call it.

        Raises:
            UnauthenticatedError: as `authenticate`.
            ForbiddenError: the scope is missing, or the method is in no table.
        """
        caller = self.authenticate(authorization)
        scope = METHOD_SCOPES.get(method)
        if scope is None:
            raise ForbiddenError(f"{method} is in no table of scopes, so nobody may call it")
        require_scope(caller, scope)
        return caller


def hash_token(token: str) -> str:
    """Return the SHA-256 of a token in hex, as the table keeps it."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def write_tokens(path: Path, grants: Mapping[str, Collection[str]] = DEFAULT_GRANTS) -> dict[str, str]:
    """Make a new token for each name, write the table (mode 0600) and return name -> clear token.

    The clear tokens are nowhere else. An existing table is replaced as a whole.

    Raises:
        InvalidInputError: an unknown scope.
    """
    tokens = {name: secrets.token_urlsafe(32) for name in grants}
    try:
        entries = [
            {"name": name, "sha256": hash_token(tokens[name]), "scopes": sorted(_check_scopes(list(grants[name])))}
            for name in grants
        ]
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
    write_private(path, json.dumps({"tokens": entries}, indent=1) + "\n")
    return tokens


def write_private(path: Path, text: str) -> None:
    """Write a text file that only its owner can read (0600), at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    aside.replace(path)


def _check_scopes(scopes: object) -> frozenset[str]:
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise ValueError("scopes must be a list of texts")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise ValueError(f"unknown scope {unknown[0]!r}; allowed: {', '.join(SCOPES)}")
    return frozenset(scopes)


def _check_digest(value: object) -> str:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError("sha256 must be 64 lower-case hex digits")
    return value
