"""One immutable revision of the routing table, with everything one look-up away."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from harness.frame.suggestions import did_you_mean
from harness.gate.online.guardrails import CanaryJudge, Guardrail
from harness.gate.online.observation import OTHER_NAMES
from harness.providers.credential import ProviderKey, ProviderKeySets
from harness.providers.force import KillSwitch
from harness.providers.models.capabilities import Capabilities, Endpoint, OptionalFeature
from harness.providers.target import Price, Provider, Target
from harness.routing.agent import AgentGrant
from harness.routing.keep_warm import KeepWarm
from harness.routing.overrides import RequestKind
from harness.routing.plan import RoutePlan
from harness.routing.route_changes import spell_route_name
from harness.routing.shadow import Shadow
from harness.routing.table import Arm, Canary, KeyGrant, Route, Snapshot
from router.frame.bounded_map import BoundedMap
from router.frame.replies import Header

_VALIDITY: Final = frozenset({Guardrail.JSON_VALIDITY, Guardrail.TOOL_VALIDITY})
# Of what a provider is to keep in its cache, anywhere in a request.
CACHE_MARK: Final = '"cache_control"'
_EVERYWHERE: Final[Mapping[OptionalFeature, tuple[str, ...]]] = {
    OptionalFeature.SEED: ("seed",),
    OptionalFeature.LOGPROBS: ("logprobs", "top_logprobs"),
    OptionalFeature.REASONING: ("reasoning_effort", "reasoning"),
    OptionalFeature.CACHING: ("prompt_cache_key", "prompt_cache_retention"),
    OptionalFeature.SERVICE_TIER: ("service_tier",),
    OptionalFeature.TOP_K: ("top_k",),
}
OPTIONAL_FIELDS: Final[Mapping[Endpoint, Mapping[OptionalFeature, tuple[str, ...]]]] = {
    Endpoint.CHAT: _EVERYWHERE,
    Endpoint.RESPONSES: _EVERYWHERE,
    Endpoint.MESSAGES: {
        **_EVERYWHERE,
        OptionalFeature.REASONING: ("thinking", "reasoning_effort"),
    },
    Endpoint.EMBEDDINGS: {},
}
RequestMembers = Mapping[str, object]
NO_KEYS: Final[ProviderKeySets] = {}


class PlainModel(NamedTuple):
    json_name: str
    without: frozenset[str]  # names of members; with one of them, more is to change
    is_unmarked: bool  # so it is with a cache mark
    is_choosy: bool  # one of both

    def suits(self, request: RequestMembers, text: str) -> bool:
        """Tells whether nothing else changes in a request that may call tools in parallel."""
        return self.without.isdisjoint(request) and not (
            self.is_unmarked and CACHE_MARK in text
        )


@dataclass(frozen=True, slots=True)
class CompiledTarget:
    """A target, as it is sent to, with its provider."""

    target: Target
    id: str
    name: str
    provider: Provider
    price: Price | None  # None when unknown
    header: Header  # x-swapgate-target
    # What its provider's configuration says of its model, of that what its kind serves.
    can: Capabilities
    # By endpoint, the hints that it does not get.
    lacks: Mapping[Endpoint, frozenset[OptionalFeature]]
    # By endpoint, without those where a request is always rewritten.
    plain_models: Mapping[Endpoint, PlainModel] = field(default_factory=dict)
    keys: tuple[ProviderKey, ...] = ()  # of the provider, in order
    keyless: bool = False  # it wants a key and has none
    maker: str = ""  # of what it signs, as `router.conversation.intake` names it

    adapted: frozenset[Endpoint] = frozenset()  # endpoints that it answers by a translation
    bridged: frozenset[str] = frozenset()  # the paths of those of them that become a chat


@dataclass(frozen=True, slots=True)
class CompiledShadow:
    shadow: Shadow
    upstream: CompiledTarget


@dataclass(frozen=True, slots=True)
class CompiledJudge:
    """Holds the judge that reads a sample of a live rollout's answers."""

    judge: CanaryJudge
    upstream: CompiledTarget


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """Holds a route with all that a request of it needs."""

    route: Route
    json_name: str  # as a JSON string, for replies
    # By endpoint, per arm, when every target is well and no switch is in force.
    plans: Mapping[Endpoint, Mapping[Arm, RoutePlan]]
    upstreams: Mapping[str, CompiledTarget]  # upstreams, capabilities: by target id
    capabilities: Mapping[str, Capabilities]
    # By endpoint, capabilities of what no translation can say; without endpoints that all
    # targets translate, or none.
    native: Mapping[Endpoint, Mapping[str, Capabilities]]
    headers: Mapping[Arm, tuple[Header, ...]]
    switches: tuple[KillSwitch, ...]  # kill switches about this route, whether expired or not
    targets: Mapping[str, Target]  # by id
    particular: bool  # something is configured about what one of its models can do
    # Target ids that a share of its requests, as keep_warm says, keeps warm; empty when it is
    # off.
    warmed: tuple[str, ...]
    keep_warm: KeepWarm
    shadow: CompiledShadow | None = None  # who gets a copy of its requests
    keyless: frozenset[str] = frozenset()  # target ids whose providers want a key and have none
    # Those whose providers may not see its class of data (D8): nothing of it goes there,
    # whatever else is said.
    barred: frozenset[str] = frozenset()
    # By kind of request, the route that answers it, as it is for those who asked this one; that
    # has none of its own, so that an override is followed once.
    overrides: Mapping[RequestKind, "CompiledRoute"] = field(default_factory=dict)
    # Of its live rollout, None for none, or for one that cannot be asked.
    judge: CompiledJudge | None = None
    # The rollout that it counts, as `Route.experiment` has it; each request asks several times.
    experiment: Canary | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "experiment", self.route.experiment)


