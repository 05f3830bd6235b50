"""Which pages of other origins may read our answers (CORS of the Fetch standard): none without a setting.

Credentials in the sense of the standard, cookies above all, are never allowed: a page sends its key itself.
"""

from service.protocols.rest.exchange import Answer, Exchange, Headers

METHODS = b"GET, HEAD, POST, PUT, DELETE"
REQUEST_HEADERS = (
    b"authorization, content-type, idempotency-key, prefer, request-timeout, x-api-key, x-request-id, "
    b"inference-header-content-length"
)
EXPOSED = (
    b"x-request-id, server-timing, retry-after, ratelimit, ratelimit-policy, location, "
    b"inference-header-content-length"
)
MAX_AGE_S = 3_600


class Cors:
    """`origins`: such as https://example.org, separated by commas; * for every one; empty for none."""

    def __init__(self, origins: str) -> None:
        self._origins = frozenset(one.strip().encode() for one in origins.split(",") if one.strip())
        self._is_for_all = b"*" in self._origins
        self.is_on = bool(self._origins)

    def describe(self, exchange: Exchange) -> Headers:
        """What an answer needs so that the page that asked may read it."""
        allowed = self._allow(exchange)
        return (
            []
            if not self.is_on
            else [*allowed, *([(b"access-control-expose-headers", EXPOSED)] if allowed else [])]
        )

    def answer_preflight(self, exchange: Exchange) -> Answer | None:
        """The answer to a browser that asks before the page's request, but for what `describe` adds."""
        is_preflight = exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers
        if not self.is_on or not is_preflight or b"origin" not in exchange.headers:
            return None
        headers = [(b"x-request-id", exchange.request_id.encode())]
        if self._allow(exchange):
            headers += [
                (b"access-control-allow-methods", METHODS),
                (b"access-control-allow-headers", REQUEST_HEADERS),
                (b"access-control-max-age", b"%d" % MAX_AGE_S),
            ]
        return 204, headers, b""

    def _allow(self, exchange: Exchange) -> Headers:
        if self._is_for_all:
            return [(b"access-control-allow-origin", b"*")]
        origin = exchange.headers.get(b"origin")
        allowed = [(b"access-control-allow-origin", origin)] if origin in self._origins and origin else []
        return [*allowed, (b"vary", b"Origin")] if allowed else []
