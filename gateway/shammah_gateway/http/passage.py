"""One request on its way to an upstream: what is sent, what is added to the reply, and who pays.

Values only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from multidict import CIMultiDict
from shammah_chassis.scopes import Caller

from shammah_gateway.money.usage import Usage

# Headers of one connection, not of the message (RFC 9110, 7.6.1), and those that we write ourselves.
HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te"),
        *(b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
# The caller's encodings are not asked for: the answer must be readable here, to be booked and learned from.
_NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"accept-encoding", b"expect", b"cookie"}
# Cookies are between two neighbours too: the caller's are of our address, the upstream's of its own.
_NOT_RETURNED = HOP_BY_HOP | {b"set-cookie"}
CREDENTIALS = ("authorization", "x-api-key")
_OWN_PREFIX = b"x-shammah-"
Raw = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A request to be passed on.

    `target` is path and query. `headers` are the caller's without those of the connection; its credentials are replaced
    by the upstream's own unless `keep_credentials`. `rename` gives the body for an upstream's own model; None where the
    caller named one itself. `author` are the headers that are added to the reply. `models` and `worst` are what a cap
    in USD looks at. `metered`: it is a call that is counted and billed. `want_text`: the answer is to be learned from.
    """

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes | None
    caller: Caller
    author: Mapping[str, str]
    keep_credentials: bool = False
    rename: Callable[[str], bytes] | None = None
    models: tuple[str, ...] = ()
    worst: Usage | None = None
    metered: bool = True
    want_text: bool = False

    def body_for(self, model: str) -> bytes | None:
        """Return the body for an upstream whose own model is `model`."""
        return self.rename(model) if self.rename is not None else self.body


def forward_headers(raw: Raw) -> CIMultiDict[str]:
    """Return the request headers that go on: all but the connection's own, those that it names, cookies and ours."""
    dropped = _NOT_FORWARDED | _named_by_connection(raw)
    return CIMultiDict(
        [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in raw
            if name not in dropped and not name.startswith(_OWN_PREFIX)
        ]
    )


def reply_headers(raw: Raw, author: Mapping[str, str], *, stream: bool) -> list[tuple[bytes, bytes]]:
    """Return the reply headers that go on, and the author's.

    A stream has no length: an event may be added when it breaks.
    """
    dropped = _NOT_RETURNED | _named_by_connection(raw)
    found = [
        (name, value)
        for name, value in raw
        if (low := name.lower()) not in dropped
        and not low.startswith(_OWN_PREFIX)
        and not (stream and low == b"content-length")
    ]
    found.extend((name.encode("latin-1"), value.encode("latin-1")) for name, value in author.items())
    return found


def _named_by_connection(raw: Raw) -> frozenset[bytes]:
    """Return the headers that `Connection` says are of this connection alone (RFC 9110, 7.6.1)."""
    values = [value for name, value in raw if name.lower() == b"connection"]
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))


def target_of(scope: Mapping[str, object]) -> str:
    """Return path and query of a request as they came."""
    raw_path, query = scope.get("raw_path"), scope.get("query_string")
    path = raw_path.decode("latin-1") if isinstance(raw_path, bytes) else str(scope["path"])
    path = path.partition("?")[0]
    return f"{path}?{query.decode('latin-1')}" if isinstance(query, bytes) and query else path
