"""Line charts and matrices as SVG and HTML text; no plotting library, so a report is the same everywhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 300, 44, 12, 26, 40  # pixels
ROW = 16  # pixels of a line of the legend
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#b8620c", "#0e8f9c", "#8c564b", "#6f6f6f")
DASHES = {"solid": "", "dashed": ' stroke-dasharray="5 3"', "dotted": ' stroke-dasharray="1 3"'}
MARK_PX = 3.5


@dataclass(frozen=True, slots=True)
class Line:
    """A named line through (x, y) points; `dash` is one of DASHES. One point alone is drawn as a dot.

    Lines without a name are left out of the legend.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int = 0
    dash: str = "solid"


@dataclass(frozen=True, slots=True)
class Axes:
    """A chart's title, the names of both axes, the range of y if it is fixed, whether y is logarithmic."""

    title: str
    x: str
    y: str
    y_range: tuple[float, float] | None = None
    is_log: bool = False


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values of an axis onto pixels: `low` lies at `first_px`, `high` at `last_px`; a log one has low > 0."""

    low: float
    high: float
    first_px: float
    last_px: float
    is_log: bool = False

    def place(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        if self.is_log:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        return self.first_px + share * (self.last_px - self.first_px)

    def ticks(self) -> list[float]:
        if not self.is_log:
            return choose_ticks(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
        marks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        return [mark for mark in marks if self.low <= mark <= self.high]


def draw_lines(lines: Sequence[Line], axes: Axes) -> str:
    """An SVG chart that shrinks with the page; lines without points are left out."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return "<p>nothing was logged</p>"
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    across = _Scale(*_bounds(xs), LEFT, WIDTH - RIGHT)
    span = (min(ys) * 0.9, max(ys) * 1.1) if axes.is_log else axes.y_range or _bounds(ys)
    up = _Scale(*span, HEIGHT - BOTTOM, TOP, axes.is_log)
    named = [line for line in drawn if line.name]
    parts = [_frame(axes, across, up), *(_stroke(line, across, up) for line in drawn)]
    parts += [_legend(line, number) for number, line in enumerate(named)]
    height = HEIGHT + ROW * len(named) + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(axes.title)}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>'
    )


def draw_matrix(matrix: NDArray[np.int64], labels: Sequence[str]) -> str:
    """A confusion matrix as an HTML table: rows are the true classes, shaded by their share of the row."""
    head = "".join(f"<th>{escape(label)}</th>" for label in labels)
    rows = []
    for label, row in zip(labels, matrix, strict=True):
        shares = row / max(1, row.sum())
        cells = "".join(
            f'<td style="background:rgba(31,119,180,{0.8 * share:.2f})">{count}</td>'
            for count, share in zip(row.tolist(), shares.tolist(), strict=True)
        )
        rows.append(f"<tr><th>{escape(label)}</th>{cells}</tr>")
    return f"<table><tr><th>true \\ given</th>{head}</tr>{''.join(rows)}</table>"


def choose_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round values within [low, high], at most about `count`: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / (count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """From zero up to the largest value; to 1 if there is none above."""
    low, high = min(0.0, *values), max(values)
    return (low, high) if high > low else (low, low + 1)


def _frame(axes: Axes, across: _Scale, up: _Scale) -> str:
    """Title, names and ticks of both axes, grid lines."""
    parts = [
        f'<text x="{LEFT}" y="14" font-weight="bold">{escape(axes.title)}</text>',
        f'<text x="{(LEFT + WIDTH) // 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(axes.x)}</text>',
        f'<text transform="translate(11 {(TOP + HEIGHT - BOTTOM) // 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes.y)}</text>",
    ]
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    return "".join(parts)


def _stroke(line: Line, across: _Scale, up: _Scale) -> str:
    colour = COLOURS[line.colour % len(COLOURS)]
    places = [(across.place(x), up.place(y)) for x, y in line.points]
    if len(places) == 1:
        [(x, y)] = places
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{MARK_PX}" fill="{colour}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{colour}"{DASHES[line.dash]} stroke-width="1.6"/>'


def _legend(line: Line, number: int) -> str:
    colour, y = COLOURS[line.colour % len(COLOURS)], HEIGHT + 10 + ROW * number
    if len(line.points) == 1:
        mark = f'<circle cx="{LEFT + 12}" cy="{y - 4}" r="{MARK_PX}" fill="{colour}"/>'
    else:
        dash = DASHES[line.dash]
        mark = f'<path d="M{LEFT} {y - 4}h24" stroke="{colour}"{dash} stroke-width="1.6"/>'
    return f'{mark}<text x="{LEFT + 32}" y="{y}">{escape(line.name)}</text>'
