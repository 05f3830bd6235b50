"""Results as rows for people's tools: one row an image, its best class in columns, all classes as JSON."""

import csv
import io
from collections.abc import Iterable

import msgspec

from service.jobs.items import Line

COLUMNS = ("index", "id", "class", "label", "probability", "predictions", "error", "detail")
CSV_HEADER = (",".join(COLUMNS) + "\r\n").encode()


def format_csv(lines: Iterable[Line]) -> bytes:
    """Rows of RFC 4180, without the header; names stay as they were sent."""
    text = io.StringIO()
    csv.writer(text).writerows(_make_row(line) for line in lines)
    return text.getvalue().encode()


def _make_row(line: Line) -> list[object]:
    if line.error is not None:
        return [line.index, line.id, "", "", "", "", line.error.type, line.error.detail]
    ranked = line.predictions or []
    best = [ranked[0].index, ranked[0].label, ranked[0].probability] if ranked else ["", "", ""]
    return [line.index, line.id, *best, msgspec.json.encode(ranked).decode(), "", ""]
