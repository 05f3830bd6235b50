"""Small pictures to score, made from a fixed seed."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def make_pictures(count: int, side: int = 32, kind: str = "PNG") -> dict[str, bytes]:
    """Image files by name; smooth, so that they look like something. `kind`: a format of Pillow's."""
    random = np.random.default_rng(7)
    made = {}
    for number in range(count):
        coarse = random.integers(0, 256, (4, 4, 3), np.uint8)
        data = io.BytesIO()
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(data, kind)
        made[f"{number:04}.{kind.lower()}"] = data.getvalue()
    return made


def write_pictures(folder: Path, pictures: dict[str, bytes]) -> Path:
    """Into `folder`, made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    return folder
