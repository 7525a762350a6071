"""Compiles a whole snapshot for serving, or raises SnapshotInvalid.

A revision with one faulty route is refused whole, and the last good one keeps serving. If
an addition cannot be used (a shadow, a judge, a grant), the module warns and leaves it out.
`holder` reads the database, and `route_plans` makes the plans.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from harness.frame.errors import SnapshotInvalid
from harness.gate.online.guardrails import CanaryJudge
from harness.providers.credential import ProviderKeySets, lacks_key
from harness.providers.force import KillSwitch
from harness.providers.kinds import (
    PROVIDER_KINDS,
    SERVED_KINDS,
    AnswerLimit,
    ProviderKind,
)
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Endpoint,
    OptionalFeature,
    Prefill,
    dropped_features,
    restrict_endpoints,
)
from harness.providers.models.model_ends import EndStatement
from harness.providers.target import (
    NO_DATA_CLASSES,
    DataClasses,
    Provider,
    SentTarget,
    Target,
    may_see,
)
from harness.providers.target_price import describe_missing
from harness.routing.agent import literal_route_name
from harness.routing.plan import KeepWarm, PlanContext, keep_warm_targets
from harness.routing.route_settings import RouteSettings
from harness.routing.table import Arm, Route, Snapshot, find_shadow_end
from router.conversation.intake import maker_of
from router.frame.replies import Header, encode_header_text
from router.protocols.endpoints import DIALECTS
from router.snapshot.compiled import (
    NO_KEYS,
    CompiledJudge,
    CompiledLiteral,
    CompiledRoute,
    CompiledShadow,
    CompiledSnapshot,
    CompiledTarget,
    PlainModel,
    feature_fields,
)
from router.snapshot.end_headers import NO_ENDS, Statements, build_end_headers
from router.snapshot.route_plans import build_plans, compile_overrides
from router.upstream.endpoint_translation import (
    TRANSLATIONS,
    UNTRANSLATABLE_FIELDS,
)

log = logging.getLogger(__name__)

UNPROVEN: Final[Header] = (b"x-swapproof-fallback", b"unproven")


def compile_snapshot(
    snapshot: Snapshot,
    standing: Sequence[KillSwitch] = (),
    keys: ProviderKeySets = NO_KEYS,
    classes: DataClasses = NO_DATA_CLASSES,
    ends: Statements = NO_ENDS,
) -> CompiledSnapshot:
    """Compiles a revision. Raises SnapshotInvalid, which names the route.

    Args:
        standing: this process's switches.
        keys: decrypted.
        classes: the configuration file's.
        ends: the statements about the ends of targets' models.
    """
    switches = (*standing, *snapshot.switches)
    routes = {
        name: _compile_route(
            snapshot, route, switches, keys, classes, ends.get(route.incumbent, ())
        )
        for name, route in snapshot.table.routes.items()
    }
    routes = {name: compile_overrides(route, routes, classes) for name, route in routes.items()}
    return CompiledSnapshot(
        snapshot=snapshot,
        routes=routes,
        tasks=_index_by_task(routes),
        provider_keys=keys,
        grants={grant.hash: grant for grant in snapshot.keys},
        budgeted=frozenset(
            grant.id for grant in snapshot.keys if grant.limits and grant.limits.budgeted
        ),
        keys_by_id={grant.id: grant for grant in snapshot.keys},
        literals=_compile_literals(snapshot, switches, keys, classes),
        keeps_responses=any(
            route.route.settings.responses_state_h for route in routes.values()
        ),
    )


def _index_by_task(routes: Mapping[str, CompiledRoute]) -> Mapping[bytes, CompiledRoute]:
    # If two routes have the same task, every worker gives it to the first route by name.
    return {
        route.route.settings.task.encode("utf-8", "surrogatepass"): route
        for _, route in sorted(routes.items(), reverse=True)
        if route.route.settings.task
    }


def provider_kinds(snapshot: Snapshot) -> frozenset[str]:
    """Returns the kinds of all providers that the revision may call, to prepare their
    translations.
    """
    targets = snapshot.table.targets
    called = [targets[id_] for route in snapshot.table.routes.values() for id_ in route.targets]
    called += [shadow.candidate for shadow in snapshot.shadows]
    called += [
        targets[grant.target] for grant in snapshot.agent_grants if grant.target in targets
    ]
    judges = [canary_judge(route) for route in snapshot.table.routes.values()]
    called += [Target.from_name(judge.model) for judge in judges if judge is not None]
    return frozenset(
        snapshot.providers[target.provider].kind
        for target in called
        if target.provider in snapshot.providers
    )


def _compile_route(
    snapshot: Snapshot,
    route: Route,
    switches: Sequence[KillSwitch],
    keys: ProviderKeySets,
    classes: DataClasses,
    incumbent_ends: Sequence[EndStatement] = (),
) -> CompiledRoute:
    """Compiles one route. Raises SnapshotInvalid if a target or its provider is missing."""
    revision = str(snapshot.table.revision).encode()
    break_glass_reasons = [route.break_glass.encode()] if route.break_glass is not None else []
    upstreams = {
        target: _compile_route_target(snapshot, route, target, keys) for target in route.targets
    }
    can = {id_: upstream.can for id_, upstream in upstreams.items()}
    keyless = frozenset(id_ for id_, upstream in upstreams.items() if upstream.keyless)
    barred = _find_barred(route, upstreams, classes)
    context = PlanContext(capabilities=can, keyless=keyless, barred=barred)
    keep_warm = KeepWarm(route.settings.keep_warm_bps, route.settings.side_effects)
    return CompiledRoute(
        route=route,
        json_name=json.dumps(route.name),
        plans=build_plans(route, context),
        upstreams=upstreams,
        capabilities=can,
        native=_find_native(upstreams),
        headers={
            arm: (
                (b"x-swapproof-route", encode_header_text(route.name)),
                (b"x-swapproof-arm", arm.value.encode()),
                (b"x-swapproof-revision", revision),
                *((b"x-swapproof-break-glass", reason) for reason in break_glass_reasons),
                *build_end_headers(incumbent_ends),
            )
            for arm in Arm
        },
        switches=tuple(switch for switch in switches if switch.route in (None, route.name)),
        targets={id_: upstream.target for id_, upstream in upstreams.items()},
        particular=any(
            upstream.provider.can(upstream.target.model) != UNKNOWN_CAPABILITIES
            for upstream in upstreams.values()
        ),
        prefills=_find_prefill_endpoints(can),
        warmed=_choose_warmed(route, keep_warm, upstreams, barred),
        keep_warm=keep_warm,
        shadow=_compile_shadow(snapshot, route, keys, classes),
        keyless=keyless,
        barred=barred,
        judge=_compile_judge(snapshot, route, keys, classes),
    )


def _compile_literals(
    snapshot: Snapshot,
    switches: Sequence[KillSwitch],
    keys: ProviderKeySets,
    classes: DataClasses,
) -> Mapping[str, CompiledLiteral]:
    """Compiles literal targets by grant id. A grant whose target cannot be called has no
    effect; the revision is still compiled.
    """
    routes: dict[tuple[str, str], CompiledRoute | None] = {}
    literals: dict[str, CompiledLiteral] = {}
    for grant in snapshot.agent_grants:
        key = grant.target, grant.data_class
        if key not in routes:
            try:
                route = _build_literal_route(snapshot, *key)
                routes[key] = _compile_route(snapshot, route, switches, keys, classes)
            except SnapshotInvalid as error:
                log.warning("grant %s has no effect: %s", grant.id, error)
                routes[key] = None
        if (compiled := routes[key]) is not None:
            literals[grant.id] = CompiledLiteral(grant, compiled)
    return literals


def _build_literal_route(
    snapshot: Snapshot,
    target_id: str,
    data_class: str,
) -> Route:
    """Raises SnapshotInvalid for a target that is missing in the snapshot."""
    target = snapshot.table.targets.get(target_id)
    if target is None:
        raise SnapshotInvalid(f"revision {snapshot.table.revision} has no target {target_id}")
    settings = RouteSettings(data_class=data_class)
    return Route(literal_route_name(target.name), 1, target_id, settings=settings)


def _find_barred(
    route: Route,
    upstreams: Mapping[str, CompiledTarget],
    classes: DataClasses,
) -> frozenset[str]:
    """Returns the targets that may not see the route's class of data, and warns of each."""
    data_class = route.settings.data_class
    targets = [
        upstream
        for upstream in upstreams.values()
        if not may_see(classes, data_class, upstream.provider.name)
    ]
    for target in targets:
        log.warning(
            "route %s sends no requests to %s: only the providers under data_classes.%s may "
            "see its traffic",
            route.name,
            target.name,
            data_class,
        )
    return frozenset(target.id for target in targets)


