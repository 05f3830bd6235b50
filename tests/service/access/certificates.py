"""Certificates made on the spot with the openssl command."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM files."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; `cert` is its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._made = folder, 0
        self.cert, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        subject = ["-subj", f"/CN={name}", "-days", "2"]
        _run("req", "-x509", *_CURVE, "-nodes", "-keyout", self._key, "-out", self.cert, *subject)

    def sign(self, name: str, days: int = 2) -> Pair:
        """A pair for 127.0.0.1 and localhost; negative `days`: expired."""
        self._made += 1
        stem = self._folder / f"{self.cert.stem}-{self._made}-{name}"
        pair = Pair(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        request, names = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        _run("req", *_CURVE, "-nodes", "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        signer = ["-CA", self.cert, "-CAkey", self._key, "-CAcreateserial", "-extfile", names]
        _run("x509", "-req", "-in", request, "-out", pair.cert, *signer, "-days", days)
        return pair


_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def _run(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
