"""Endpoints for models (targets) and routes."""

# ruff: noqa: RUF012 - pydantic copies a default for each request

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from harness.canary import operations
from harness.frame.configuration.setting_values import change_settings
from harness.frame.pagination import Page
from harness.frame.plain_data import to_shown
from harness.gate.suite_plan import SuiteRole
from harness.interfaces.api.frame.endpoint import (
    Body,
    CallerParam,
    Count,
    Json,
    Name,
    PageParam,
    PageQuery,
    Text,
    endpoint,
    operation,
)
from harness.interfaces.api.frame.error_status import extend, json_answer
from harness.interfaces.api.frame.operation_endpoint import add_endpoints
from harness.interfaces.api.frame.setting_fields import settings_body
from harness.operations import queries
from harness.proposals import fallback_chain
from harness.proposals.candidates import candidate_rounds, leaderboard
from harness.proposals.candidates.candidate_rounds import RouteWithFaults
from harness.proposals.fallback_chain import (
    ChainEntry,
    FallbackRequest,
    WaiverRequest,
)
from harness.proposals.operations import FALLBACKS
from harness.providers.registry import named_models, targets
from harness.providers.target import RequestPatch, Target
from harness.routing.candidate_schedule import CandidateSchedule
from harness.routing.control import deprecations, routes
from harness.routing.reports import scorecard
from harness.routing.route_settings import RouteSettings, RouteSuite
from harness.routing.table import Route

router = APIRouter()


class NameQuery(Body):
    """A model's name, in any common spelling."""

    name: Name


class PatchBody(Body):
    """Changes to a client's request before the router sends it to this model."""

    parameters: Json = {}
    prompt_addendum: Text = ""
    response_format: Json | None = None


class ModelBody(Body):
    provider: Name
    model: Name
    parameters: Json = {}
    request_patch: PatchBody = PatchBody()
    discover: bool = True  # whether to ask the provider for its list of models

    def to_target(self) -> Target:
        patch = self.request_patch
        return Target(
            self.provider,
            self.model,
            self.parameters,
            RequestPatch(
                patch.parameters,
                patch.prompt_addendum,
                patch.response_format,
            ),
        )


if TYPE_CHECKING:

    class SuiteWeightFields(Body):
        weight: float
else:
    SuiteWeightFields = settings_body(RouteSuite, whole=True)


class SuiteBody(SuiteWeightFields):
    suite: Name
    role: SuiteRole = SuiteRole.PRIMARY


class FallbackBody(Body):
    """A fallback of a route. target: an id or `provider/model`. capable: good enough for a
    route of high stakes.
    """

    target: Name
    capable: bool = False


if TYPE_CHECKING:
    PlainFields = Body
else:
    PlainFields = settings_body(RouteSettings)


class RouteFields(PlainFields):
    """The settings of a route. An omitted field keeps its value; a new route gets the default.
    overrides: all overrides by kind, trait or header; {} for none. keep_warm_bps: 1 % is 100.
    responses_state_h: hours to keep Responses answers for later references; 0 for off.

    first_token_timeout_s, first_byte_timeout_s: 0 removes the route's own limit, so that the
    model's or the router's applies. candidates: an empty list of models removes the schedule.
    """

    suites: Annotated[list[SuiteBody], Field(max_length=20)] | None = None
    overrides: dict[Name, Name] | None = None
    candidates: CandidateSchedule | None = None

    def apply_to(self, settings: RouteSettings) -> RouteSettings:
        fields = ((name, getattr(self, name)) for name in RouteFields.model_fields)
        changes = {name: value for name, value in fields if value is not None}
        if self.suites is not None:
            suites = ((body.suite, body.role, body.weight) for body in self.suites)
            changes["suites"] = tuple(RouteSuite(*suite) for suite in suites)
        if self.candidates is not None and not self.candidates.models:
            changes["candidates"] = None
        return change_settings(settings, changes)


class SettingsBody(RouteFields):
    """A route's settings to change. reason: required to change the policy."""

    reason: Text | None = None


def _document_defaults(schema: dict[str, Any]) -> None:
    defaults = to_shown(RouteSettings())
    assert isinstance(defaults, dict)  # noqa: S101 - a dataclass becomes a dict
    for name in RouteFields.model_fields:
        if defaults[name] != {}:  # client generators refuse an object as a default
            schema["properties"][name]["default"] = defaults[name]


class RouteBody(RouteFields):
    """A new route. incumbent, fallbacks: ids or `provider/model`."""

    model_config = ConfigDict(json_schema_extra=_document_defaults)

    name: Name
    incumbent: Name
    fallbacks: Annotated[list[Name | FallbackBody], Field(max_length=20)] = []

    @property
    def chain(self) -> list[FallbackBody]:
        return [
            FallbackBody(target=fallback) if isinstance(fallback, str) else fallback
            for fallback in self.fallbacks
        ]


class WaiverBody(Body):
    """A waiver of a target's proof. for_s: how long it is valid, up to 90 days."""

    reason: Text
    for_s: Annotated[float, Field(gt=0, le=7_776_000)]


class LinkBody(FallbackBody):
    """A fallback of a chain. waiver: required without a passed verdict on this route."""

    waiver: WaiverBody | None = None

    @property
    def request(self) -> FallbackRequest:
        waiver = self.waiver
        waiver_request = (
            WaiverRequest(waiver.reason, timedelta(seconds=waiver.for_s)) if waiver else None
        )
        return FallbackRequest(self.target, self.capable, waiver_request)


