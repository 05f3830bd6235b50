"""Error against cost under every view policy: the table, the plot and the file that both are made from."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from training.cost import Cost
from training.evaluate import Measured

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 56, 120, 20, 44  # pixels
MARKS_MS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
LABEL_WIDTH, LABEL_HEIGHT = 120, 15
SERVED, OTHER, FRONT = "#1f77b4", "#b8c4ce", "#d62728"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it is written and read back. `top5_error` only where there are more than 10 classes."""

    tta: str
    merge: str
    pool: str
    is_served: bool
    views: float
    top1_error: float
    top5_error: float | None
    ece: float | None
    ms: float | None
    images_per_s: float | None
    is_on_front: bool = False


def list_rows(measured: Sequence[Measured]) -> list[Row]:
    """The rows of a table, those on the Pareto front marked."""
    rows = [_read(one) for one in measured]
    front = find_front([(row.ms, row.top1_error) for row in rows])
    return [Row(**asdict(row) | {"is_on_front": place in front}) for place, row in enumerate(rows)]


def find_front(points: Sequence[tuple[float | None, float]]) -> set[int]:
    """Which (cost, error) no other beats: it errs less than everything that costs as little."""
    known = [(cost, error, place) for place, (cost, error) in enumerate(points) if cost is not None]
    front: set[int] = set()
    best = math.inf
    for _, error, place in sorted(known):
        if error < best:
            front.add(place)
            best = error
    return front


def format_table(rows: Sequence[Row]) -> str:
    """A Markdown table; * marks the rule that is served, P the Pareto front of cost and error."""
    has_top5 = any(row.top5_error is not None for row in rows)
    head = ["tta", "merge", "pool", "views", "top-1 error %", *["top-5 error %"] * has_top5, "ECE"]
    head += ["ms", "images/s", "front"]
    lines = [head, ["---"] * 3 + ["---:"] * (len(head) - 4) + ["---"]]
    for row in rows:
        top5 = [_number(row.top5_error, 2)] * has_top5
        served = [row.tta + " *" * row.is_served, row.merge, row.pool, _number(row.views, 2)]
        errors = [_number(row.top1_error, 2), *top5, _number(row.ece, 3)]
        costs = [_number(row.ms, 2), _number(row.images_per_s, 0), "P" * row.is_on_front]
        lines.append([*served, *errors, *costs])
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def format_short_table(rows: Sequence[Row]) -> str:
    """What is served, by cost: for a page where the whole table would be too much."""
    served = sorted((row for row in rows if row.is_served), key=lambda row: (row.ms or 0.0, row.top1_error))
    lines = ["| `tta` | views | error % | ms | images/s | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for row in served:
        mark = "Pareto front" if row.is_on_front else ""
        lines.append(
            f"| `{row.tta}` | {row.views:.2f} | {row.top1_error:.2f} | {_number(row.ms, 2)} "
            f"| {_number(row.images_per_s, 0)} | {mark} |"
        )
    return "\n".join(lines).replace("|  |", "| |") + "\n"


def write_raw(path: Path, about: dict[str, object], rows: Sequence[Row]) -> None:
    """Write what was measured, of what, where: `about` and the rows, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n", "utf-8")


def read_raw(path: Path) -> list[Row]:
    """The rows of such a file."""
    return [Row(**row) for row in json.loads(path.read_text("utf-8"))["rows"]]


def draw_plot(title: str, rows: Sequence[Row]) -> str:
    """An SVG: error against milliseconds of one core (logarithmic), the Pareto front as a line."""
    points = [(row.ms, row) for row in rows if row.ms is not None]
    low, high = min(ms for ms, _ in points) / 1.5, max(ms for ms, _ in points) * 1.5
    most = math.ceil(max(row.top1_error for _, row in points) / 5) * 5

    def place(ms: float, error: float) -> tuple[float, float]:
        share = math.log(ms / low) / math.log(high / low)
        return LEFT + share * (WIDTH - LEFT - RIGHT), TOP + (1 - error / most) * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(place, (low, high), most), _text(LEFT, 13, title, bold=True)]
    front = sorted((ms, row.top1_error) for ms, row in points if row.is_on_front)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in front))
    parts.append(f'<polyline points="{path}" fill="none" stroke="{FRONT}" stroke-width="1.5"/>')
    heights: list[tuple[float, float]] = []
    for ms, row in sorted(points, key=lambda point: (point[1].is_served, point[0])):
        x, y = place(ms, row.top1_error)
        edge = f' stroke="{FRONT}" stroke-width="2"' if row.is_on_front else ""
        fill = SERVED if row.is_served else OTHER
        if row.is_served:
            height = _free_height(heights, x, y - LABEL_HEIGHT)
            parts.append(
                f'<path d="M{x:.1f} {y:.1f}V{height + 2:.1f}" stroke="{SERVED}" stroke-width="0.7"/>'
            )
            parts.append(_text(x + 3, height + 4, f"{row.tta} {row.top1_error:.2f} %"))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}"{edge}/>')
    parts.append(_legend())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _grid(place: Callable[[float, float], tuple[float, float]], ms: tuple[float, float], most: int) -> str:
    """Both axes with their marks: decades of milliseconds, every five percent."""
    parts = []
    for error in range(0, most + 1, 5):
        _, y = place(ms[0], error)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{error}", anchor="end"))
    for mark in (mark for mark in MARKS_MS if ms[0] <= mark <= ms[1]):
        x, y = place(mark, 0)
        parts.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#e4e4e4"/>')
        parts.append(_text(x, y + 16, f"{mark:g}", anchor="middle"))
    parts.append(
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "milliseconds of one core, one image alone", "middle")
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="16" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 16 {middle:.0f})">'
        "top-1 error, %</text>"
    )
    return "\n".join(parts)


def _legend() -> str:
    """What the marks mean, where the plot has room: errors are highest on the right."""
    x, y = LEFT + 16, TOP + 22
    return "\n".join(
        [
            f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{SERVED}"/>' + _text(x + 12, y, "as served"),
            f'<circle cx="{x}" cy="{y + 14}" r="5" fill="{OTHER}"/>'
            + _text(x + 12, y + 18, "other merge or pool rule"),
            f'<path d="M{x - 6} {y + 32}h12" stroke="{FRONT}" stroke-width="2"/>'
            + _text(x + 12, y + 36, "Pareto front"),
        ]
    )


def _free_height(taken: list[tuple[float, float]], x: float, y: float) -> float:
    """The height nearest above `y` for a label at `x` that crosses none of those written."""
    while any(
        abs(x - other_x) < LABEL_WIDTH and abs(y - other_y) < LABEL_HEIGHT for other_x, other_y in taken
    ):
        y -= LABEL_HEIGHT
    taken.append((x, y))
    return y


def _text(x: float, y: float, text: str, anchor: str = "start", *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _read(measured: Measured) -> Row:
    metric = measured.metric
    cost: Cost | None = measured.cost
    return Row(
        metric.tta,
        metric.merge or "",
        metric.pool or "",
        measured.chosen,
        round(measured.mean_views, 3),
        metric.top1_error,
        metric.top5_error,
        measured.ece,
        None if cost is None else cost.ms,
        None if cost is None else cost.images_per_s,
    )
