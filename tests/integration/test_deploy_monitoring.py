"""The Grafana dashboard and the Prometheus rules ask only for what Swapgate reports."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.grafana import dashboard
from harness.domain.operations.metrics import (
    CONTROL_METRICS,
    PROCESS_COUNTERS,
    ROUTER_METRICS,
)

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
METRICS = {**ROUTER_METRICS, **PROCESS_COUNTERS, **CONTROL_METRICS}
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}
# By the name that Prometheus stores.
SERIES = {
    f"{name}{suffix}": set(spec.labels)
    for name, spec in METRICS.items()
    for suffix in SUFFIXES[spec.kind]
}
# Labels that Prometheus and the router's workers add.
ADDED_LABELS = {"instance", "job", "worker", "le"}
GROUPING = re.compile(r"\bby \(([^)]*)\)")
SELECTOR = re.compile(r"\{(\w+)=")


def rules() -> dict[str, str]:
    """Each alert's query."""
    [group] = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text("utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def panels() -> dict[str, str]:
    """Each panel's query, as the shipped file has it."""
    shipped = json.loads(dashboard.FILE.read_text("utf-8"))
    return {
        panel["title"]: target["expr"]
        for panel in shipped["panels"]
        for target in panel.get("targets", ())
    }


def test_the_dashboards_file_is_what_its_table_writes() -> None:
    assert dashboard.FILE.read_text("utf-8") == dashboard.dump_dashboard(), (
        "write it anew: python -m deploy.grafana.dashboard"
    )


@pytest.mark.parametrize("queries", [rules(), panels()], ids=["rules", "panels"])
def test_every_query_names_only_metrics_and_labels_that_exist(queries: dict[str, str]) -> None:
    assert queries
    for title, query in queries.items():
        named = set(re.findall(r"\bswapgate_\w+", query))
        assert named or query.startswith("up{"), title
        assert named <= SERIES.keys(), title
        labels = {
            label.strip() for group in GROUPING.findall(query) for label in group.split(",")
        } | set(SELECTOR.findall(query))
        assert labels <= ADDED_LABELS.union(*(SERIES[name] for name in named)), title


def test_no_two_panels_of_the_dashboard_overlap() -> None:
    covered: list[tuple[int, int]] = []
    for panel in json.loads(dashboard.FILE.read_text("utf-8"))["panels"]:
        grid = panel["gridPos"]
        covered += [
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        ]

    assert len(covered) == len(set(covered))
    assert max(x for x, _ in covered) < dashboard.WIDTH


def test_each_rule_has_a_case_where_it_fires_and_one_where_it_stays_quiet() -> None:
    cases = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text("utf-8"))["tests"]
    expected = [
        (check["alertname"], bool(check["exp_alerts"]))
        for case in cases
        for check in case["alert_rule_test"]
    ]

    assert sorted(expected) == sorted((name, fires) for name in rules() for fires in (0, 1))


def test_promtool_finds_that_the_rules_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (Debian: prometheus); names alone were checked")
    done = subprocess.run(  # noqa: S603 - Prometheus' own tool
        [promtool, "test", "rules", "rules_test.yaml"],
        cwd=PROMETHEUS,
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (Debian: prometheus); names alone were checked")
    recorded = [
        {"record": f"panel_{number}", "expr": query}
        for number, query in enumerate(panels().values())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    done = subprocess.run(  # noqa: S603 - Prometheus' own tool
        [promtool, "check", "rules", file], capture_output=True, check=False, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
