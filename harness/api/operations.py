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

from harness.api.frame.endpoint import BodyFactory, CallerParam, endpoint, operation
from harness.api.frame.error_status import extend, json_answer
from harness.api.frame.request_fields import (
    AlertQuery,
    AuditQuery,
    DeclarationBody,
    FailoverQuery,
    KeyBody,
    LimitsBody,
    OptOutsBody,
    OverruleBody,
    OverviewQuery,
    PageQuery,
    PurgeQuery,
    RouteQuery,
    UserDeletionBody,
)
from harness.control.operations import alerts, dashboard_sessions, keys, people, queries
from harness.control.operations.spending_report import load_report
from harness.control.privacy import captures, user_deletion
from harness.control.routing.route_status import RouteStatus
from harness.domain.operations.access import ApiKey, Role
from harness.domain.operations.audit import AuditEvent
from harness.domain.operations.principals import PersonLink
from harness.domain.pagination import Page
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


@endpoint(router, "GET", "/policies")
def list_policies(who: CallerParam) -> Page[Policy]:
    return json_answer(list(who.ctx.policies.values()))


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


@endpoint(router, "POST", "/people/{name}/declarations", status=201)
def declare_person(who: CallerParam, name: str, body: DeclarationBody) -> PersonLink:
    """Declares whom a principal is as well, or that he is nobody else here. Needs an admin."""
    if body.person is None:
        return people.separate(who.ctx, who.actor, name, body.reason)
    return people.link(who.ctx, who.actor, name, body.person, body.reason)


captures_router = APIRouter()


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


operation(router, "GET /spending", "show_spending", load_report)
operation(router, "GET /keys", "list_keys", queries.list_keys, PageQuery)
operation(router, "PUT /keys/{key}/opt-outs", "opt_out_key", keys.set_opt_outs, OptOutsBody)
operation(router, "DELETE /keys/{key}", "revoke_key", keys.revoke_key, status=204)
operation(router, "GET /people", "list_people", people.list_people)
SESSIONS = "/dashboard-sessions"
operation(router, f"GET {SESSIONS}", "list_dashboard_sessions", dashboard_sessions.list_open)
operation(
    router,
    f"POST {SESSIONS}/{{session}}/end",
    "end_dashboard_session",
    dashboard_sessions.end_another,
    OverruleBody,
)
operation(alerts_router, "GET /alerts", "list_alerts", queries.list_alerts, AlertQuery)
operation(alerts_router, "POST /alerts/test", "test_alerts", alerts.send_test)
operation(captures_router, "GET /captures", "list_captures", queries.list_captures, RouteQuery)
operation(captures_router, "GET /captures/{capture}", "show_capture", captures.read_capture)
# The user's id is in the body, since logs hold paths.
operation(
    captures_router,
    "POST /user-deletions",
    "delete_user",
    user_deletion.delete_user,
    UserDeletionBody,
)
