"""Alerts and dashboard speak of metrics that exist, and every alert has its entry in the runbook.

promtool, where it is installed, runs each alert on a history that calls for it.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.panels import fill, list_queries

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "deploy/grafana/dashboards/resnet-serve.json").read_text(encoding="utf-8")
)
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
] + [pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES]

# Makes every metric family of the service in a process of its own and prints the names of their samples.
LIST_SAMPLES = """
import sys
from pathlib import Path
from prometheus_client import values
from service.metrics import FrontendMetrics, open_worker_metrics
made = []
import prometheus_client.metrics as library
init = library.MetricWrapperBase.__init__
def remember(self, *args, **kwargs):
    init(self, *args, **kwargs)
    made.append(self)
library.MetricWrapperBase.__init__ = remember
directory = Path(sys.argv[1])
FrontendMetrics(directory, 0)
open_worker_metrics(directory, 0, "cifar10")
from service.metrics.gpus import FAMILIES
for name, _, _ in FAMILIES:
    print(name, "gpu")
for metric in made:
    endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[metric._type]
    for ending in endings:
        print(metric._name + ending, *metric._labelnames)
"""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Sample name -> its labels, of everything the service counts."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_SAMPLES, str(tmp_path_factory.mktemp("metrics"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: set(labels) for name, *labels in map(str.split, done.stdout.splitlines())}


@pytest.mark.parametrize("expression", QUERIES)
def test_a_query_names_metrics_that_exist(expression: str, samples: dict[str, set[str]]) -> None:
    named = set(re.findall(r"\bresnet_[a-z_]+\b", expression))
    assert named or 'up{job="resnet-serve"}' in expression
    assert named <= set(samples)


@pytest.mark.parametrize("expression", QUERIES)
def test_a_query_groups_by_labels_that_its_metrics_have(
    expression: str, samples: dict[str, set[str]]
) -> None:
    named = set(re.findall(r"\bresnet_[a-z_]+\b", expression))
    labels = {"instance", "le"}.union(*(samples.get(name, set()) for name in named))
    grouped = re.findall(r"(?:by|on) \(([a-z, ]+)\)", expression)
    assert {label for group in grouped for label in group.split(", ")} <= labels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_leads_to_its_entry_in_the_runbook(rule: dict[str, Any]) -> None:
    page, anchor = rule["annotations"]["runbook"].split("#")
    assert anchor == rule["alert"].lower()
    assert f"### {rule['alert']}\n" in (ROOT / page).read_text(encoding="utf-8")


def test_the_runbook_has_no_entry_without_an_alert() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (Resnet\w+)$", text, re.MULTILINE)) == {rule["alert"] for rule in RULES}


def test_the_scraped_names_are_those_of_the_compose_file() -> None:
    services = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"])
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    scraped = {name for job in jobs for one in job["dns_sd_configs"] for name in one["names"]}
    assert scraped == services - {"prometheus", "grafana"}


def test_panels_do_not_overlap_and_have_their_own_ids() -> None:
    places = [
        (column, line)
        for panel in DASHBOARD["panels"]
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(column for column, _ in places) < 24
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "deploy/prometheus/prometheus.yml"],
        ["test", "rules", "tests/deploy/alerts_test.yml"],
    ],
    ids=["the configuration is valid", "each alert fires when it should"],
)
def test_promtool_agrees(arguments: list[str]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_variables_are_filled_in_before_a_query_is_run() -> None:
    queries = [fill(query) for _, query in list_queries()]
    assert len(queries) == len([target for panel in PANELS for target in panel["targets"]])
    assert not [query for query in queries if "$" in query]
