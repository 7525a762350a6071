"""Texts about callers who left without an answer."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from harness.gate.online.observation import TrafficMinute, TrafficTotal
from harness.providers.target import Target
from harness.routing.control.outage_rule import OutageKind, RouteOutage
from harness.routing.control.outages import OutageView
from harness.routing.reports.traffic_report import (
    QUIET,
    RouteTraffic,
    TrafficReport,
    describe_traffic,
    format_request_ends,
)

pytestmark = pytest.mark.req("B9")

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def _minute(requests: int, failed: int, unanswered: int) -> TrafficMinute:
    counts = requests, failed, 0, 0, 0, 0, 0.0
    return TrafficMinute("r", NOON, "w", "incumbent", "", 1, *counts, unanswered=unanswered)


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        ([], ""),
        ([_minute(80, 0, 0)], "80 requests, 0 failed"),
        ([_minute(150, 0, 150)], "150 requests, 150 left without an answer"),
        (
            [_minute(9, 1, 0), _minute(1, 0, 1)],
            "10 requests, 1 failed, 1 left without an answer",
        ),
    ],
)
def test_a_route_that_callers_left_never_reads_as_one_without_a_failure(
    minutes: Sequence[TrafficMinute], text: str
) -> None:
    assert format_request_ends(minutes) == text


def test_the_headline_of_traffic_names_callers_who_left() -> None:
    sums = 0, 0, 0, 0, 0, 0, 0.0, 0
    total = TrafficTotal("r", "incumbent", "", NOON, NOON, 150, *sums, unanswered=150)
    route = RouteTraffic.from_totals("r", [total])
    hour = timedelta(hours=1)
    report = TrafficReport(hour, NOON - hour, NOON, route, [route], hour, [], NOON)

    assert replace(report, last_request=NOON - QUIET).quiet_since is None
    before = NOON - QUIET - timedelta.resolution
    assert replace(report, last_request=before).quiet_since == before

    headline, note = describe_traffic(report, "the last hour", None)

    assert headline == "1 of 1 route gave callers no answer in the last hour"
    assert note.startswith("150 of 150 requests (100 %) left without an answer, until ")


def test_an_outage_in_which_callers_left_names_their_number() -> None:
    outage = RouteOutage(OutageKind.DOWN, NOON, 150, no_answers=True, unanswered=150)
    view = OutageView(outage, Target("openai", "m"))

    assert view.state_text == "down"
    assert view.reason == (
        "Since 2026-11-29 12:00 UTC 150 of 150 callers left without an answer: no target of "
        "the route answers in time."
    )
