"""Endpoints for the overview, policies, keys, people, audit, alerts, failovers and captures."""

# ruff: noqa: RUF012 - pydantic copies a default for each request

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from harness.evals.spending import load_report
from harness.frame.pagination import MOST_LISTED, Page
from harness.frame.people.access import ApiKey, OptOut, PersonLink, Role
from harness.frame.people.limits import KeyLimits
from harness.frame.signing.audit import AuditEvent, AuditFilter
from harness.gate.policy import Policy
from harness.interfaces.api.frame.endpoint import (
    Body,
    CallerParam,
    Name,
    PageQuery,
    Text,
    endpoint,
    operation,
)
from harness.interfaces.api.frame.error_status import extend, json_answer
from harness.interfaces.api.frame.operation_endpoint import add_endpoints
from harness.interfaces.api.frame.setting_fields import settings_body
from harness.operations import (
    alert_delivery,
    keys,
    queries,
    route_queries,
)
from harness.operations.operations import CAPTURES, KEYS, PEOPLE, USERS
from harness.operations.route_status import RouteStatus
from harness.routing.reliability.failover import Failover

router = APIRouter()


class OverviewQuery(PageQuery):
    """Pages a list of routes with their current state."""

    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 50


if TYPE_CHECKING:
    KeyLimitFields = Body
else:
    KeyLimitFields = settings_body(KeyLimits, whole=True)


class LimitsBody(KeyLimitFields):
    """The limits of a client key; an omitted field sets no limit. warn_share: the share of a
    budget at which Swapproof raises an alert.
    """

    def limits(self) -> KeyLimits:
        return KeyLimits(**self.model_dump())


class KeyBody(Body):
    """A key to create. role: null for a client key. routes: the routes that the client key may
    use; empty for all.

    principal: the name of the management key's owner; null for a new person or service with the
    key's name. opt_outs: features that must not use the client key's requests.
    """

    name: Name
    principal: Name | None = None
    service: bool = False
    role: Literal["viewer", "proposer", "approver", "admin"] | None = None
    routes: Annotated[list[Name], Field(max_length=1000)] = []
    limits: LimitsBody | None = None
    opt_outs: set[OptOut] = set()


class DeclarationBody(Body):
    """A declaration about a principal. person: the name of another principal of the same
    person; null if the person has no other principal.
    """

    person: Name | None = None
    reason: Text


class AlertQuery(PageQuery):
    """Selects alerts. search: a part of an alert's text."""

    open_only: Annotated[bool, Field(alias="open")] = False
    search: Text = ""


class FailoverQuery(PageQuery):
    """Selects failovers. user: the id that the client sent, or a part of its hash. since_s: age
    of the oldest failover.
    """

    route: Name | None = None
    user: Name | None = None
    since_s: Annotated[float, Field(gt=0, le=31_536_000)] = 86_400.0


class AuditQuery(PageQuery):
    """Selects audit events by parts of actor, action and subject. actor: a part of the name, or
    the whole id of a management key. since, until: times with a zone.
    """

    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = 50
    actor: Text = ""
    action: Text = ""
    subject: Text = ""
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    @property
    def selection(self) -> AuditFilter:
        return AuditFilter(self.actor, self.action, self.subject, self.since, self.until)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. text: the bearer token, which only this answer shows."""

    key: ApiKey
    text: str = field(repr=False)


@dataclass(frozen=True)
class RouteGlance(RouteStatus):
    """A route's current state. waits_for_person: for an approval, or because its canary is
    paused or on hold.
    """

    waits_for_person: bool = False


@dataclass(frozen=True)
class AuditCheck:
    """The result of a check of the audit log's chain. first_break: the number of the first
    event that does not fit the chain; null for a whole chain.
    """

    whole: bool
    first_break: int | None


@endpoint(router, "GET", "/overview")
def overview(
    caller: CallerParam, query: Annotated[OverviewQuery, Query()]
) -> Page[RouteGlance]:
    """Lists the routes. Routes that wait for a person come first."""
    return route_queries.load_page(caller.ctx, query.page).map(
        lambda status: extend(RouteGlance, status, waits_for_person=status.needs_decision)
    )


@endpoint(router, "GET", "/policies")
def list_policies(caller: CallerParam) -> Page[Policy]:
    return json_answer(list(caller.ctx.policies.values()))


@endpoint(router, "POST", "/keys", status=201)
def create_key(caller: CallerParam, body: KeyBody) -> NewKey:
    """Creates a management key with a role, or a client key without a role. Needs an admin."""
    role = Role[body.role.upper()] if body.role else None
    key, text = keys.create_key(
        caller.ctx,
        caller.actor,
        body.name,
        secret=caller.secret,
        role=role,
        routes=body.routes,
        limits=body.limits.limits() if body.limits else None,
        opt_outs=body.opt_outs,
        principal=body.principal,
        service=body.service,
    )
    return NewKey(key, text)


@endpoint(router, "PUT", "/keys/{key}/limits")
def limit_key(
    caller: CallerParam,
    key: str,
    body: LimitsBody,
) -> ApiKey:
    """Replaces all limits of a client key; an omitted field sets no limit."""
    return keys.set_limits(caller.ctx, caller.actor, key, lambda _: body.limits())


@endpoint(router, "GET", "/audit")
def audit_tail(caller: CallerParam, query: Annotated[AuditQuery, Query()]) -> Page[AuditEvent]:
    """Lists the audit events, newest first. For single sign-on events, only an admin sees the
    server and the subject.
    """
    return queries.list_audit_events(
        caller.ctx, query.page, query.selection, reader=caller.actor
    )


@endpoint(router, "GET", "/audit/verify")
def verify_audit(caller: CallerParam) -> AuditCheck:
    first_break = queries.find_audit_break(caller.ctx)
    return AuditCheck(first_break is None, first_break)


alerts_router = APIRouter()


@endpoint(alerts_router, "GET", "/failovers")
def list_failovers(
    caller: CallerParam, query: Annotated[FailoverQuery, Query()]
) -> Page[Failover]:
    """Lists failovers, newest first, with hashed user ids and without content."""
    return queries.list_failovers(
        caller.ctx,
        query.page,
        secret=caller.secret,
        route=query.route,
        user=query.user,
        since=timedelta(seconds=query.since_s),
    )


@endpoint(router, "POST", "/people/{name}/declarations", status=201)
def declare_person(
    caller: CallerParam,
    name: str,
    body: DeclarationBody,
) -> PersonLink:
    """Declares that two principals are the same person, or that a principal is a person of its
    own. Needs an admin.
    """
    if body.person is None:
        return keys.separate_people(caller.ctx, caller.actor, name, body.reason)
    return keys.link_people(caller.ctx, caller.actor, name, body.person, body.reason)


captures_router = APIRouter()


add_endpoints(router, KEYS, PEOPLE)
add_endpoints(captures_router, CAPTURES, USERS)
operation(router, "GET /spending", "show_spending", load_report)
operation(
    alerts_router,
    "GET /alerts",
    "list_alerts",
    queries.list_alerts,
    AlertQuery,
)
operation(
    alerts_router,
    "POST /alerts/test",
    "test_alerts",
    alert_delivery.send_test,
)
