"""`resnet-serve bench`: load a server and say what it gave: rate, percentiles, errors, batch sizes."""

import asyncio
import json
import re
import sys
from pathlib import Path

import click
import httpx
from rich.console import Console
from rich.table import Table

from service.client.http import write_query
from service.client.load import Report, Target, run_closed, run_open
from service.types import ClassifyOptions

PERCENTILES = (0.5, 0.9, 0.99)
_BATCHES = re.compile(r"^resnet_batch_views_(sum|count)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@click.command("bench")
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="the server")
@click.option(
    "--connections", "-c", default="1,8,32", show_default=True, help="closed loop: callers, in turn"
)
@click.option("--rate", type=float, help="open loop: requests a second, instead of --connections")
@click.option("--seconds", default=10.0, show_default=True, help="length of each run")
@click.option("--warmup", default=1.0, show_default=True, help="seconds of load before, not counted")
@click.option("--model", default="", help="name or name@version")
@click.option("--tta", help="view policy")
@click.option("--precision", type=click.Choice(["fp32", "int8"]))
@click.option("--api-key", envvar="RESNET_API_KEY", help="key to send as a bearer token")
@click.option("--json", "is_json", is_flag=True, help="one JSON object a run instead of a table")
def COMMAND(
    images: tuple[Path, ...],
    url: str,
    connections: str,
    rate: float | None,
    seconds: float,
    warmup: float,
    model: str,
    tta: str | None,
    precision: str | None,
    api_key: str | None,
    is_json: bool,
) -> None:
    """Send IMAGES in turn to a server and measure. Exit code 1 when any request failed."""
    options = ClassifyOptions(model=model, tta=tta, precision=precision)  # type: ignore[arg-type]  # click checked it
    query = str(httpx.QueryParams(write_query(options)))
    path = f"/v1/classify?{query}" if query else "/v1/classify"
    try:
        target = Target.from_url(url, path, [image.read_bytes() for image in images], api_key)
        callers = [] if rate else [int(one) for one in connections.split(",")]
    except ValueError as err:
        raise click.UsageError(str(err)) from err
    asyncio.run(run_closed(target, 1, warmup))
    runs = [f"{rate:g}/s"] if rate else [f"c = {caller}" for caller in callers]
    rows = []
    for place, name in enumerate(runs):
        before = _read_batches(url)
        load = run_open(target, rate, seconds) if rate else run_closed(target, callers[place], seconds)
        report = asyncio.run(load)
        rows.append(_describe(name, report, before, _read_batches(url)))
    if is_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        _print_table(rows)
    sys.exit(1 if any(row["errors"] for row in rows) else 0)


def _read_batches(url: str) -> tuple[float, float]:
    """Views computed and batches run so far, from the server's metrics; zeros where it has none."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=10).text
    except httpx.HTTPError:
        return 0.0, 0.0
    totals = {"sum": 0.0, "count": 0.0}
    for kind, value in _BATCHES.findall(text):
        totals[kind] += float(value)
    return totals["sum"], totals["count"]


def _describe(
    name: str, report: Report, before: tuple[float, float], after: tuple[float, float]
) -> dict[str, object]:
    batches = after[1] - before[1]
    codes = {str(code) if code else "no answer": count for code, count in sorted(report.codes.items())}
    return {
        "load": name,
        "rate_per_s": round(report.rate_per_s, 1),
        **{f"p{share * 100:g}_ms": round(report.percentile_ms(share), 2) for share in PERCENTILES},
        "errors": report.errors,
        "codes": codes,
        "mean_batch": round((after[0] - before[0]) / batches, 2) if batches else None,
    }


def _print_table(rows: list[dict[str, object]]) -> None:
    table = Table("load", "images/s", *(f"p{share * 100:g} ms" for share in PERCENTILES), "errors", "batch")
    for row in rows:
        values = [row["load"], row["rate_per_s"], *(row[f"p{share * 100:g}_ms"] for share in PERCENTILES)]
        mean_batch = row["mean_batch"] if row["mean_batch"] is not None else "-"
        table.add_row(*(str(value) for value in values), str(row["errors"]), str(mean_batch))
    Console().print(table)
