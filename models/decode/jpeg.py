"""JPEG: libjpeg-turbo through simplejpeg for grey, YCbCr and RGB; Pillow for CMYK and for blemished files.

simplejpeg refuses what libjpeg merely warns about (a stray byte between segments), which many cameras write;
such files are decoded again by Pillow, which goes on and fails at true truncation only.
"""

import re
from dataclasses import dataclass, replace

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # ships stubs without py.typed
from PIL import JpegImagePlugin

from models.decode.errors import BrokenImage, UnsupportedFormat
from models.decode.header import ImageFormat, ImageHeader, Pixels, make_header
from models.decode.orientation import UPRIGHT, read_orientation
from models.decode.pillow import read_with

NAME = "JPEG"

# Every scan of a progressive file passes over the whole image: a small file of thousands costs hours.
# Encoders write about 10, jpegtran scripts some dozens.
MAX_SCANS = 100

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # frame headers: ITU T.81 table B.1
_DECODABLE_SOF = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # baseline, extended, progressive; Huffman or arithmetic
_PROGRESSIVE_SOF = {0xC2, 0xCA}
_SOS, _EOI, _APP1, _ADOBE = 0xDA, 0xD9, 0xE1, 0xEE
_DROPPED = {*range(0xE1, 0xF0), 0xFE} - {_ADOBE}  # EXIF, ICC, XMP, thumbnails, comments
_MARKER = re.compile(rb"\xff+([\x02-\xcf\xda-\xfe\xd9])", re.DOTALL)  # neither stuffing, RST, TEM nor SOI


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the segments before the first scan say. `kept`: the slices that decoding needs, up to the scan."""

    sof: int
    precision: int
    height: int
    width: int
    components: int
    orientation: int
    scan_at: int
    kept: tuple[tuple[int, int], ...]


def _read_frame(data: bytes) -> _Frame:
    """Walk the segments up to the first scan; raises BrokenImage."""
    position, orientation, kept = 2, UPRIGHT, [(0, 2)]
    frame: tuple[int, int, int, int, int] | None = None
    while (match := _MARKER.search(data, position)) is not None:
        end = match.end()
        marker, start, body = data[end - 1], end - 2, end + 2
        if marker in (_SOS, _EOI):
            break
        position = end + int.from_bytes(data[end:body])
        if position < body or position > len(data):
            break
        if marker in _SOF and frame is None:
            frame = _read_sof(marker, data[body:position])
        elif marker == _APP1 and orientation == UPRIGHT and data[body : body + 6] == b"Exif\0\0":
            orientation = read_orientation(data[body:position])
        if marker not in _DROPPED:
            kept.append((start, position))
    if match is None or data[match.end() - 1] != _SOS or frame is None:
        raise BrokenImage("JPEG data ends before its first scan")
    return _Frame(*frame, orientation, match.end() - 2, tuple(kept))


def _read_sof(marker: int, body: bytes) -> tuple[int, int, int, int, int]:
    """A frame header's (marker, precision in bits, height, width, components). ITU T.81 B.2.2."""
    if len(body) < 6:
        raise BrokenImage("JPEG frame header is cut short")
    return marker, body[0], int.from_bytes(body[1:3]), int.from_bytes(body[3:5]), body[5]


def _read_header(data: bytes) -> ImageHeader:
    frame = _read_frame(data)
    if frame.precision != 8 or frame.sof not in _DECODABLE_SOF:
        kind = "lossless or hierarchical" if frame.sof not in _DECODABLE_SOF else f"{frame.precision}-bit"
        raise UnsupportedFormat(f"{kind} JPEG is not read here; save it as an ordinary 8-bit JPEG")
    if data.count(b"\xff\xda") > MAX_SCANS:  # a quick bound: appended videos and thumbnails count too
        _check_scans(data, frame.scan_at)
    # The output; the coefficients of all components (2 bytes each) if several scans fill them; Pillow's
    # copies for CMYK.
    cost = 3.0 + (2.0 * frame.components if frame.sof in _PROGRESSIVE_SOF else 0.0)
    cost += 12.0 if frame.components == 4 else 0.0
    size = (frame.height, frame.width)
    header = make_header(NAME, size, frame.orientation, cost, len(data))
    return replace(header, is_cmyk=True) if frame.components == 4 else header


def _check_scans(data: bytes, position: int) -> None:
    """Count the scans of the first image exactly; raises BrokenImage."""
    scans = 0
    while (match := _MARKER.search(data, position)) is not None and match[1][0] != _EOI:
        scans += match[1][0] == _SOS
        if scans > MAX_SCANS:
            raise BrokenImage(f"JPEG has more than {MAX_SCANS} scans")
        position = match.end()


def _read_pixels(data: bytes, header: ImageHeader) -> Pixels:
    if not header.is_cmyk:
        # Sized by our reading of the header: if libjpeg reads another size, it refuses the buffer.
        pixels: Pixels = np.empty((header.height, header.width, 3), np.uint8)
        try:
            decoded: Pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=pixels)
            if decoded.shape == pixels.shape:
                return decoded
        except ValueError:
            del pixels
    frame, view = _read_frame(data), memoryview(data)
    clean = b"".join([*(view[start:end] for start, end in frame.kept), view[frame.scan_at :]])
    return read_with(JpegImagePlugin.JpegImageFile, clean, header)


FORMAT = ImageFormat(NAME, lambda data: data[:3] == b"\xff\xd8\xff", _read_header, _read_pixels)
