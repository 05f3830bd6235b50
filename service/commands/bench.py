"""`resnet-serve bench`: load a server and say what it gave: rate, percentiles, errors, batch sizes."""

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
from rich.table import Table

from service.client import Client, ClientTls
from service.client.http import write_query
from service.client.load import Connectable, Report, Target, run_closed, run_open
from service.commands.completion import complete_policy
from service.commands.progress import show_progress
from service.commands.server import NOT_REACHED, add_server_options
from service.commands.terminal import make_console
from service.commands.tls import add_tls_options
from service.errors import CallerError, ServiceError
from service.types import ClassifyOptions

PERCENTILES = (0.5, 0.9, 0.99)
TICK_S = 0.2
Seconds = click.FloatRange(0, min_open=True)


class _Callers(click.ParamType):  # type: ignore[type-arg]  # generic in new releases alone
    """Numbers of callers, separated by commas."""

    name = "numbers"

    def convert(
        self, value: str | list[int], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        if isinstance(value, list):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 10_000 for part in parts):
            self.fail(f"{value!r} is not numbers of 1 to 10000, separated by commas", param, ctx)
        return [int(part) for part in parts]


_BATCHES = re.compile(r"^resnet_batch_views_(sum|count)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@click.command("bench")
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@add_server_options
@add_tls_options
@click.option(
    "--connections",
    "-c",
    default="1,8,32",
    show_default=True,
    type=_Callers(),
    help="closed loop: callers, in turn",
)
@click.option("--rate", type=Seconds, help="open loop: requests a second, instead of --connections")
@click.option("--seconds", default=10.0, show_default=True, type=Seconds, help="length of each run")
@click.option(
    "--warmup",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0),
    help="seconds of load before, not counted",
)
@click.option("--metrics-url", help="where batch sizes are read; the server's own /metrics if it is HTTP")
@click.option("--model", default="", help="name or name@version")
@click.option("--tta", shell_complete=complete_policy, help="view policy")
@click.option("--precision", type=click.Choice(["fp32", "int8"]))
@click.option("--json", "is_json", is_flag=True, help="one JSON object a run instead of a table")
def COMMAND(
    images: tuple[Path, ...],
    url: str,
    connections: list[int],
    rate: float | None,
    seconds: float,
    warmup: float,
    metrics_url: str | None,
    model: str,
    tta: str | None,
    precision: str | None,
    api_key: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    is_json: bool,
) -> None:
    """Send IMAGES in turn to a server, over HTTP or gRPC, and measure.

    Exit code 1 when any request failed, 2 for wrong use, 3 without a server.
    """
    options = ClassifyOptions(model=model, tta=tta, precision=precision)  # type: ignore[arg-type]  # click checked it
    bodies = [image.read_bytes() for image in images]
    server = _Server(url, api_key, ClientTls(ca, cert, key))
    try:
        target = server.aim(options, bodies)
    except (ValueError, OSError) as err:
        raise click.UsageError(str(err)) from err
    server.try_once(options, bodies[0])
    if metrics_url is None and url.startswith("http"):
        metrics_url = f"{url}/metrics"
    runs: list[tuple[str, int]] = (
        [(f"{rate:g}/s", 0)] if rate else [(f"c = {one}", one) for one in connections]
    )
    rows = []
    with show_progress("measuring", warmup + seconds * len(runs)) as advance:
        asyncio.run(_tick(run_closed(target, 1, warmup), advance, 0.0))
        for place, (name, callers) in enumerate(runs):
            before = server.read_batches(metrics_url)
            load = run_open(target, rate, seconds) if rate else run_closed(target, callers, seconds)
            report = asyncio.run(_tick(load, advance, warmup + seconds * place))
            rows.append(_describe(name, report, before, server.read_batches(metrics_url)))
    if is_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        _print_table(rows)
    sys.exit(1 if any(row["errors"] for row in rows) else 0)


@dataclass(frozen=True, slots=True)
class _Server:
    """Who is measured, and what it is shown."""

    url: str
    api_key: str | None
    tls: ClientTls

    def aim(self, options: ClassifyOptions, bodies: list[bytes]) -> Connectable:
        """The load's target; raises ValueError, OSError for files of TLS that do not fit."""
        if self.url.startswith("grpc"):
            from service.client.load_rpc import RpcTarget

            return RpcTarget.from_url(self.url, options, bodies, self.api_key, self.tls)
        query = str(httpx.QueryParams(write_query(options)))
        path = f"/v1/classify?{query}" if query else "/v1/classify"
        return Target.from_url(self.url, path, bodies, self.api_key, self.tls)

    def try_once(self, options: ClassifyOptions, body: bytes) -> None:
        """Ends the command with a sentence where no request could pass."""
        asked = {"model": options.model, "tta": options.tta, "precision": options.precision}
        try:
            with Client(self.url, api_key=self.api_key, tls=self.tls, attempts=3) as client:
                client.classify(body, **asked)
        except CallerError as err:
            raise click.UsageError(err.detail) from err
        except ServiceError as err:
            click.echo(err.detail, err=True)
            sys.exit(NOT_REACHED)

    def read_batches(self, metrics_url: str | None) -> tuple[float, float]:
        """Views computed and batches run so far, by the server's metrics; zeros where there are none."""
        if metrics_url is None:
            return 0.0, 0.0
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        verify = self.tls.make_context() if metrics_url.startswith("https") else True
        try:
            text = httpx.get(metrics_url, headers=headers, verify=verify, timeout=10).text
        except httpx.HTTPError:
            return 0.0, 0.0
        totals = {"sum": 0.0, "count": 0.0}
        for kind, value in _BATCHES.findall(text):
            totals[kind] += float(value)
        return totals["sum"], totals["count"]


async def _tick(load: Coroutine[Any, Any, Report], advance: Callable[[float], None], done_s: float) -> Report:
    """The load's report; `advance` hears of the seconds meanwhile."""
    began = time.monotonic()

    async def tell() -> None:
        while True:
            advance(done_s + time.monotonic() - began)
            await asyncio.sleep(TICK_S)

    telling = asyncio.ensure_future(tell())
    try:
        return await load
    finally:
        telling.cancel()


def _describe(
    name: str, report: Report, before: tuple[float, float], after: tuple[float, float]
) -> dict[str, object]:
    batches = after[1] - before[1]
    return {
        "load": name,
        "rate_per_s": round(report.rate_per_s, 1),
        **{f"p{share * 100:g}_ms": _find_percentile(report, share) for share in PERCENTILES},
        "errors": report.errors,
        "codes": dict(sorted(report.codes.items())),
        "mean_batch": round((after[0] - before[0]) / batches, 2) if batches else None,
    }


def _find_percentile(report: Report, share: float) -> float | None:
    return round(report.percentile_ms(share), 2) if report.latencies_s else None


def _print_table(rows: list[dict[str, object]]) -> None:
    table = Table("load", "images/s", *(f"p{share * 100:g} ms" for share in PERCENTILES), "errors", "batch")
    for row in rows:
        values = [row["load"], row["rate_per_s"], *(row[f"p{share * 100:g}_ms"] for share in PERCENTILES)]
        values += [row["errors"], row["mean_batch"]]
        table.add_row(*("-" if value is None else str(value) for value in values))
    make_console().print(table)
