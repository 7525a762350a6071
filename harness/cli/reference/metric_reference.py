"""Writes the reference of metrics and of HTTP headers from their registries."""

from collections.abc import Iterable, Mapping
from typing import Final

from harness.cli.reference.markdown_table import code, page, table
from harness.domain.operations.metrics import (
    CONTROL_METRICS,
    PROCESS_COUNTERS,
    ROUTER_METRICS,
    MetricSpec,
)
from harness.domain.routing.http_headers import HTTP_HEADERS, HeaderSide

METRICS_INTRODUCTION: Final = """\
`/metrics` of the router (with a data key) and of the control plane (with a management key)
is in Prometheus's text format. A router answers for all its workers: counters and histograms
are summed over them, with those of workers that ended. A worker's gauges have the label
`worker`, its place from 0 on. A histogram has `_bucket`, `_sum` and `_count`."""
HEADERS_INTRODUCTION: Final = """\
All of Swapgate's own headers begin with `x-swapgate-`. Nobody needs one: a request without
them is served by the route that its `model` names."""


def metrics_page() -> str:
    """Writes docs/reference/metrics.md."""
    heads = ("Name", "Kind", "Labels", "Meaning")
    return page(
        "Metrics",
        METRICS_INTRODUCTION,
        "## Of the router",
        table(heads, _metric_rows(ROUTER_METRICS)),
        "## Of the router's processes",
        table(heads, _metric_rows(PROCESS_COUNTERS)),
        "## Of the control plane",
        table(heads, _metric_rows(CONTROL_METRICS)),
    )


def _metric_rows(metrics: Mapping[str, MetricSpec]) -> Iterable[tuple[str, str, str, str]]:
    for name, spec in metrics.items():
        stored = f"{name}_total" if spec.kind == "counter" else name
        yield code(stored), spec.kind, ", ".join(spec.labels), spec.meaning


def headers_page() -> str:
    """Writes docs/reference/headers.md."""
    titles = {
        HeaderSide.REQUEST: "What a client may send",
        HeaderSide.ANSWER: "What an answer has",
        HeaderSide.WEBHOOK: "What a webhook gets",
        HeaderSide.INTERNAL: "Between Swapgate's processes",
    }
    parts = [HEADERS_INTRODUCTION]
    for side, title in titles.items():
        rows = [
            (code(name), spec.meaning, code(spec.example))
            for name, spec in sorted(HTTP_HEADERS.items())
            if side in spec.sides
        ]
        parts += [f"## {title}", table(("Header", "Meaning", "Example"), rows)]
    return page("Headers", *parts)
