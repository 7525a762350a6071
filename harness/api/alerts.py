"""Endpoints for alerts and failovers."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.endpoint import CallerParam, endpoint
from harness.api.json_answers import json_answer
from harness.api.request_fields import AlertQuery, FailoverQuery
from harness.control.operations import alerts, queries
from harness.control.operations.alerts import AlertView, DeliveryAttempt
from harness.domain.pagination import Page
from harness.domain.reliability.failover import Failover

router = APIRouter()


@endpoint(router, "GET", "/alerts")
def list_alerts(who: CallerParam, piece: Annotated[AlertQuery, Query()]) -> Page[AlertView]:
    """The one heard last first."""
    return queries.list_alerts(who.ctx, piece.page, open_only=piece.open)


@endpoint(router, "POST", "/alerts/test")
def test_alerts(who: CallerParam) -> Page[DeliveryAttempt]:
    """Send a message through every sink, now, and say what became of each. Needs an admin."""
    return json_answer(list(alerts.send_test(who.ctx, who.actor)))


@endpoint(router, "GET", "/failovers")
def list_failovers(
    who: CallerParam, piece: Annotated[FailoverQuery, Query()]
) -> Page[Failover]:
    """Targets that requests left, newest first; never content, and users as hashes."""
    return queries.list_failovers(
        who.ctx,
        piece.page,
        secret=who.secret,
        route=piece.route,
        user=piece.user,
        since=timedelta(seconds=piece.since_s),
    )
