"""Writes the reference of metrics and of HTTP headers from their registries.

Every HTTP header of Swapgate's own: who sends it, and what it means.

docs/reference/headers.md is written from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from os.path import relpath
from typing import Final, NamedTuple

from harness import docs_pages
from harness.domain.operations.metrics import (
    CONTROL_METRICS,
    PROCESS_COUNTERS,
    ROUTER_METRICS,
    MetricSpec,
)

NOTE = "<!-- Written by `swapgate docs generate`; do not edit. -->"


def page(title: str, *parts: str) -> str:
    """Writes a page: its title, the note that it is generated, its parts."""
    return "\n\n".join([f"# {title}", NOTE, *parts]) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table; a cell is Markdown on one line."""
    lines = [_row(heads), _row(["---"] * len(heads))]
    return "\n".join([*lines, *(_row(row) for row in rows)])


def link(page: str, text: str) -> str:
    """Writes a link from a page in docs/reference to another, named as `swapgate docs open`
    takes it; `#section` may follow. Raises NotFound.
    """
    name, mark, section = page.partition("#")
    markdown = docs_pages.find_page(name).markdown
    return f"[{text}]({relpath(markdown, docs_pages.DOCS / 'reference')}{mark}{section})"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def _row(cells: Sequence[str]) -> str:
    escaped = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


class HeaderSide(StrEnum):
    REQUEST = "request"  # a client sends it
    ANSWER = "answer"  # the router, or the agents process, sends it to clients
    WEBHOOK = "webhook"  # the control plane sends it to a webhook
    INTERNAL = "internal"  # from one process of Swapgate to another; a client's own is dropped


class HeaderSpec(NamedTuple):
    sides: tuple[HeaderSide, ...]
    meaning: str
    example: str = ""


_R, _A, _W, _I = HeaderSide
HTTP_HEADERS: Final[Mapping[str, HeaderSpec]] = {
    "x-swapgate-sticky": HeaderSpec(
        (_R,),
        "The key by which the arm is chosen: the same key, the same arm.",
        "customer-4711",
    ),
    "x-swapgate-task": HeaderSpec(
        (_R,),
        "Sends the request to the route with that `task`, whatever its `model` is.",
        "triage",
    ),
    "x-swapgate-kind": HeaderSpec(
        (_R, _A),
        "In a request, its kind, for the route's overrides; in an answer, the kind that chose "
        "another route.",
        "subagent",
    ),
    "x-swapgate-timeout": HeaderSpec(
        (_R,),
        "At most so many seconds for this request; less than the route's time, never more.",
        "20",
    ),
    "x-swapgate-heartbeat": HeaderSpec(
        (_R,), "`off`: no comments in this stream while it is silent.", "off"
    ),
    "x-swapgate-shadow": HeaderSpec(
        (_R,), "`off`: this request is mirrored to no candidate, and shown to no judge.", "off"
    ),
    "x-swapgate-capture": HeaderSpec(
        (_R,), "`off`: no copy of this request is kept, and no judge sees it.", "off"
    ),
    "x-swapgate-request-id": HeaderSpec(
        (_A,), "The request's id: feedback names it, and logs have it.", "req_5f0c-1a"
    ),
    "x-swapgate-route": HeaderSpec((_A,), "The route that served.", "support"),
    "x-swapgate-arm": HeaderSpec(
        (_A,), "The arm that the request was assigned to.", "incumbent"
    ),
    "x-swapgate-revision": HeaderSpec((_A,), "The routing revision that served.", "17"),
    "x-swapgate-target": HeaderSpec((_A,), "The target that answered.", "openai/gpt-5"),
    "x-swapgate-attempts": HeaderSpec((_A,), "Calls of providers for this answer.", "2"),
    "x-swapgate-degraded": HeaderSpec(
        (_A,),
        "What the target that answered could not do, and was left out or done otherwise.",
        "parallel_tool_calls",
    ),
    "x-swapgate-budget": HeaderSpec(
        (_A,), "How much of the key's budget is spent, from 80 % on.", "83%"
    ),
    "x-swapgate-switch": HeaderSpec(
        (_A,),
        "The kill switch that is in force, and whether this request went where it says.",
        "sw_…; provider:backup; in_effect",
    ),
    "x-swapgate-break-glass": HeaderSpec(
        (_A,), "The break-glass by which the route's model serves without proof.", "bg_…"
    ),
    "x-swapgate-auto": HeaderSpec(
        (_A,),
        "Which target `auto` chose for an agent, and why.",
        "sim/small: the cheapest of 2…",
    ),
    "x-swapgate-agent-fallback": HeaderSpec(
        (_A,), "The model that failed an agent's turn, which another one finished.", "sim/large"
    ),
    "x-swapgate-delivery": HeaderSpec(
        (_W,), "The message's id: the same in every attempt to deliver it.", "al_….1"
    ),
    "x-swapgate-signature": HeaderSpec(
        (_W,), "Time and HMAC-SHA-256 of the body, to verify before it is read.", "t=…,v1=…"
    ),
    "x-swapgate-agent": HeaderSpec(
        (_I,), "For which agent and session the agents process calls a model; signed."
    ),
    "x-swapgate-peer": HeaderSpec(
        (_I,), "Who is connected to the router, told to the agents process; signed."
    ),
}


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