def _find_native(
    upstreams: Mapping[str, CompiledTarget],
) -> Mapping[Endpoint, Mapping[str, Capabilities]]:
    """Returns, by endpoint, the capabilities of the targets without their translations.

    Includes only endpoints that some targets translate and other targets do not: elsewhere
    the distinction changes no plan.
    """
    endpoints: dict[Endpoint, Mapping[str, Capabilities]] = {}
    for endpoint in UNTRANSLATABLE_FIELDS:
        other_endpoints = frozenset(Endpoint) - {endpoint}
        can = {
            id_: restrict_endpoints(upstream.can, other_endpoints)
            if endpoint in upstream.adapted
            else upstream.can
            for id_, upstream in upstreams.items()
        }
        if 0 < sum(endpoint in upstream.adapted for upstream in upstreams.values()) < len(can):
            endpoints[endpoint] = can
    return endpoints


def _find_prefill_endpoints(can: Mapping[str, Capabilities]) -> frozenset[Endpoint]:
    """Returns the endpoints at which the last turn's role matters to a request's plan."""
    prefills = {capabilities.prefill for capabilities in can.values()}
    # Without a field for it, an unknown server may continue the turn or begin a new one.
    matters = {
        Endpoint.CHAT: bool(prefills - {Prefill.UNKNOWN}),
        Endpoint.MESSAGES: not all(way.can_continue for way in prefills),
        Endpoint.RESPONSES: not all(way.can_begin_anew for way in prefills),
    }
    return frozenset(endpoint for endpoint, is_relevant in matters.items() if is_relevant)


