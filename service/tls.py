"""Certificates of the HTTP and gRPC ports: read once the files are whole, read again when they change.

Files that turn out broken change nothing: the certificate read before stays, the log says why. New
connections get the new one, open connections keep theirs.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from service.settings import BadSettings, Settings
from service.stamps import Stamp, stamp_file

log = logging.getLogger("tls")


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files' contents, PEM. `client_ca`: whose certificates callers must show, None for nobody's."""

    cert: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class TlsFiles:
    """The files that the settings name; every protocol watches them with one of its own."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None, speaks: str = "http/1.1") -> None:
        """`speaks`: the protocol that callers are offered (ALPN)."""
        self._cert, self._key, self._client_ca, self._speaks = cert, key, client_ca, speaks
        self._stamp: tuple[Stamp | None, ...] = ()

    def read(self) -> Certificates:
        """The files as they are now; raises OSError, ssl.SSLError where they are missing or do not fit."""
        self._stamp = self._take_stamp()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([self._speaks])
        # A key behind a passphrase would be asked for on a terminal that is not there.
        context.load_cert_chain(self._cert, self._key, password="")
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        client_ca = None if self._client_ca is None else self._client_ca.read_bytes()
        return Certificates(self._cert.read_bytes(), self._key.read_bytes(), client_ca, context)

    def read_changed(self) -> Certificates | None:
        """The files if they changed since the last look and fit each other, else None."""
        if self._take_stamp() == self._stamp:
            return None
        try:
            found = self.read()
        except (OSError, ValueError) as err:  # ssl.SSLError is an OSError
            log.error("certificates not read, the old ones stay", extra={"fields": {"reason": str(err)}})
            return None
        log.info("certificates read")
        return found

    def _take_stamp(self) -> tuple[Stamp | None, ...]:
        files = (self._cert, self._key, self._client_ca)
        return tuple(stamp_file(path) for path in files if path is not None)


def find_tls(settings: Settings, speaks: str = "http/1.1") -> TlsFiles | None:
    """The files of SERVE_TLS_*, None where TLS is off; raises BadSettings for a half of a pair."""
    if not settings.tls_cert and not settings.tls_key:
        if settings.tls_client_ca:
            raise BadSettings("SERVE_TLS_CLIENT_CA needs SERVE_TLS_CERT and SERVE_TLS_KEY")
        return None
    if not settings.tls_cert or not settings.tls_key:
        raise BadSettings("SERVE_TLS_CERT and SERVE_TLS_KEY need each other; set both")
    client_ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
    return TlsFiles(Path(settings.tls_cert), Path(settings.tls_key), client_ca, speaks)


def check_tls(settings: Settings) -> None:
    """Raises BadSettings where the service could not serve with the files it is given."""
    files = find_tls(settings)
    if files is None:
        return
    try:
        files.read()
    except (OSError, ValueError) as err:
        named = f"SERVE_TLS_CERT={settings.tls_cert}, SERVE_TLS_KEY={settings.tls_key}"
        raise BadSettings(
            f"{named}: {err}; a PEM certificate and its key without a passphrase are needed"
        ) from err
