"""Endpoints for the overview of routes, policies, keys and their limits, the audit log, alerts
and failovers.

Endpoints for captured requests, and the one that deletes what a user said and got.

Endpoints for principals, whom an admin declared to be one person, and for the sessions of
the dashboard.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.frame.endpoint import BodyFactory, CallerParam, PathPart, endpoint
from harness.api.frame.json_answers import extend, json_answer
from harness.api.frame.request_fields import (
    AlertQuery,
    AuditQuery,
    DeclarationBody,
    FailoverQuery,
    KeyBody,
    LimitsBody,
    OptOutsBody,
    OverviewQuery,
    PurgeQuery,
    RouteQuery,
    SessionEndBody,
    UserDeletionBody,
)
from harness.control.operations import alerts, dashboard_sessions, keys, people, queries
from harness.control.operations.alerts import AlertView, DeliveryAttempt
from harness.control.operations.dashboard_sessions import SignedInSession
from harness.control.operations.keys import KeySummary
from harness.control.operations.people import PersonView
from harness.control.operations.spending_report import SpendingReport, load_report
from harness.control.privacy import captures, user_deletion
from harness.control.privacy.captures import CaptureSummary
from harness.control.privacy.user_deletion import UserDeletion
from harness.control.routing.route_status import RouteStatus
from harness.domain.operations.access import ApiKey, Role
from harness.domain.operations.audit import AuditEvent
from harness.domain.operations.principals import PersonLink
from harness.domain.pagination import Page
from harness.domain.privacy.capture import CapturedRequest
from harness.domain.proposals.policy import Policy
from harness.domain.reliability.failover import Failover

router = APIRouter()


@dataclass(frozen=True, slots=True)
class NewKey:
    """Shows a key that was just made. text: what to send as the bearer; shown in this answer
    alone.
    """

    key: ApiKey
    text: str = field(repr=False)


@dataclass(frozen=True)
class RouteGlance(RouteStatus):
    """Shows a route at a glance. waits_for_person: for an approval, or with a canary that
    is paused or on hold.
    """

    waits_for_person: bool = False


@dataclass(frozen=True)
class AuditCheck:
    """Says whether the audit log's chain holds. first_break: the number of the first event that
    does not fit the chain.
    """

    whole: bool
    first_break: int | None


@endpoint(router, "GET", "/overview")
def overview(who: CallerParam, piece: Annotated[OverviewQuery, Query()]) -> Page[RouteGlance]:
    """Lists the routes; those that wait for a person first."""
    return queries.list_route_status(who.ctx, piece.page).map(
        lambda status: extend(RouteGlance, status, waits_for_person=status.needs_decision)
    )


@endpoint(router, "GET", "/spending")
def show_spending(who: CallerParam) -> SpendingReport:
    """Shows what Swapgate itself spent on models in this month (UTC), against the cap."""
    return load_report(who.ctx)


@endpoint(router, "GET", "/policies")
def list_policies(who: CallerParam) -> Page[Policy]:
    return json_answer(list(who.ctx.policies.values()))


@endpoint(router, "GET", "/keys")
def list_keys(who: CallerParam, piece: PathPart) -> Page[KeySummary]:
    """Lists the keys, oldest first, with the revoked ones. The keys themselves are not
    stored.
    """
    return queries.list_keys(who.ctx, piece.page)


@endpoint(router, "POST", "/keys", status=201)
def create_key(who: BodyFactory, body: KeyBody) -> NewKey:
    """Creates a management key with a role, or without one a data key. Needs an admin."""
    role = Role[body.role.upper()] if body.role else None
    made, text = keys.create_key(
        who.ctx,
        who.actor,
        body.name,
        secret=who.secret,
        role=role,
        routes=body.routes,
        limits=body.limits.limits() if body.limits else None,
        opt_outs=body.opt_outs,
        principal=body.principal,
        service=body.service,
    )
    return NewKey(made, text)


@endpoint(router, "PUT", "/keys/{key}/limits")
def limit_key(who: CallerParam, key: str, body: LimitsBody) -> ApiKey:
    """Replace a data key's limits as a whole; what is left out is not limited."""
    return keys.set_limits(who.ctx, who.actor, key, lambda _: body.limits())


@endpoint(router, "PUT", "/keys/{key}/opt-outs")
def opt_out_key(who: CallerParam, key: str, body: OptOutsBody) -> ApiKey:
    """Replace what a data key opts out of as a whole; an empty list lifts it."""
    return keys.set_opt_outs(who.ctx, who.actor, key, body.opt_outs)