def _compile_extra_target(
    snapshot: Snapshot,
    route: Route,
    target: Target,
    keys: ProviderKeySets,
    classes: DataClasses,
) -> tuple[CompiledTarget | None, str]:
    """Compiles a target besides the route's own targets, such as a judge. If the target cannot
    be asked, returns None and the reason, and the revision is still compiled.
    """
    try:
        upstream = _compile_target(snapshot, route, target, keys)
    except SnapshotInvalid as error:
        return None, str(error)
    if not may_see(classes, route.settings.data_class, upstream.provider.name):
        return None, f"{upstream.name} may not see the route's class of data"
    if upstream.keyless:
        return None, f"{upstream.name} has no key"
    return upstream, ""


def _compile_shadow(
    snapshot: Snapshot,
    route: Route,
    keys: ProviderKeySets,
    classes: DataClasses,
) -> CompiledShadow | None:
    for shadow in snapshot.shadows:
        if shadow.route == route.name and not find_shadow_end(shadow, route):
            upstream, reason = _compile_extra_target(
                snapshot,
                route,
                shadow.candidate,
                keys,
                classes,
            )
            if upstream is not None:
                return CompiledShadow(shadow, upstream)
            log.warning("shadow %s mirrors no request: %s", shadow.id, reason)
    return None


def canary_judge(route: Route) -> CanaryJudge | None:
    return route.experiment.unit_rule.judge if route.experiment else None


def _compile_judge(
    snapshot: Snapshot,
    route: Route,
    keys: ProviderKeySets,
    classes: DataClasses,
) -> CompiledJudge | None:
    """Compiles the judge of the route's live rollout; None, with a warning, if it cannot be
    asked.

    A judge without a price is refused, because its budget could not be kept.
    """
    judge = canary_judge(route)
    if judge is None:
        return None
    target = Target.from_name(judge.model)
    upstream, reason = _compile_extra_target(
        snapshot,
        route,
        target,
        keys,
        classes,
    )
    if upstream is not None and upstream.price is None:
        reason = describe_missing(upstream.name, effect=", so max_usd cannot limit its cost")
    elif upstream is not None and not upstream.can.chat:
        reason = f"{upstream.name} does not serve chats"
    if upstream is not None and not reason:
        return CompiledJudge(judge, upstream)
    log.warning("route %s: no judge compares its canary: %s", route.name, reason)
    return None


