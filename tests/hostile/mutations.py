"""Damage done to good image files, the same at every run: truncation, bit flips, lengths, splices, runs."""

import io
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DATA = Path(__file__).resolve().parents[1] / "data"
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Mutation = Callable[[bytes, random.Random], bytes]


def make_seeds() -> dict[str, bytes]:
    """Good files of every format and of the variants whose decoders differ, small enough to mutate often."""
    picture = Image.open(DATA / "cat.jpg").convert("RGB").resize((96, 64))
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    alpha = picture.copy()
    alpha.putalpha(picture.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6
    written: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "baseline.jpg": (picture, "JPEG", {"exif": exif}),
        "progressive.jpg": (picture, "JPEG", {"progressive": True}),
        "cmyk.jpg": (picture.convert("CMYK"), "JPEG", {}),
        "grey.jpg": (picture.convert("L"), "JPEG", {}),
        "rgb.png": (picture, "PNG", {"exif": exif}),
        "palette.png": (picture.convert("P"), "PNG", {"transparency": 3}),
        "deep.png": (deep, "PNG", {}),
        "alpha.png": (alpha, "PNG", {}),
        "animated.png": (picture, "PNG", {"save_all": True, "append_images": [picture.rotate(90)]}),
        "animated.gif": (picture, "GIF", {"save_all": True, "append_images": [picture.rotate(90)]}),
        "lossy.webp": (picture, "WEBP", {"exif": exif}),
        "lossless.webp": (alpha, "WEBP", {"lossless": True}),
        "animated.webp": (picture, "WEBP", {"save_all": True, "append_images": [picture.rotate(90)]}),
        "rgb.bmp": (picture, "BMP", {}),
        "palette.bmp": (picture.convert("P"), "BMP", {}),
        "raw.tif": (picture, "TIFF", {"exif": exif}),
        "big.tif": (picture, "TIFF", {"big_tiff": True}),
        "lzw.tif": (picture, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tif": (alpha, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (picture, "TIFF", {"compression": "jpeg"}),
        "fax.tif": (picture.convert("1"), "TIFF", {"compression": "group4"}),
        "float.tif": (picture.convert("F"), "TIFF", {}),
        "rgb.avif": (picture, "AVIF", {"exif": exif}),
        "alpha.avif": (alpha, "AVIF", {}),
    }
    seeds = {name: _encode(*how) for name, how in written.items()}
    seeds["photograph.jpg"] = (DATA / "cat.jpg").read_bytes()
    return seeds


def mutate(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged versions of `data`, each by one to three mutations."""
    chance = random.Random(seed)
    for _ in range(count):
        damaged = data
        for _ in range(chance.choice((1, 1, 2, 3))):
            damaged = chance.choice(MUTATIONS)(damaged, chance)
        yield damaged


def _encode(image: Image.Image, image_format: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 4, 32)) if damaged else 0):
        damaged[_position(damaged, chance)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def set_extreme(data: bytes, chance: random.Random) -> bytes:
    """Overwrite a number, mostly in the header, with one that is very large or very small."""
    code = chance.choice(("B", "<H", ">H", "<I", ">I"))
    size = struct.calcsize(code)
    value = chance.choice(EXTREMES) & ((1 << 8 * size) - 1)
    at = _position(data, chance)
    return data[:at] + struct.pack(code, value) + data[at + size :]


def cut_out(data: bytes, chance: random.Random) -> bytes:
    start = _position(data, chance)
    return data[:start] + data[start + chance.choice((1, 2, 4, 12, 100, 1000)) :]


def repeat(data: bytes, chance: random.Random) -> bytes:
    start = _position(data, chance)
    part = data[start : start + chance.choice((1, 4, 12, 100, 1000))]
    return data[:start] + part * chance.choice((2, 3, 50)) + data[start:]


def blank(data: bytes, chance: random.Random) -> bytes:
    start, length = _position(data, chance), chance.choice((1, 4, 16, 200))
    return data[:start] + bytes([chance.choice((0, 255))]) * length + data[start + length :]


def move(data: bytes, chance: random.Random) -> bytes:
    """Take a part out and put it in elsewhere: chunks out of order, scans before their tables."""
    start, length = _position(data, chance), chance.choice((4, 12, 64, 500))
    part, rest = data[start : start + length], data[:start] + data[start + length :]
    at = chance.randrange(len(rest) + 1)
    return rest[:at] + part + rest[at:]


def _position(data: bytes | bytearray, chance: random.Random) -> int:
    """Any position, more often one near the beginning, where sizes and lengths are."""
    end = min(len(data), 200) if chance.random() < 0.6 else len(data)
    return chance.randrange(end) if end else 0


MUTATIONS: tuple[Mutation, ...] = (truncate, flip_bits, set_extreme, cut_out, repeat, blank, move)
