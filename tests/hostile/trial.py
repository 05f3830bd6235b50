"""One hostile file, tried: decoded here, or posted to a running service."""

import http.client
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from models.decode import DecodeLimits, ImageError, decode_image

LIMITS = DecodeLimits()
ACCEPTED_STATUSES = {200, 413, 415, 422}
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Trial:
    """`outcome`: decoded, a refusal's class or an HTTP status; `is_bad` if it must never happen."""

    path: Path
    outcome: str
    seconds: float
    is_bad: bool


def decode_file(path: Path) -> Trial:
    """Decode in this process, which a broken decoder may end."""
    started = time.perf_counter()
    outcome, is_bad = "decoded", False
    try:
        decode_image(path.read_bytes(), LIMITS)
    except ImageError as err:
        outcome = type(err).__name__
    except Exception as err:
        outcome, is_bad = f"{type(err).__name__}: {err}", True
    return Trial(path, outcome, time.perf_counter() - started, is_bad)


def post_file(path: Path, url: str) -> Trial:
    """Send the file as the body of POST /v1/classify, with the query of `url` if it has one."""
    target = urlsplit(url)
    started = time.perf_counter()
    connection = http.client.HTTPConnection(
        target.hostname or "localhost", target.port or 80, timeout=TIMEOUT_S
    )
    try:
        body = path.read_bytes()
        headers = {"Content-Type": "application/octet-stream"}
        connection.request("POST", f"/v1/classify?{target.query}", body, headers)
        status = connection.getresponse().status
        outcome, is_bad = f"HTTP {status}", status not in ACCEPTED_STATUSES
        if not body:
            is_bad = status != 400 and is_bad
    except (OSError, http.client.HTTPException) as err:
        outcome, is_bad = type(err).__name__, True
    finally:
        connection.close()
    return Trial(path, outcome, time.perf_counter() - started, is_bad)
