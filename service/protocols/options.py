"""What a caller may say beside the image, parsed once for every protocol: options, deadline, request id.

Each protocol brings its parameters as text by name; what comes out is typed and within limits.
"""

import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from service.errors import BadRequest
from service.settings import Settings
from service.types import REQUEST_ID, ClassifyOptions

MAX_TOP_K = 1000
MAX_SCALES = 8
MAX_SCALE_DIGITS = 4
MIN_TIMEOUT_S = 0.1
_MODEL = re.compile(r"[A-Za-z0-9._-]{1,128}(@[0-9]{1,9})?", re.ASCII)
_TTA = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)
_ids = random.Random()  # names, not secrets; seeded by the system
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")

Value = TypeVar("Value")


def parse_options(given: Mapping[str, str]) -> ClassifyOptions:
    """Options from parameters by their public names; what is not given stays at its default.

    Names: model, top_k, tta, scales (224,256), merge, pool, map, class, logits, precision, priority. Raises
    BadRequest with `field` set for an unknown name or a bad value.
    """
    if not given:
        return _DEFAULTS
    changed: dict[str, Any] = {}
    for name, text in given.items():
        parameter = _PARAMETERS.get(name)
        if parameter is None:
            known = ", ".join(_PARAMETERS)
            raise BadRequest(f"{_clip(name)} is not a parameter; known are {known}", "query")
        field, parse = parameter
        changed[field] = parse(name, text)
    if changed.get("map_class") is not None and not changed.get("wants_map"):
        raise BadRequest("class chooses the class of the activation map, so it needs map=true", "class")
    return ClassifyOptions(**changed)


def parse_request_id(given: str | bytes | None) -> str:
    """The caller's X-Request-Id where it is 1 to 64 of A-Z a-z 0-9 . _ -, else a new one."""
    if given is not None:
        text = given.decode("latin-1") if isinstance(given, bytes) else given
        if REQUEST_ID.fullmatch(text):
            return text
    return f"{_ids.getrandbits(128):032x}"


def parse_deadline(given: str | None, settings: Settings) -> float:
    """time.monotonic() seconds at which the caller stops waiting, from Request-Timeout in seconds or None.

    Longer than SERVE_MAX_REQUEST_TIMEOUT_S is cut to it, and shorter than MIN_TIMEOUT_S counts as that: over
    a network nobody has an answer sooner. Not a positive number raises BadRequest.
    """
    if given is None:
        return time.monotonic() + settings.request_timeout_s
    try:
        timeout_s = float(given)
    except ValueError:
        timeout_s = -1.0
    if not timeout_s > 0:  # also true for NaN
        raise BadRequest(
            f"Request-Timeout is {_clip(given)!r}, it must be seconds above 0", "Request-Timeout"
        )
    return time.monotonic() + min(max(timeout_s, MIN_TIMEOUT_S), settings.max_request_timeout_s)


def _clip(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."


def _refuse(name: str, text: str, wanted: str) -> BadRequest:
    return BadRequest(f"{name} is {_clip(text)!r}, it must be {wanted}", name)


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def parse(name: str, text: str) -> str:
        if text not in choices:
            raise _refuse(name, text, " or ".join(choices))
        return text

    return parse


def _matching(pattern: re.Pattern[str], wanted: str) -> Callable[[str, str], str]:
    def parse(name: str, text: str) -> str:
        if not pattern.fullmatch(text):
            raise _refuse(name, text, wanted)
        return text

    return parse


def _integer(low: int, high: int) -> Callable[[str, str], int]:
    def parse(name: str, text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) <= 9
        if not is_number or not low <= int(text) <= high:
            raise _refuse(name, text, f"an integer from {low} to {high}")
        return int(text)

    return parse


def _boolean(name: str, text: str) -> bool:
    lower = text.lower()
    if lower not in _TRUE + _FALSE:
        raise _refuse(name, text, "true or false")
    return lower in _TRUE


def _scales(name: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) > MAX_SCALES:
        raise _refuse(name, text, f"at most {MAX_SCALES} scales")
    scales = [part.strip() for part in parts]
    if not all(part.isascii() and part.isdigit() and len(part) <= MAX_SCALE_DIGITS for part in scales):
        raise _refuse(name, text, "whole numbers with commas between, such as 224,256")
    return tuple(int(part) for part in scales)  # which of them a view policy knows, it says itself


_DEFAULTS = ClassifyOptions()
_PARAMETERS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "model": ("model", _matching(_MODEL, "a name or name@version")),
    "top_k": ("top_k", _integer(1, MAX_TOP_K)),
    "tta": ("tta", _matching(_TTA, "the name of a view policy")),
    "scales": ("scales", _scales),
    "merge": ("merge", _one_of("logits", "probabilities")),
    "pool": ("pool", _one_of("window", "global")),
    "map": ("wants_map", _boolean),
    "class": ("map_class", _integer(0, 999_999)),
    "logits": ("wants_logits", _boolean),
    "precision": ("precision", _one_of("fp32", "int8")),
    "priority": ("priority", _one_of("interactive", "bulk")),
}
PARAMETER_NAMES = tuple(_PARAMETERS)