def _choose_warmed(
    route: Route,
    keep_warm: KeepWarm,
    upstreams: Mapping[str, CompiledTarget],
    barred: frozenset[str],
) -> tuple[str, ...]:
    """Returns the fallbacks that a share of the requests keeps warm.

    There are none if the route's tools have side effects.
    """
    if keep_warm.side_effects or not keep_warm.share_bps:
        return ()
    targets = keep_warm_targets(
        route,
        {id_: upstream.provider.name for id_, upstream in upstreams.items()},
    )
    return tuple(id_ for id_ in targets if id_ not in barred)


def _compile_route_target(
    snapshot: Snapshot,
    route: Route,
    target_id: str,
    keys: ProviderKeySets,
) -> CompiledTarget:
    target = snapshot.table.targets.get(target_id)
    if target is None:
        raise SnapshotInvalid(
            f"route {route.name!r} names target {target_id}, which revision "
            f"{snapshot.table.revision} does not have; the last good revision keeps serving"
        )
    return _compile_target(snapshot, route, target, keys)


def _compile_target(
    snapshot: Snapshot,
    route: Route,
    target: Target,
    keys: ProviderKeySets,
) -> CompiledTarget:
    provider = snapshot.providers.get(target.provider)
    if provider is None:
        raise SnapshotInvalid(
            f"route {route.name!r}: target {target.name} needs provider "
            f"{target.provider!r}, which is not configured; add it under `providers`"
        )
    if provider.kind not in SERVED_KINDS:
        raise SnapshotInvalid(
            f"route {route.name!r}: provider {provider.name!r} is of kind {provider.kind!r}; "
            f"this router speaks {', '.join(sorted(SERVED_KINDS))}"
        )
    can = _restrict_capabilities(target, provider)
    kind = PROVIDER_KINDS[provider.kind]
    adapted = kind.translates(provider.can(target.model))
    provider_keys = tuple(keys.get(provider.name, ()))
    stored_before = any(key.provider == provider.name for key in snapshot.stored_keys)
    sent = provider.as_sent(target)
    lacks = {
        endpoint: dropped_features(
            can,
            endpoint,
            translated=endpoint in adapted,
            cache_marks=kind.cache_marks,
        )
        for endpoint in Endpoint
    }
    return CompiledTarget(
        target=target,
        sent=sent,
        id=target.id,
        name=target.name,
        provider=provider,
        price=provider.prices.get(target.model),
        headers=_name_target(route, target),
        can=can,
        lacks=lacks,
        plain_models=_find_plain_models(sent, kind, lacks),
        keys=provider_keys,
        keyless=lacks_key(provider, provider_keys, stored_before=stored_before),
        maker=maker_of(target),
        adapted=adapted,
        bridged=frozenset(DIALECTS[name].path for name in adapted & TRANSLATIONS.keys()),
    )


def _name_target(route: Route, target: Target) -> tuple[Header, ...]:
    """Returns the headers that name the target, and a fallback without proof."""
    name = (b"x-swapproof-target", encode_header_text(target.name))
    return (name, UNPROVEN) if route.is_unproven(target.id) else (name,)


def _find_plain_models(
    sent: SentTarget,
    kind: ProviderKind,
    lacks: Mapping[Endpoint, Collection[OptionalFeature]],
) -> Mapping[Endpoint, PlainModel]:
    """Returns the endpoints at which replacing the model can be enough; empty if the target
    has a patch or parameters.
    """
    if sent.parameters or not sent.request_patch.empty:
        return {}
    name = json.dumps(sent.model)
    plain: dict[Endpoint, PlainModel] = {}
    for endpoint in Endpoint:
        blocking_members = feature_fields(endpoint, lacks[endpoint])
        if endpoint is Endpoint.CHAT and kind.answer_limit is not None:
            blocking_members |= {
                limit.value for limit in AnswerLimit if limit is not kind.answer_limit
            }
        is_unmarked = OptionalFeature.CACHING in lacks[endpoint]
        plain[endpoint] = PlainModel(
            name, blocking_members, is_unmarked, bool(blocking_members) or is_unmarked
        )
    return plain


def _restrict_capabilities(target: Target, provider: Provider) -> Capabilities:
    """Returns the target's capabilities: without the endpoint Messages if its patch has a
    `response_format`. The target was measured with that field, which Messages does not have.
    """
    kind = PROVIDER_KINDS[provider.kind]
    can = provider.abilities(target.model)
    endpoints = kind.serves_of(can)
    if target.request_patch.response_format:
        endpoints -= {Endpoint.MESSAGES}
    return restrict_endpoints(can, endpoints, kind.translates(can))
