"""Draw docs/images/throughput.svg from the raw rounds of bench.peers: `python -m bench.plot`."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, DRAWING = ROOT / "bench" / "results", ROOT / "docs" / "images" / "throughput.svg"
PANELS = {
    "peers-resnet18.json": "ResNet-18, 224 px, JPEGs of 100 kB",
    "peers-cifar10.json": "ResNet-20, 32 px, JPEGs of 2 kB",
}
NAMES = {
    "int8": "ResNet Serve, int8",
    "fp32": "ResNet Serve, fp32",
    "mosec": "mosec",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "ray": "Ray Serve",
}
CALLERS = (1, 8, 32)
SHADES = ("#9ecae1", "#4292c6", "#084594")  # by callers
WIDTH, BAR, GAP, LABEL, TOP = 820, 11, 12, 150, 64
ROW = BAR * len(CALLERS) + GAP
PANEL = TOP + ROW * len(NAMES)


def draw(panels: dict[str, dict[str, Any]]) -> str:
    """The whole drawing; `panels`: summaries of bench.peers by title."""
    parts = [_draw_panel(title, told, index * PANEL) for index, (title, told) in enumerate(panels.items())]
    height = PANEL * len(panels) + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{height}" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _draw_panel(title: str, told: dict[str, Any], y: int) -> str:
    subjects = [name for name in NAMES if name in told]
    most = max(told[name][f"c={callers}"]["rate_per_s"] for name in subjects for callers in CALLERS)
    scale = (WIDTH - LABEL - 80) / most
    lines = [f'<text x="8" y="{y + 24}" font-size="15">{title}: answers a second, two cores</text>']
    for index, callers in enumerate(CALLERS):
        x = LABEL + 130 * index
        lines.append(f'<rect x="{x}" y="{y + 36}" width="10" height="10" fill="{SHADES[index]}"/>')
        lines.append(f'<text x="{x + 16}" y="{y + 45}">{callers} caller{"s" if callers > 1 else ""}</text>')
    for row, name in enumerate(subjects):
        at = y + TOP + row * ROW
        lines.append(f'<text x="{LABEL - 8}" y="{at + 21}" text-anchor="end">{NAMES[name]}</text>')
        for index, callers in enumerate(CALLERS):
            rate = told[name][f"c={callers}"]["rate_per_s"]
            top, wide = at + index * BAR, rate * scale
            lines.append(
                f'<rect x="{LABEL}" y="{top}" width="{wide:.1f}" height="{BAR - 1}" fill="{SHADES[index]}"/>'
                f'<text x="{LABEL + wide + 5:.1f}" y="{top + 9}" font-size="10">{_round(rate)}</text>'
            )
    return "\n".join(lines)


def _round(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def main() -> None:
    """Read the raw files, write the drawing."""
    panels = {title: json.loads((RESULTS / name).read_text())["summary"] for name, title in PANELS.items()}
    DRAWING.write_text(draw(panels))


if __name__ == "__main__":
    main()
