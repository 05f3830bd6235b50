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
from service.access.rates import RateState, RateTable
from service.errors import Forbidden, RateLimited, Unauthenticated

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
        self,
        keyring: Keyring | None,
        admin_token: str = "",
        rates: RateTable | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`rates` None: nobody is held to a rate."""
        self._keyring, self._admin_token, self._rates, self._clock = keyring, admin_token, rates, clock
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

    def charge(self, caller: str, images: int = 1) -> None:
        """Count images against the rate of the key with that id; raises RateLimited."""
        key = self._find_limited(caller)
        if key is not None and self._rates is not None:
            wait_s = self._rates.take(key, images)
            if wait_s > 0:
                raise _over_rate(key, wait_s)

    def check_rate(self, caller: str) -> None:
        """Raises RateLimited where `charge` would, without counting: for refusing before a body is read."""
        key = self._find_limited(caller)
        if key is not None and self._rates is not None and key.rate_per_s is not None:
            state = self._rates.look(key)
            if state is not None and state.left < 1:
                raise _over_rate(key, state.full_in_s - (key.burst - 1) / key.rate_per_s)

    def describe_rate(self, caller: str) -> RateState | None:
        """Where the key with that id stands; None where it has no rate."""
        key = self._find_limited(caller)
        return None if key is None or self._rates is None else self._rates.look(key)

    def weigh(self, caller: str) -> float:
        """The share of the key with that id under load; 1 for one that is gone."""
        key = self._keyring.keys.get(caller) if self._keyring is not None else None
        return 1.0 if key is None else key.weight

    def _find_limited(self, caller: str) -> ApiKey | None:
        if self._keyring is None or not caller:
            return None
        key = self._keyring.keys.get(caller)
        return None if key is None or key.rate_per_s is None else key

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


def _over_rate(key: ApiKey, wait_s: float) -> RateLimited:
    allowed = f"{key.rate_per_s:g} images a second, {key.burst} at once"
    return RateLimited(f"the key {key.id} is over its rate: {allowed}", retry_after_s=max(0.001, wait_s))


def read_credential(authorization: str | None, api_key: str | None) -> str | None:
    """The key among two headers: a Bearer token first, else X-API-Key; None where neither has one."""
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    return api_key.strip() or None if api_key is not None else None
