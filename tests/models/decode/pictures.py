"""Pictures made for these tests, and how they are written as files; the reference is Pillow itself."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.decode import DecodeLimits

LIMITS = DecodeLimits()


def make_picture(height: int = 40, width: int = 60, seed: int = 0) -> Image.Image:
    """Coarse random blocks: no symmetry, so a wrong turn shows, and soft enough for lossy formats."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), np.uint8)
    return Image.fromarray(blocks.repeat(10, axis=0).repeat(10, axis=1)[:height, :width])


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def orient(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def largest_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def insert_png_chunks(png: bytes, *chunks: bytes, at: int = 33) -> bytes:
    """Put chunks into a PNG, by default right behind its header."""
    return png[:at] + b"".join(chunks) + png[at:]


def tiff_directory(entries: list[tuple[int, int, int, int]]) -> bytes:
    """A little-endian TIFF of nothing but one directory of (tag, kind, count, value or offset)."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0\0\0\0"
