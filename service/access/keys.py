"""API keys and the file that lists them: what a key is, how one is made, read and written.

A key is `rs_<id>_<secret>`. The file holds no key, only its SHA-256. A fast hash is right here: the secret is
256 random bits, so there is nothing to guess that a slow hash would protect, and a slow one would let anybody
who sends wrong keys take our processor time. The id is no secret: it finds the entry and names the key in
logs.
"""

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import msgspec

Scope = Literal["classify", "batch", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "rs_"
ID_BYTES = 5  # 40 bits: ten hexadecimal digits
SECRET_BYTES = 32
MAX_KEY_CHARS = 128  # what is longer is no key and is not hashed

MOST = 1_000_000

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BadKeyFile(ValueError):
    """The file is missing or broken; the message says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One entry. `sha256`: of the whole key, hex. `rate_per_s`: requests a second, None without a limit.

    `burst`: requests that may come at once after a pause. `weight`: the share under load, 1 being usual.
    `expires`: from then on the key is refused; with an offset, None for never. `note`: whose it is.
    """

    id: str
    sha256: str
    scopes: frozenset[Scope]
    rate_per_s: float | None = None
    burst: int = 1
    weight: float = 1.0
    expires: datetime | None = None
    note: str = ""


class _Entry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    sha256: str
    scopes: list[Scope]
    rate_per_s: float | None = None
    burst: int | None = None
    weight: float = 1.0
    expires: datetime | None = None
    note: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[_Entry]


def hash_key(key: str) -> str:
    """What the file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def make_key(scopes: frozenset[Scope]) -> tuple[ApiKey, str]:
    """A new entry, and the key itself, which is told once and kept nowhere."""
    id = secrets.token_hex(ID_BYTES)
    key = f"{PREFIX}{id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return ApiKey(id, hash_key(key), scopes), key


def find_id(key: str) -> str | None:
    """The id within a key as sent by a caller; None for what has not the form of a key."""
    if len(key) > MAX_KEY_CHARS or not key.startswith(PREFIX) or not key.isascii():
        return None
    id, _, secret = key[len(PREFIX) :].partition("_")
    return id if secret else None


def is_key(known: ApiKey, key: str) -> bool:
    """Whether `key` is the one of that entry; takes the same time wherever they differ."""
    return hmac.compare_digest(known.sha256, hash_key(key))


def read_keys(path: Path) -> dict[str, ApiKey]:
    """Every entry of the file by its id; raises BadKeyFile."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as err:
        raise BadKeyFile(f"{path} cannot be read: {err.strerror}") from err
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise BadKeyFile(f"{path} is not a file of API keys: {err}") from err
    keys: dict[str, ApiKey] = {}
    for number, entry in enumerate(found.keys):
        mistake = _find_mistake(entry)
        if mistake is not None or entry.id in keys:
            raise BadKeyFile(
                f"{path}: key {number} ({entry.id[:32]}) {mistake or 'has the id of another one'}"
            )
        keys[entry.id] = _read_entry(entry)
    return keys


def write_keys(path: Path, keys: dict[str, ApiKey]) -> None:
    """Replace the file at once, readable by its owner alone; readers see the old one or the new one."""
    content = msgspec.json.format(msgspec.json.encode(_File([_write_entry(key) for key in keys.values()])))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(name, path.stat().st_mode & 0o777)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _find_mistake(entry: _Entry) -> str | None:
    """The first thing that is wrong with an entry, in words; None where nothing is."""
    rate, burst, expires = entry.rate_per_s, entry.burst, entry.expires
    rules = (
        (_ID.fullmatch(entry.id), "an id of 1 to 32 small letters, digits and hyphens"),
        (_SHA256.fullmatch(entry.sha256), "sha256 as 64 hexadecimal digits"),
        (entry.scopes, f"at least one of the scopes {', '.join(SCOPES)}"),
        (rate is None or 0 < rate <= MOST, "a rate_per_s above 0, at most a million"),
        (burst is None or 1 <= burst <= MOST, "a burst of 1 to a million"),
        (0.01 <= entry.weight <= 100, "a weight of 0.01 to 100"),
        (expires is None or expires.tzinfo, "an expiry with an offset, such as 2027-01-01T00:00:00Z"),
    )
    return next((f"needs {meaning}" for is_kept, meaning in rules if not is_kept), None)


def _read_entry(entry: _Entry) -> ApiKey:
    key = ApiKey(
        entry.id,
        entry.sha256,
        frozenset(entry.scopes),
        entry.rate_per_s,
        weight=entry.weight,
        expires=entry.expires,
        note=entry.note,
    )
    return replace(key, burst=entry.burst or default_burst(entry.rate_per_s))


def default_burst(rate_per_s: float | None) -> int:
    """A second's worth of requests, one at least."""
    return max(1, round(rate_per_s or 1))


def _write_entry(key: ApiKey) -> _Entry:
    burst = key.burst if key.rate_per_s is not None else None
    return _Entry(
        key.id, key.sha256, sorted(key.scopes), key.rate_per_s, burst, key.weight, key.expires, key.note
    )
