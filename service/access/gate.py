"""The gate every protocol asks before it does anything for a caller: who is it, and may it do this?

Contract: `gate.require(credential, need)` returns the Caller or raises Unauthenticated or Forbidden.
`credential` is what `read_credential` took from the headers or the metadata; `need` is a scope, or ANY for
whoever has a valid key. Without SERVE_API_KEYS the gate is open: everybody is ANYONE, and `require` never
raises. The admin port is never open: it asks `require_admin`, which takes a key of the scope admin, or
SERVE_ADMIN_TOKEN.
"""

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.access.keyring import Keyring
from service.access.keys import ApiKey, Scope, find_id, hash_key, is_key
from service.errors import Forbidden, Unauthenticated

ANY: Literal["any"] = "any"
Need = Scope | Literal["any"]

# Hashed and compared for keys whose id nobody has, so that those take as long as wrong secrets do.
_NOBODY = ApiKey("nobody", hash_key(""), frozenset())


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the id of a key, "" where keys are off. Never the key itself."""

    id: str = ""
    key: ApiKey | None = None


ANYONE = Caller()
ADMIN = Caller("admin-token")


class Gate:
    """One per process. `keyring` None: no key is asked for."""

    def __init__(
        self, keyring: Keyring | None, admin_token: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self._keyring, self._admin_token, self._clock = keyring, admin_token, clock
        self.is_open = keyring is None

    @property
    def keyring(self) -> Keyring | None:
        """The keys; None where none are asked for."""
        return self._keyring

    def require(self, credential: str | None, need: Need) -> Caller:
        """The caller; raises Unauthenticated, Forbidden. Every admin key may do everything."""
        if self._keyring is None:
            return ANYONE
        key = self._identify(self._keyring, credential)
        if need != ANY and need not in key.scopes and "admin" not in key.scopes:
            raise Forbidden(f"the key {key.id} has not the scope {need}")
        return Caller(key.id, key)

    def require_admin(self, credential: str | None) -> Caller:
        """The same for the admin port, which is closed where neither keys nor a token are set."""
        token = self._admin_token.encode()
        if token and credential is not None and hmac.compare_digest(token, credential.encode()):
            return ADMIN
        if self._keyring is not None:
            return self.require(credential, "admin")
        if not token:
            raise Forbidden("this port is closed; SERVE_ADMIN_TOKEN or SERVE_API_KEYS opens it")
        raise Unauthenticated("the admin token is needed: Authorization: Bearer TOKEN")

    def weigh(self, caller: str) -> float:
        """The share of the key with that id under load; 1 for one that is gone."""
        key = self._keyring.keys.get(caller) if self._keyring is not None else None
        return 1.0 if key is None else key.weight

    def _identify(self, keyring: Keyring, credential: str | None) -> ApiKey:
        if credential is None:
            raise Unauthenticated("an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY")
        id = find_id(credential)
        known = keyring.keys.get(id, _NOBODY) if id is not None else _NOBODY
        if id is None or not is_key(known, credential):
            raise Unauthenticated("the API key is not known")
        if known.expires is not None and known.expires.timestamp() <= self._clock():
            raise Unauthenticated(f"the API key {known.id} has expired")
        return known


def read_credential(authorization: str | None, api_key: str | None) -> str | None:
    """The key among two headers: a Bearer token first, else X-API-Key; None where neither has one."""
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    return api_key.strip() or None if api_key is not None else None
