"""Line charts and matrices as SVG text; no plotting library, so a report is the same everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 320, 48, 36, 16  # pixels
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
TICKS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """A named line through (x, y) points; dashed ones are training errors, as in the paper's figure 6."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int = 0
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axes:
    """The names of both axes, and the range of y if it is fixed."""

    x: str
    y: str
    y_range: tuple[float, float] | None = None


def draw_lines(lines: Sequence[Line], axes: Axes) -> str:
    """An SVG chart; lines without points are left out."""
    points = [point for line in lines for point in line.points]
    if not points:
        return "<p>nothing was logged</p>"
    (x0, x1), (y0, y1) = _bounds([x for x, _ in points]), axes.y_range or _bounds([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - 8)
        return across, TOP + (1 - (min(max(y, y0), y1) - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM)

    parts = [_axis_text(axes)]
    for tick in np.linspace(y0, y1, TICKS):
        _, y = place(x0, float(tick))
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 8}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.3g}</text>')
    for tick in np.linspace(x0, x1, TICKS):
        x, _ = place(float(tick), y0)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{tick:.3g}</text>')
    for number, line in enumerate(lines):
        parts.append(_line(line, [place(x, y) for x, y in line.points], number))
    return _svg("".join(parts), WIDTH, HEIGHT + 16 * len(lines))


def draw_matrix(matrix: NDArray[np.int64], labels: Sequence[str]) -> str:
    """A confusion matrix as an HTML table: rows are the true classes, shaded by their share of the row."""
    head = "".join(f"<th>{escape(label)}</th>" for label in labels)
    rows = []
    for label, row in zip(labels, matrix, strict=True):
        shares = row / max(1, row.sum())
        cells = "".join(
            f'<td style="background:rgba(31,119,180,{share:.2f})">{count}</td>'
            for count, share in zip(row.tolist(), shares.tolist(), strict=True)
        )
        rows.append(f"<tr><th>{escape(label)}</th>{cells}</tr>")
    return f"<table><tr><th>true \\ given</th>{head}</tr>{''.join(rows)}</table>"


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1)


def _axis_text(axes: Axes) -> str:
    across = f'<text x="{WIDTH // 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(axes.x)}</text>'
    return across + f'<text x="4" y="11">{escape(axes.y)}</text>'


def _line(line: Line, places: Sequence[tuple[float, float]], number: int) -> str:
    colour = COLOURS[line.colour % len(COLOURS)]
    dash = ' stroke-dasharray="5 3"' if line.is_dashed else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    y = HEIGHT + 12 + 16 * number
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}"{dash} stroke-width="1.5"/>'
        f'<path d="M{LEFT} {y - 4}h24" stroke="{colour}"{dash}/>'
        f'<text x="{LEFT + 32}" y="{y}">{escape(line.name)}</text>'
    )


def _svg(body: str, width: int, height: int) -> str:
    return f'<svg width="{width}" height="{height}" font-family="sans-serif" font-size="11">{body}</svg>'
