"""Alerts and failovers: what went wrong, and who was told."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.endpoint import Who, endpoint
from harness.api.json_answers import whole
from harness.api.request_fields import AlertSlice, FailoverSlice
from harness.control.operations import alerts, listings
from harness.control.operations.alerts import Listed, Tried
from harness.domain.pagination import Page
from harness.domain.reliability.failover import Failover

router = APIRouter()


@endpoint(router, "GET", "/alerts")
def list_alerts(who: Who, piece: Annotated[AlertSlice, Query()]) -> Page[Listed]:
    """The one heard last first."""
    return listings.alerts(who.ctx, piece.page, open_only=piece.open)


@endpoint(router, "POST", "/alerts/test")
def test_alerts(who: Who) -> Page[Tried]:
    """Send a message through every sink, now, and say what became of each. Needs an admin."""
    return whole(list(alerts.test(who.ctx, who.actor)))


@endpoint(router, "GET", "/failovers")
def list_failovers(who: Who, piece: Annotated[FailoverSlice, Query()]) -> Page[Failover]:
    """Targets that requests left, newest first; never content, and users as hashes."""
    return listings.failovers(
        who.ctx,
        piece.page,
        secret=who.secret,
        route=piece.route,
        user=piece.user,
        since=timedelta(seconds=piece.since_s),
    )
