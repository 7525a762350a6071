"""Endpoints for models (targets: add, find by name, which end soon), routes (create, change,
history, fallbacks, rollback, figures), freezes, break-glass and the kill switch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.frame.endpoint import BodyFactory, CallerParam, PathPart, endpoint, operation
from harness.api.frame.error_status import extend, json_answer
from harness.api.frame.request_fields import ModelBody, NameQuery, OverruleBody, PageQuery
from harness.api.frame.route_fields import (
    BreakGlassBody,
    ChainBody,
    FreezeBody,
    RollbackBody,
    RouteBody,
    SettingsBody,
    SwitchBody,
    VersionsQuery,
)
from harness.control.operations import queries
from harness.control.providers import deprecations, discovery, model_lookup
from harness.control.routing import break_glass as broken
from harness.control.routing import (
    fallback_chain,
    freezes,
    kill_switch,
    routes,
    scorecard,
    targets,
)
from harness.control.routing.fallback_chain import ChainEntry
from harness.domain.pagination import Page
from harness.domain.routing.evidence import BreakGlass
from harness.domain.routing.freeze import Freeze, FreezeRecord
from harness.domain.routing.kill_switch import (
    KillSwitch,
    SwitchRecord,
    SwitchSource,
    parse_force,
)
from harness.domain.routing.table import Route, RouteSettings
from harness.domain.routing.target import Target

router = APIRouter()


@dataclass(frozen=True)
class TargetSwap:
    before: str
    after: str


@dataclass(frozen=True)
class AddedTarget(Target):
    """A target that was just added."""

    unlisted: str = ""  # that its provider does not list the model; empty where it does


@dataclass(frozen=True)
class RouteDiff:
    """Describes what differs between two versions of a route, by field."""

    route: str
    older: int
    newer: int
    changes: Mapping[str, TargetSwap]


@endpoint(router, "GET", "/models")
def list_models(who: CallerParam, piece: PathPart) -> Page[Target]:
    return who.ctx.store.lists.targets(piece.page)


@endpoint(router, "POST", "/models", status=201)
def add_model(who: BodyFactory, body: ModelBody) -> AddedTarget:
    """Adding the same content again changes nothing: its id is the hash of its content.

    A gateway, a server of one's own or a simulator is asked which models it has, unless
    `discover` is false.
    """
    added = targets.add_target(who.ctx, who.actor, body.seed())
    unlisted = discovery.describe_unlisted(who.ctx, who.actor, added) if body.discover else ""
    return extend(AddedTarget, added, unlisted=unlisted)


@endpoint(router, "GET", "/routes")
def list_routes(who: CallerParam, piece: PathPart) -> Page[Route]:
    return who.ctx.store.lists.routes(piece.page)


@endpoint(router, "POST", "/routes", status=201)
def create_route(who: BodyFactory, body: RouteBody) -> Route:
    """A new route; the models that it starts with are its baseline. Needs an admin."""
    return routes.create_route(
        who.ctx,
        who.actor,
        body.name,
        body.incumbent,
        fallbacks=[entry.target for entry in body.chain],
        capable=[entry.target for entry in body.chain if entry.capable],
        settings=body.over(RouteSettings()),
    )


@endpoint(router, "GET", "/routes/{route}/diff")
def route_diff(
    who: CallerParam, route: str, versions: Annotated[VersionsQuery, Query()]
) -> RouteDiff:
    newer = queries.load_route_version(who.ctx, route, versions.newer)
    before = versions.older or max(newer.route.version - 1, 1)
    older = queries.load_route_version(who.ctx, route, before)
    difference = routes.describe_difference(older, newer)
    changes = {
        field: TargetSwap(before, after) for field, (before, after) in difference.items()
    }
    return RouteDiff(route, older.route.version, newer.route.version, changes)


@endpoint(router, "PATCH", "/routes/{route}")
def change_route(who: CallerParam, route: str, body: SettingsBody) -> Route:
    """Changes a route's settings and keeps its models. Needs an admin."""
    return routes.change_settings(
        who.ctx, who.actor, route, body.over, reason=body.reason or ""
    )