@dataclass(frozen=True, slots=True)
class CompiledLiteral:
    """A literal target that a grant opens to an agent; no client can name its route."""

    grant: AgentGrant
    route: CompiledRoute  # shared by all grants of its target and class of data


@dataclass(frozen=True)
class CompiledSnapshot:
    """Holds one revision, complete and immutable. A request keeps it from start to end."""

    snapshot: Snapshot
    routes: Mapping[str, CompiledRoute]
    grants: Mapping[str, KeyGrant]  # by hash
    budgeted: frozenset[str]  # ids of the keys that have a budget
    # By the task that requests may name in a header, mostly empty.
    tasks: Mapping[bytes, CompiledRoute]
    provider_keys: ProviderKeySets  # of all providers
    keys_by_id: Mapping[str, KeyGrant] = field(default_factory=dict)
    # By grant's id. Apart from `routes`, so that nothing that goes through those meets them: no
    # list of models, no health check.
    literals: Mapping[str, CompiledLiteral] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return self.snapshot.etag

    @property
    def revision(self) -> int:
        return self.snapshot.table.revision

    @property
    def judges_validity(self) -> bool:
        return any(
            route.shadow is not None
            or (
                route.experiment is not None
                and not _VALIDITY.isdisjoint(route.experiment.unit_rule.guardrails)
            )
            for route in self.routes.values()
        )

    @property
    def rollouts(self) -> frozenset[str]:
        routes = self.routes.values()
        return frozenset(route.experiment.rollout for route in routes if route.experiment)


def feature_fields(endpoint: Endpoint, among: Collection[OptionalFeature]) -> frozenset[str]:
    """Members without which a request gives none of these fields, but for cache marks."""
    names = {name for hint in among for name in OPTIONAL_FIELDS[endpoint].get(hint, ())}
    if endpoint is Endpoint.MESSAGES and OptionalFeature.REASONING in among:
        names.add("output_config")
    return frozenset(names)


KNOWN: Final = 1_000
LONGEST: Final = 100  # characters of a name that a metric and a hint have
MOST_COMPARED: Final = 200  # routes among which the nearest name is sought
MOST_COUNTED: Final = 100


class RouteNames:
    """Finds routes by aliases; the first pattern that fits counts. count: names without one."""

    def __init__(self, aliases: Mapping[str, str], count: Callable[[str], None]) -> None:
        self._exact = {name: route for name, route in aliases.items() if "*" not in name}
        self._patterns = [(name, route) for name, route in aliases.items() if "*" in name]
        self._count = count
        self._counted: set[str] = set()
        self._known: BoundedMap[str, CompiledRoute] = BoundedMap(KNOWN)
        self._hints: BoundedMap[str, str] = BoundedMap(KNOWN)
        self._serving: CompiledSnapshot | None = None

    def find(self, model: str, serving: CompiledSnapshot) -> CompiledRoute | None:
        if self._serving is not serving:
            self._serving = serving
            self._known, self._hints = BoundedMap(KNOWN), BoundedMap(KNOWN)
        if (known := self._known.get(model)) is not None:
            return known
        route = serving.routes.get(self.route_of(model))
        if route is None:
            return None
        name = json.dumps(model)
        found = replace(
            route,
            json_name=name,
            overrides={
                kind: replace(other, json_name=name) for kind, other in route.overrides.items()
            },
        )
        self._known.put(model, found)
        return found

    def listed(self) -> Mapping[str, str]:
        return self._exact

    def route_of(self, model: str) -> str:
        if (route := self._exact.get(model)) is not None:
            return route
        fitting = (route for name, route in self._patterns if fnmatchcase(model, name))
        return next(fitting, spell_route_name(model))

    def note_missing(self, model: str, allowed: list[str]) -> str:
        """Counts it; returns the message's end with the nearest of the `allowed` names."""
        name = model[:LONGEST]
        if name in self._counted or len(self._counted) < MOST_COUNTED:
            self._counted.add(name)
            self._count(name)
        else:
            self._count(OTHER_NAMES)
        hint = self._hints.get(name)
        if hint is None:
            hint = did_you_mean(name, [*allowed[:MOST_COMPARED], *self._exact])
            self._hints.put(name, hint)
        return hint
