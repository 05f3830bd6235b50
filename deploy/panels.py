"""Run the query of every panel of the dashboard against a Prometheus, and say how many series each returns.

    python3 deploy/panels.py http://127.0.0.1:9090

Exits 1 when one fails, or returns nothing although the service was asked for a while. Panels of GPUs may be
empty. Needs nothing but Python.
"""

import json
import math
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

DASHBOARD = Path(__file__).resolve().parent / "grafana/dashboards/resnet-serve.json"
# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$model": ".*"}


def list_queries() -> list[tuple[str, str]]:
    """(panel's title, query) of every target."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]


def fill(query: str) -> str:
    """The query as Prometheus gets it."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def ask(url: str, query: str) -> list[float]:
    """The values of the series it returns now; raises URLError, ValueError."""
    address = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        found = json.load(answer)["data"]["result"]
    return [float(series["value"][1]) for series in found]


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    missing = 0
    for title, query in list_queries():
        try:
            values = ask(sys.argv[1], fill(query))
        except urllib.error.URLError as err:
            sys.exit(f"{title}: {err}")
        real = [value for value in values if not math.isnan(value)]  # a share of nothing is not a number
        missing += not real and "resnet_gpu" not in query
        print(f"{len(real):4} series  {title}")
    sys.exit(missing > 0)


if __name__ == "__main__":
    main()