@endpoint(router, "PUT", "/routes/{route}/fallbacks")
def put_fallbacks(who: CallerParam, route: str, body: ChainBody) -> Page[ChainEntry]:
    """Replace the chain. Needs an admin, and for a new model evidence or a waiver."""
    wanted = [fallback.wanted for fallback in body.fallbacks]
    fallback_chain.replace_chain(who.ctx, who.actor, route, wanted, reason=body.reason)
    return json_answer(fallback_chain.list_fallbacks(who.ctx, route))


switches_router = APIRouter()


@endpoint(switches_router, "GET", "/switches")
def list_switches(who: CallerParam, piece: PathPart) -> Page[SwitchRecord]:
    """Lists the kill switches, newest first, with the lifted and expired ones."""
    return who.ctx.store.lists.switches(piece.page)


@endpoint(switches_router, "POST", "/switches", status=201)
def throw_switch(who: BodyFactory, body: SwitchBody) -> KillSwitch:
    """Throws a kill switch on every router within two seconds. Needs an approver, and no
    proof.
    """
    lasts = None if body.for_s is None else timedelta(seconds=body.for_s)
    wanted = kill_switch.SwitchRequest(parse_force(body.force), body.reason, body.route, lasts)
    return kill_switch.throw_switch(who.ctx, who.actor, wanted, source=SwitchSource.REST)


freezes_router = APIRouter()


@endpoint(freezes_router, "GET", "/freezes")
def list_freezes(who: CallerParam, piece: PathPart) -> Page[FreezeRecord]:
    """Lists the freezes that people set, newest first, with the lifted and past ones."""
    return who.ctx.store.lists.freezes(piece.page)


@endpoint(freezes_router, "POST", "/freezes", status=201)
def add_freeze(who: BodyFactory, body: FreezeBody) -> Freeze:
    """Freezes a route, or all: no canary opens, advances or is promoted. Needs an approver."""
    wanted = freezes.FreezeRequest(body.route, body.ends_at, body.reason, body.starts_at)
    return freezes.add_freeze(who.ctx, who.actor, wanted)


break_glasses_router = APIRouter()


@endpoint(break_glasses_router, "GET", "/break-glass")
def list_break_glasses(who: CallerParam, piece: PathPart) -> Page[BreakGlass]:
    """Lists who served without proof, by whose word, newest first."""
    return who.ctx.store.lists.break_glasses(piece.page)


@endpoint(break_glasses_router, "POST", "/break-glass", status=201)
def propose_break_glass(who: BodyFactory, body: BreakGlassBody) -> BreakGlass:
    """Asks that a target serve without proof; a second person confirms it within an hour."""
    wanted = broken.BreakGlassRequest(
        body.route, body.target, body.reason, timedelta(seconds=body.for_s), body.through_freeze
    )
    return broken.propose_break_glass(who.ctx, who.actor, wanted)


operation(router, "GET /models/resolve", "resolve_model", model_lookup.resolve_model, NameQuery)
operation(router, "GET /models/ending", "list_endings", deprecations.list_deprecations)
operation(router, "GET /models/match", "match_model", model_lookup.match_model, NameQuery)
operation(router, "GET /models/{model:path}", "get_model", queries.find_target)
operation(router, "GET /routes/{route}", "get_route", queries.find_route)
operation(
    router,
    "GET /routes/{route}/history",
    "route_history",
    queries.list_route_versions,
    PageQuery,
)
operation(router, "GET /routes/{route}/measured", "route_measured", scorecard.build_scorecard)
operation(
    router, "GET /routes/{route}/fallbacks", "list_fallbacks", fallback_chain.list_fallbacks
)
operation(
    switches_router,
    "POST /switches/{switch}/lift",
    "lift_switch",
    kill_switch.lift_switch,
    OverruleBody,
)
operation(
    freezes_router,
    "POST /freezes/{freeze}/lift",
    "lift_freeze",
    freezes.lift_freeze,
    OverruleBody,
)
operation(
    router, "POST /routes/{route}/rollback", "roll_back_route", routes.roll_back, RollbackBody
)
GLASS = "/break-glass/{glass}"
operation(
    break_glasses_router,
    f"POST {GLASS}/confirm",
    "confirm_break_glass",
    broken.confirm_break_glass,
)
operation(
    break_glasses_router,
    f"POST {GLASS}/end",
    "end_break_glass",
    broken.end_break_glass,
    OverruleBody,
)