class ChainBody(Body):
    """A route's whole chain, in order."""

    fallbacks: Annotated[list[LinkBody], Field(max_length=20)]
    reason: Text


class RollbackBody(Body):
    """A rollback to a former incumbent. to_version: the route's version to restore; null for
    the incumbent before the current one. force: restore a model that cannot serve. version: the
    route's version that the person saw; Swapproof refuses the rollback if the route has another
    version now.
    """

    reason: Text
    force: bool = False
    to_version: Count | None = None
    expected_version: Annotated[Count | None, Field(alias="version")] = None


class VersionsQuery(Body):
    """Two versions of a route. to: by default the newest version. from: by default the version
    before `to`.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    older: Annotated[Count | None, Field(alias="from")] = None
    newer: Annotated[Count | None, Field(alias="to")] = None


@dataclass(frozen=True)
class TargetSwap:
    before: str
    after: str


@dataclass(frozen=True)
class AddedTarget(Target):
    """A target that was just added."""

    unlisted: str = ""  # a note, if the provider does not list the model


@dataclass(frozen=True)
class RouteDiff:
    """The differences between two versions of a route, by field."""

    route: str
    older: int
    newer: int
    changes: Mapping[str, TargetSwap]


@endpoint(router, "GET", "/models")
def list_models(caller: CallerParam, query: PageParam) -> Page[Target]:
    return caller.ctx.store.lists.targets(query.page)


@endpoint(router, "POST", "/models", status=201)
def add_model(caller: CallerParam, body: ModelBody) -> AddedTarget:
    """Adds a model. Adding the same content again changes nothing, because a model's id is the
    hash of its content. Unless `discover` is false, Swapproof asks a gateway, a self-hosted
    server or a simulator for its list of models.
    """
    added = targets.add_target(caller.ctx, caller.actor, body.to_target())
    unlisted = (
        named_models.describe_unlisted(caller.ctx, caller.actor, added) if body.discover else ""
    )
    return extend(AddedTarget, added, unlisted=unlisted)


@endpoint(router, "GET", "/routes")
def list_routes(caller: CallerParam, query: PageParam) -> Page[Route]:
    return caller.ctx.store.lists.routes(query.page)


@endpoint(router, "POST", "/routes", status=201)
def create_route(caller: CallerParam, body: RouteBody) -> RouteWithFaults:
    """Creates a route, whose first models are its baseline. Needs an admin. faults: problems of
    its candidate schedule.
    """
    new_route = routes.create_route(
        caller.ctx,
        caller.actor,
        body.name,
        body.incumbent,
        fallbacks=[entry.target for entry in body.chain],
        capable=[entry.target for entry in body.chain if entry.capable],
        settings=body.apply_to(RouteSettings()),
    )
    return candidate_rounds.add_schedule_faults(caller.ctx, new_route)


@endpoint(router, "GET", "/routes/{route}/diff")
def route_diff(
    caller: CallerParam,
    route: str,
    versions: Annotated[VersionsQuery, Query()],
) -> RouteDiff:
    newer = queries.load_route_version(caller.ctx, route, versions.newer)
    before = versions.older or max(newer.route.version - 1, 1)
    older = queries.load_route_version(caller.ctx, route, before)
    difference = routes.describe_difference(older.route, newer.route)
    changes = {
        field: TargetSwap(before, after) for field, (before, after) in difference.items()
    }
    return RouteDiff(route, older.route.version, newer.route.version, changes)


@endpoint(router, "PATCH", "/routes/{route}")
def change_route(
    caller: CallerParam,
    route: str,
    body: SettingsBody,
) -> RouteWithFaults:
    """Changes a route's settings, but not its models. Needs an admin. faults: problems of its
    candidate schedule.
    """
    changed_route = routes.change_settings(
        caller.ctx, caller.actor, route, body.apply_to, reason=body.reason or ""
    )
    return candidate_rounds.add_schedule_faults(caller.ctx, changed_route)


@endpoint(router, "PUT", "/routes/{route}/fallbacks")
def put_fallbacks(
    caller: CallerParam,
    route: str,
    body: ChainBody,
) -> Page[ChainEntry]:
    """Replaces the chain. Needs an admin, and for each new model evidence or a waiver."""
    chain = [fallback.request for fallback in body.fallbacks]
    fallback_chain.replace_chain(caller.ctx, caller.actor, route, chain, reason=body.reason)
    return json_answer(fallback_chain.list_fallbacks(caller.ctx, route))


operation(
    router,
    "GET /models/resolve",
    "resolve_model",
    named_models.explain_name,
    NameQuery,
)
operation(
    router,
    "GET /models/ending",
    "list_endings",
    deprecations.list_deprecations,
)
operation(
    router,
    "GET /models/match",
    "match_model",
    named_models.explain_name,
    NameQuery,
)
operation(router, "GET /models/{model:path}", "get_model", queries.find_target)
operation(router, "GET /routes/{route}", "get_route", queries.find_route)
operation(
    router,
    "GET /routes/{route}/history",
    "route_history",
    queries.list_route_versions,
    PageQuery,
)
operation(
    router,
    "GET /routes/{route}/candidates",
    "list_candidates",
    leaderboard.load_leaderboard,
)
operation(
    router,
    "GET /routes/{route}/measured",
    "route_measured",
    scorecard.build_scorecard,
)
operation(
    router,
    "POST /routes/{route}/rollback",
    "roll_back_route",
    operations.roll_back,
    RollbackBody,
)
add_endpoints(router, FALLBACKS)
