"""Is the service on this machine ready? `python -m service.health`, for probes that run as a command.

It reads the service's own settings, so it asks the right port in the right way. Where every caller must show
a certificate, which a probe has not, it asks the admin port: that is on loopback, without TLS, and answers
/livez and /readyz to everybody. Imports little: it is run every few seconds.
"""

import http.client
import sys

from service.settings import BadSettings, Settings, load_settings

PATH = "/readyz"
TIMEOUT_S = 2.5


def is_ready(settings: Settings) -> bool:
    """Whether a service with these settings answers /readyz with 200; raises OSError where none answers."""
    connection = _connect(settings)
    try:
        connection.request("GET", PATH)
        return connection.getresponse().status == 200
    except http.client.HTTPException as err:
        raise ConnectionError(f"no HTTP: {err!r}") from err
    finally:
        connection.close()


def check() -> str:
    """The sentence that a probe shows; raises OSError, BadSettings, and NotReady."""
    if not is_ready(load_settings()):
        raise NotReady("the service is not ready")
    return "ready"


class NotReady(Exception):
    """It answers, and is starting, stopping or without a worker."""


def _connect(settings: Settings) -> http.client.HTTPConnection:
    if settings.tls_client_ca:
        return http.client.HTTPConnection("127.0.0.1", settings.admin_port, timeout=TIMEOUT_S)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    if not settings.tls_cert:
        return http.client.HTTPConnection(host, settings.http_port, timeout=TIMEOUT_S)
    import ssl

    context = ssl.create_default_context()  # no name in the certificate is this machine's own loopback
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, settings.http_port, timeout=TIMEOUT_S, context=context)


def main() -> int:
    """The exit code: 0 ready, 1 not."""
    try:
        sys.stdout.write(f"{check()}\n")
        return 0
    except (OSError, BadSettings, NotReady) as err:
        sys.stderr.write(f"{err}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
