"""Imported by every interpreter of that service first: engines are found in `engines/` from then on."""

from pathlib import Path

from models import engines

engines.__path__.insert(0, str(Path(__file__).parent / "engines"))