@endpoint(router, "DELETE", "/keys/{key}", status=204)
def revoke_key(who: CallerParam, key: str) -> None:
    keys.revoke_key(who.ctx, who.actor, key)


@endpoint(router, "GET", "/audit")
def audit_tail(who: CallerParam, piece: Annotated[AuditQuery, Query()]) -> Page[AuditEvent]:
    """Lists the audit events, newest first. Of a sign-in by single sign-on, only an admin is
    told the server and the subject.
    """
    return queries.list_audit_events(who.ctx, piece.page, piece.selection, reader=who.actor)


@endpoint(router, "GET", "/audit/verify")
def verify_audit(who: CallerParam) -> AuditCheck:
    broken = queries.find_audit_break(who.ctx)
    return AuditCheck(broken is None, broken)


alerts_router = APIRouter()


@endpoint(alerts_router, "GET", "/alerts")
def list_alerts(who: CallerParam, piece: Annotated[AlertQuery, Query()]) -> Page[AlertView]:
    """Lists the alerts, the one last seen first."""
    return queries.list_alerts(who.ctx, piece.page, open_only=piece.open, search=piece.search)


@endpoint(alerts_router, "POST", "/alerts/test")
def test_alerts(who: CallerParam) -> Page[DeliveryAttempt]:
    """Send a message through every sink, now, and say what became of each. Needs an admin."""
    return json_answer(list(alerts.send_test(who.ctx, who.actor)))


@endpoint(alerts_router, "GET", "/failovers")
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


@endpoint(router, "GET", "/people")
def list_people(who: CallerParam) -> Page[PersonView]:
    """Lists the principals, with whom each was declared to be: to an admin all, to others those
    that are the caller.
    """
    return json_answer(list(people.list_people(who.ctx, who.actor)))


@endpoint(router, "POST", "/people/{name}/declarations", status=201)
def declare_person(who: CallerParam, name: str, body: DeclarationBody) -> PersonLink:
    """Declares whom a principal is as well, or that he is nobody else here. Needs an admin."""
    if body.person is None:
        return people.separate(who.ctx, who.actor, name, body.reason)
    return people.link(who.ctx, who.actor, name, body.person, body.reason)


@endpoint(router, "GET", "/dashboard-sessions")
def list_dashboard_sessions(who: CallerParam) -> Page[SignedInSession]:
    """Lists who is signed in to the dashboard, the last one first: to an admin all, to others
    the caller's own sessions.
    """
    return json_answer(list(dashboard_sessions.list_open(who.ctx, who.actor)))


@endpoint(router, "POST", "/dashboard-sessions/{session}/end")
def end_dashboard_session(
    who: CallerParam, session: str, body: SessionEndBody
) -> SignedInSession:
    """Ends somebody's session in the dashboard, at once. Needs an admin, unless it is the
    caller's own.
    """
    return dashboard_sessions.end_another(who.ctx, who.actor, session, body.reason)


captures_router = APIRouter()


@endpoint(captures_router, "GET", "/captures")
def list_captures(
    who: CallerParam, piece: Annotated[RouteQuery, Query()]
) -> Page[CaptureSummary]:
    """Lists the captured requests, newest first, without their content."""
    return queries.list_captures(who.ctx, piece.page, route=piece.route)


@endpoint(captures_router, "GET", "/captures/{capture}")
def show_capture(who: CallerParam, capture: str) -> CapturedRequest:
    """Shows a captured request with its content. Needs an approver; the audit log notes it."""
    return captures.read_capture(who.ctx, who.actor, capture)


@endpoint(captures_router, "DELETE", "/captures", status=204)
def purge_captures(who: CallerParam, piece: Annotated[PurgeQuery, Query()]) -> None:
    """Deletes the captured requests that match every given filter. Needs an admin."""
    captures.purge_captures(
        who.ctx,
        who.actor,
        secret=who.secret,
        id_=piece.capture,
        route=piece.route,
        user=piece.user,
        everything=piece.all,
    )


@endpoint(captures_router, "POST", "/user-deletions")
def delete_user(who: CallerParam, body: UserDeletionBody) -> UserDeletion:
    """Deletes a user's sessions, captured requests and marks. Needs an admin. The user's id is
    in the body, since logs hold paths; the audit log keeps the reason alone.
    """
    return user_deletion.delete_user(
        who.ctx, who.actor, body.user, body.reason, secret=who.secret
    )
