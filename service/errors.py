"""Every error a caller can be told, and whose fault each is.

    ServiceError
    ├─ CallerError                the request must change
    │  ├─ BadRequest              not an image request, or a parameter out of range
    │  ├─ Unauthenticated         no key, or an unknown one
    │  ├─ Forbidden               the key lacks the scope
    │  ├─ NotFound                no such route, job or page
    │  │  └─ UnknownModel         no such model or version
    │  ├─ MethodNotAllowed        the route exists, the method does not
    │  ├─ Conflict                against what is there already: a key used before, a version in use
    │  ├─ TooLarge                bytes, pixels or view over the limit
    │  ├─ UnsupportedFormat       not an accepted image format
    │  ├─ BrokenImage             an accepted format that cannot be decoded
    │  │  └─ PoisonImage          it killed a decoder twice, alone
    │  ├─ UnusableVersion         an uploaded model version is not what its card says
    │  ├─ RequestTimeout          headers or body did not arrive in time
    │  └─ RateLimited             over the caller's rate
    ├─ OverloadError              the same request may pass later
    │  ├─ Overloaded              the predicted wait is over the limit
    │  ├─ Draining                this instance is stopping
    │  ├─ DeadlinePassed          the deadline ended first
    │  └─ StorageFull             no room for the job
    └─ OurError                   our fault
       ├─ NoWorker                no worker of that model is up
       └─ Internal               anything unforeseen

`slug` is the stable `type` of RFC 9457 problems; protocols/status.py maps it to HTTP and gRPC.
"""

from typing import ClassVar


class ServiceError(Exception):
    """`detail` is safe to show to the caller; `retry_after_s` says when the same request may pass."""

    slug: ClassVar[str] = "internal"

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class CallerError(ServiceError):
    """The request must change."""

    slug = "bad-request"


class BadRequest(CallerError):
    """Not an image request, or a parameter out of range; `field` names the parameter."""

    slug = "bad-request"

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.field = field


class Unauthenticated(CallerError):
    """No key, or an unknown one."""

    slug = "unauthenticated"


class Forbidden(CallerError):
    """The key lacks the scope."""

    slug = "forbidden"


class NotFound(CallerError):
    """No such route, job or page."""

    slug = "not-found"


class UnknownModel(NotFound):
    """No such model or version is served."""

    slug = "unknown-model"


class MethodNotAllowed(CallerError):
    """The route exists, the method does not."""

    slug = "method-not-allowed"


class Conflict(CallerError):
    """Against what is there already: the same idempotency key with another body, a version in use."""

    slug = "conflict"


class TooLarge(CallerError):
    """Bytes, pixels or a view over the limit."""

    slug = "too-large"


class UnsupportedFormat(CallerError):
    """Not an accepted image format."""

    slug = "unsupported-format"


class BrokenImage(CallerError):
    """An accepted format that cannot be decoded."""

    slug = "broken-image"


class PoisonImage(BrokenImage):
    """It killed a decoder twice, alone."""

    slug = "poison-image"


class UnusableVersion(CallerError):
    """An uploaded model version is not what its card says."""

    slug = "unusable-version"


class RequestTimeout(CallerError):
    """Headers or body did not arrive in time."""

    slug = "request-timeout"


class RateLimited(CallerError):
    """Over the caller's rate."""

    slug = "rate-limited"


class OverloadError(ServiceError):
    """The same request may pass later."""

    slug = "overloaded"


class Overloaded(OverloadError):
    """The predicted wait is over the limit."""

    slug = "overloaded"


class Draining(OverloadError):
    """This instance is stopping."""

    slug = "draining"


def make_stopped() -> Draining:
    """For whoever is cancelled although the caller still waits: the time to drain is over."""
    return Draining("this server stopped before the answer was ready, ask another one", retry_after_s=1.0)


class DeadlinePassed(OverloadError):
    """The deadline ended before the answer."""

    slug = "deadline-passed"


class StorageFull(OverloadError):
    """No room for the job."""

    slug = "storage-full"


class OurError(ServiceError):
    """Our fault."""

    slug = "internal"


class NoWorker(OurError):
    """No worker of that model is up."""

    slug = "no-worker"


class Internal(OurError):
    """Anything unforeseen; the details are in our log under the request id."""

    slug = "internal"


def list_errors() -> list[type[ServiceError]]:
    """Every class of the tree, by slug; the bases themselves share a leaf's slug and are left out."""
    found: dict[str, type[ServiceError]] = {}
    stack: list[type[ServiceError]] = [ServiceError]
    while stack:
        error = stack.pop()
        stack.extend(error.__subclasses__())
        is_base = error in (ServiceError, CallerError, OverloadError, OurError)
        if not is_base and error.__module__ == __name__:  # the client has one of its own
            found[error.slug] = error
    return [found[slug] for slug in sorted(found)]


def find_error(slug: str) -> type[ServiceError]:
    """The class with that slug; Internal for one nobody knows."""
    return {error.slug: error for error in list_errors()}.get(slug, Internal)
