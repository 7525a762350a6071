"""Writes swapproof.json, the Grafana dashboard, from the table of its panels:
`python -m deploy.grafana.dashboard`.

A query names metrics of docs/reference/metrics.md only. Gauges with the label `worker` are one
per worker, so each query takes their minimum, maximum or sum.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = Path(__file__).with_name("swapproof.json")
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24
PANELS_IN_A_ROW: Final = 3
HEIGHT: Final = 8


class Panel(NamedTuple):
    """One chart. unit: a unit of Grafana's. legend: labels in braces."""

    title: str
    query: str
    legend: str
    unit: str = "short"


# Calls that fail by the request, or by us, say nothing of their provider.
NO_FAULTS: Final = (
    "none",
    "bad_request",
    "unsupported",
    "foreign_state",
    "context_window",
    "content_policy",
    "cancelled",
    "internal",
)
ANSWERED: Final = 'outcome!~"failed|refused|handed_on"'


def list_traffic_panels(label: str) -> Sequence[Panel]:
    """Lists the panels of requests, errors, latencies and failovers, by `provider` or
    `target`.
    """
    legend = f"{{{{{label}}}}}"
    faults = "|".join(NO_FAULTS)
    faults = "|".join(NO_FAULTS)
    calls = f"sum by ({label}) (rate(swapproof_attempts_total"

    def latency(metric: str, which: str = "") -> str:
        buckets = f'rate({metric}_bucket{{{label}!=""{which}}}[5m])'
        return f"histogram_quantile(0.95, sum by ({label}, le) ({buckets}))"

    return (
        Panel(
            f"Requests answered, by {label}",
            f'sum by ({label}) (rate(swapproof_requests_total{{{label}!="",{ANSWERED}}}[5m]))',
            legend,
            "reqps",
        ),
        Panel(
            f"Share of calls that fail, by {label}",
            f'{calls}{{failure_class!~"{faults}"}}[5m])) / {calls}[5m]))',
            legend,
            "percentunit",
        ),
        Panel(
            f"Failovers, by the {label} that was left",
            f"sum by ({label}, failure_class) (rate(swapproof_failovers_total[5m]))",
            f"{legend} {{{{failure_class}}}}",
            "reqps",
        ),
        Panel(
            f"95 % of answers are whole within, by {label}",
            latency("swapproof_request_duration_seconds", f",{ANSWERED}"),
            legend,
            "s",
        ),
        Panel(
            f"95 % of streams begin within, by {label}",
            latency("swapproof_time_to_first_token_seconds"),
            legend,
            "s",
        ),
    )


ROWS: Final[Mapping[str, Sequence[Panel]]] = {
    "Requests": (
        Panel(
            "Requests",
            "sum by (route) (rate(swapproof_requests_total[5m]))",
            "{{route}}",
            "reqps",
        ),
        Panel(
            "Share that fails for callers",
            'sum by (route) (rate(swapproof_requests_total{outcome=~"failed|refused"}[5m]))'
            " / sum by (route) (rate(swapproof_requests_total[5m]))",
            "{{route}}",
            "percentunit",
        ),
        Panel(
            "95 % of requests are faster than",
            "histogram_quantile(0.95, sum by (route, le)"
            " (rate(swapproof_request_duration_seconds_bucket[5m])))",
            "{{route}}",
            "s",
        ),
        Panel(
            "Cost an hour, in US dollars",
            "sum by (target) (rate(swapproof_cost_dollars_total[1h])) * 3600",
            "{{target}}",
            "currencyUSD",
        ),
        Panel(
            "Tokens a second",
            "sum by (target, kind) (rate(swapproof_tokens_total[5m]))",
            "{{target}} {{kind}}",
        ),
    ),
    "Providers": list_traffic_panels("provider"),
    "Targets": (
        *list_traffic_panels("target"),
        Panel(
            "Circuits: 0 closed, 1 half open, 2 open",
            "max by (target) (swapproof_breaker_state)",
            "{{target}}",
        ),
        Panel(
            "Answers health checks: 1 yes, 0 no",
            "min by (target) (swapproof_health_check_up)",
            "{{target}}",
        ),
    ),
    "Changes": (
        Panel(
            "Proposals, by phase",
            "max by (phase) (swapproof_proposals)",
            "{{phase}}",
        ),
        Panel(
            "Share of each canary",
            "max by (route) (swapproof_canary_weight_bps) / 10000",
            "{{route}}",
            "percentunit",
        ),
        Panel(
            "Evidence of harm of each canary, as a share of the rollback level",
            "max by (route) (swapproof_canary_distance_to_trip)",
            "{{route}}",
            "percentunit",
        ),
    ),
    "Processes": (
        Panel(
            "Routing revision",
            "min by (instance) (swapproof_routing_revision)",
            "{{instance}}",
        ),
        Panel(
            "Requests under way",
            "sum by (instance) (swapproof_router_requests_under_way)",
            "{{instance}}",
        ),
        Panel(
            "Since control last decided",
            "min(swapproof_reconcile_age_seconds)",
            "control",
            "s",
        ),
        Panel(
            "Without the database: 1 yes, 0 no",
            "max by (instance) (swapproof_router_stale)",
            "{{instance}}",
        ),
        Panel(
            "Observations dropped a second",
            "sum by (instance) (rate(swapproof_observations_dropped_total[5m]))",
            "{{instance}}",
        ),
        Panel(
            "Faults of the router's own, a second",
            "sum by (instance) (rate(swapproof_router_internal_errors_total[5m]))",
            "{{instance}}",
        ),
    ),
}


def build_dashboard() -> dict[str, Any]:
    """Returns the dashboard as Grafana imports it."""
    return {
        "uid": "swapproof",
        "title": "Swapproof",
        "description": "Requests, targets, canaries and processes of one installation.",
        "tags": ["swapproof"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                }
            ]
        },
        "panels": list_panels(),
    }


def list_panels() -> list[dict[str, Any]]:
    """Returns the rows' headings and their panels, each with its place on the grid."""
    panels: list[dict[str, Any]] = []
    top = 0
    for heading, row in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": heading,
                "collapsed": False,
                "panels": [],
                "gridPos": {
                    "x": 0,
                    "y": top,
                    "w": WIDTH,
                    "h": 1,
                },
            }
        )
        top += 1
        for place, panel in enumerate(row):
            line, column = divmod(place, PANELS_IN_A_ROW)
            width = WIDTH // PANELS_IN_A_ROW
            grid = {
                "x": column * width,
                "y": top + line * HEIGHT,
                "w": width,
                "h": HEIGHT,
            }
            panels.append(build_panel(panel, number=len(panels) + 1, grid=grid))
        top += -(-len(row) // PANELS_IN_A_ROW) * HEIGHT
    return panels


def build_panel(
    panel: Panel,
    *,
    number: int,
    grid: Mapping[str, int],
) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": grid,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": "A",
                "datasource": SOURCE,
                "expr": panel.query,
                "legendFormat": panel.legend,
            }
        ],
    }


def dump_dashboard() -> str:
    return json.dumps(build_dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(dump_dashboard(), encoding="utf-8")
