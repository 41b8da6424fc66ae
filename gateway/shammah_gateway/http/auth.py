"""Who may call which HTTP route: the table of scopes, and the caller of a request's credential.

It knows headers and scopes; not what a route does.
"""

from __future__ import annotations

from collections.abc import Mapping

from shammah_chassis.errors import UnauthenticatedError
from shammah_chassis.scopes import Caller, require_scope
from shammah_chassis.tokens import TokenTable

# (method, path pattern) -> scope. A route that is not here can't be made (`Door.route`). "": open to everyone.
OPEN = ""
ROUTE_SCOPES: Mapping[tuple[str, str], str] = {
    # Clients probe the address before they have anything to ask; it tells nothing.
    ("GET", "/"): OPEN,
    ("POST", "/v1/messages"): "ask",
    ("POST", "/v1/messages/count_tokens"): "ask",
    ("POST", "/v1/messages/batches"): "ask",
    ("GET", "/v1/messages/batches"): "ask",
    ("GET", "/v1/messages/batches/{batch_id}"): "ask",
    ("DELETE", "/v1/messages/batches/{batch_id}"): "ask",
    ("GET", "/v1/messages/batches/{batch_id}/results"): "ask",
    ("POST", "/v1/messages/batches/{batch_id}/cancel"): "ask",
    ("POST", "/v1/chat/completions"): "ask",
    ("GET", "/v1/models"): "ask",
    ("GET", "/v1/models/{model_id:path}"): "ask",
    ("POST", "/v1/feedback"): "ask",
}
# With the setting http_credentials=client: the teacher judges the credential, not we. It may ask, nothing else.
ANYBODY = Caller("client", frozenset({"ask"}))
# Nobody: for open routes.
NOBODY = Caller("", frozenset())


def read_credential(headers: Mapping[str, str]) -> str:
    """Return the credential of a request, "" when there is none: `authorization: Bearer X`, else `x-api-key: X`."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key", "").strip()


class Gatekeeper:
    """Tells callers apart. `let_anybody` is the setting http_credentials=client."""

    def __init__(self, tokens: TokenTable, *, let_anybody: bool = False) -> None:
        self._tokens = tokens
        self._let_anybody = let_anybody

    def admit(self, credential: str, scope: str) -> Caller:
        """Return the caller if it may do this.

        Raises:
            UnauthenticatedError: no credential, or one that nobody issued; with `let_anybody` a token of ours.
            ForbiddenError: without the scope.
        """
        if scope == OPEN:
            return NOBODY
        caller = self._find(credential)
        require_scope(caller, scope)
        return caller

    def identify(self, credential: str) -> Caller:
        """Return the holder of one of our tokens, whatever it may do: for a door whose tools ask for scopes themselves.

        Raises:
            UnauthenticatedError: no credential, or one that nobody issued.
        """
        if not credential:
            raise UnauthenticatedError("a token is needed: header 'authorization: Bearer <token>'")
        return self._tokens.authenticate(f"Bearer {credential}")

    def _find(self, credential: str) -> Caller:
        if not credential:
            raise UnauthenticatedError("a token is needed: header 'authorization: Bearer <token>' or 'x-api-key'")
        if not self._let_anybody:
            return self._tokens.authenticate(f"Bearer {credential}")
        try:
            self._tokens.authenticate(f"Bearer {credential}")
        except UnauthenticatedError:
            return ANYBODY
        # It would be passed on to the teacher, where it is wrong and none of their business.
        raise UnauthenticatedError(
            "this is a token of Shammah, and this gateway passes callers' own keys on to the teacher "
            "(http_credentials=client): send the teacher's key, or set SHAMMAH_GATEWAY_HTTP_CREDENTIALS=own"
        )
