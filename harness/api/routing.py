"""Endpoints for models (targets: add, find by name, which end soon), routes (create, change,
history, fallbacks, rollback, figures), freezes, break-glass and the kill switch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.frame.endpoint import BodyFactory, CallerParam, PathPart, endpoint
from harness.api.frame.json_answers import extend, json_answer
from harness.api.frame.request_fields import ModelBody, NameQuery, OverruleBody
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
from harness.control.routing.scorecard import RouteScorecard
from harness.domain.pagination import Page
from harness.domain.providers.deprecations import Deprecation
from harness.domain.providers.model_match import ModelMatch
from harness.domain.providers.name_resolution import Resolution
from harness.domain.routing.evidence import BreakGlass
from harness.domain.routing.freeze import Freeze, FreezeRecord
from harness.domain.routing.kill_switch import (
    KillSwitch,
    SwitchRecord,
    SwitchSource,
    parse_force,
)
from harness.domain.routing.route_history import RouteRecord
from harness.domain.routing.table import Route
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


@endpoint(router, "GET", "/models/resolve")
def resolve_model(who: CallerParam, query: Annotated[NameQuery, Query()]) -> Resolution:
    """Shows which provider takes a model's name: each rule that was tried, and why or why
    not.
    """
    return model_lookup.resolve_model(who.ctx, query.name)


@endpoint(router, "GET", "/models/ending")
def list_endings(who: CallerParam) -> Page[Deprecation]:
    """Models in use that end within 90 days, or have ended, with a proposed successor."""
    return json_answer(deprecations.list_deprecations(who.ctx))


@endpoint(router, "GET", "/models/match")
def match_model(who: CallerParam, query: Annotated[NameQuery, Query()]) -> ModelMatch:
    """The model that a loose name means, or those that it may mean: nothing is guessed."""
    return model_lookup.match_model(who.ctx, query.name)


@endpoint(router, "GET", "/models/{model:path}")
def get_model(who: CallerParam, model: str) -> Target:
    """Finds a model by id or `provider/model`."""
    return queries.find_target(who.ctx, model)


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
        settings=body.settings(),
    )


@endpoint(router, "GET", "/routes/{route}")
def get_route(who: CallerParam, route: str) -> Route:
    return queries.find_route(who.ctx, route)


@endpoint(router, "GET", "/routes/{route}/history")
def route_history(who: CallerParam, route: str, piece: PathPart) -> Page[RouteRecord]:
    """Lists every stored version of a route, newest first: who changed what, with which
    proof.
    """
    return queries.list_route_versions(who.ctx, route, piece.page)


@endpoint(router, "GET", "/routes/{route}/measured")
def route_measured(who: CallerParam, route: str) -> RouteScorecard:
    """Shows the newest scores of a route's model, its cost and failures in 30 days, and its
    latency in a day.
    """
    return scorecard.build_scorecard(who.ctx, route)


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


@endpoint(router, "GET", "/routes/{route}/fallbacks")
def list_fallbacks(who: CallerParam, route: str) -> Page[ChainEntry]:
    """Lists the chain, in order, with the evidence of each: baseline, verdict or waiver."""
    return json_answer(fallback_chain.list_fallbacks(who.ctx, route))


@endpoint(router, "PUT", "/routes/{route}/fallbacks")
def put_fallbacks(who: CallerParam, route: str, body: ChainBody) -> Page[ChainEntry]:
    """Replace the chain. Needs an admin, and for a new model evidence or a waiver."""
    wanted = [fallback.wanted for fallback in body.fallbacks]
    fallback_chain.replace_chain(who.ctx, who.actor, route, wanted, reason=body.reason)
    return json_answer(fallback_chain.list_fallbacks(who.ctx, route))


@endpoint(router, "POST", "/routes/{route}/rollback")
def roll_back_route(who: CallerParam, route: str, body: RollbackBody) -> Route:
    """Bring a former incumbent back. A live canary ends. Needs an approver, and no proof."""
    return routes.roll_back(
        who.ctx,
        who.actor,
        route,
        to_version=body.to_version,
        reason=body.reason,
        expected_version=body.version,
    )


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


@endpoint(switches_router, "POST", "/switches/{switch}/lift")
def lift_switch(who: CallerParam, switch: str, body: OverruleBody) -> SwitchRecord:
    """Lifts a kill switch within two seconds. Lifting it again changes nothing."""
    return kill_switch.lift_switch(who.ctx, who.actor, switch, reason=body.reason)


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


@endpoint(freezes_router, "POST", "/freezes/{freeze}/lift")
def lift_freeze(who: CallerParam, freeze: str, body: OverruleBody) -> FreezeRecord:
    """Ends a freeze before its time. Needs an approver who proposed nothing that it holds."""
    return freezes.lift_freeze(who.ctx, who.actor, freeze, reason=body.reason)


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


@endpoint(break_glasses_router, "POST", "/break-glass/{glass}/confirm")
def confirm_break_glass(who: CallerParam, glass: str) -> BreakGlass:
    """Lets the target serve, as the second person, an admin. Who asked for it may not."""
    return broken.confirm_break_glass(who.ctx, who.actor, glass)


@endpoint(break_glasses_router, "POST", "/break-glass/{glass}/end")
def end_break_glass(who: CallerParam, glass: str, body: OverruleBody) -> BreakGlass:
    """Ends it before its time: the former incumbent returns. One person is enough."""
    return broken.end_break_glass(who.ctx, who.actor, glass, reason=body.reason)
