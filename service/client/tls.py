"""Which server a client believes, and what it shows of itself."""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM files. `ca`: authorities to believe instead of the system's; `cert`, `key`: our own, for mTLS."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def make_context(self) -> ssl.SSLContext:
        """For HTTP; raises OSError for files that are missing or do not fit."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """For gRPC: authorities, key and certificate; raises OSError."""
        ca, key, cert = (
            None if path is None else path.read_bytes() for path in (self.ca, self.key, self.cert)
        )
        return ca, key, cert
