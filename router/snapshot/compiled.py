"""One immutable revision of the routing table, with everything that a request needs.

Data and look-ups only: `compiler` builds a revision, `holder` replaces it. Values that are the
same for a whole revision are fields here, so that no request computes them. Only `RouteNames`,
which finds routes by aliases, has a state.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from harness.frame.people.audience import Audience
from harness.frame.suggestions import did_you_mean
from harness.gate.online.guardrails import CanaryJudge, Guardrail
from harness.gate.online.observation import OTHER_NAMES
from harness.providers.credential import ProviderKey, ProviderKeySets
from harness.providers.force import KillSwitch
from harness.providers.models.capabilities import (
    Capabilities,
    Endpoint,
    OptionalFeature,
    Prefill,
)
from harness.providers.target import Price, Provider, SentTarget, Target
from harness.routing.agent import AgentGrant
from harness.routing.plan import KeepWarm, RoutePlan
from harness.routing.route_changes import spell_route_name
from harness.routing.shadow import Shadow
from harness.routing.table import Arm, Canary, KeyGrant, Route, Snapshot
from router.frame.limits import BoundedMap
from router.frame.replies import Header

_VALIDITY: Final = frozenset({Guardrail.JSON_VALIDITY, Guardrail.TOOL_VALIDITY})
# Marks a part that the provider is to cache, anywhere in a request.
CACHE_MARK: Final = '"cache_control"'
_COMMON_FIELDS: Final[Mapping[OptionalFeature, tuple[str, ...]]] = {
    OptionalFeature.SEED: ("seed",),
    OptionalFeature.LOGPROBS: ("logprobs", "top_logprobs"),
    OptionalFeature.REASONING: ("reasoning_effort", "reasoning"),
    OptionalFeature.CACHING: ("prompt_cache_key", "prompt_cache_retention"),
    OptionalFeature.SERVICE_TIER: ("service_tier",),
    OptionalFeature.TOP_K: ("top_k",),
}
OPTIONAL_FIELDS: Final[Mapping[Endpoint, Mapping[OptionalFeature, tuple[str, ...]]]] = {
    Endpoint.CHAT: _COMMON_FIELDS,
    Endpoint.RESPONSES: _COMMON_FIELDS,
    Endpoint.MESSAGES: {
        **_COMMON_FIELDS,
        OptionalFeature.REASONING: ("thinking", "reasoning_effort"),
    },
    Endpoint.EMBEDDINGS: {},
}
RequestMembers = Mapping[str, object]
NO_KEYS: Final[ProviderKeySets] = {}


class PlainModel(NamedTuple):
    """A target for which most bodies change only in the name of the model.

    json_name: the provider's name of the model, as a JSON string.
    """

    json_name: str
    blocking_members: frozenset[str]  # a request with one of these needs further changes
    is_unmarked: bool  # with a cache mark, a request needs further changes, too
    may_not_suit: bool  # `suits` can return False

    def suits(self, request: RequestMembers, text: str) -> bool:
        """Returns whether replacing the model is enough. The request must allow parallel tool
        calls.
        """
        return self.blocking_members.isdisjoint(request) and not (
            self.is_unmarked and CACHE_MARK in text
        )


@dataclass(frozen=True, slots=True)
class CompiledTarget:
    """A target with its provider, ready for requests."""

    target: Target  # as the route declares it
    sent: SentTarget
    id: str
    name: str
    provider: Provider
    price: Price | None  # None if unknown
    headers: tuple[Header, ...]  # x-swapproof-target, and x-swapproof-fallback if unproven
    # The configured abilities of its model, as far as the provider's kind serves them.
    can: Capabilities
    # The hints that it does not get, by endpoint.
    lacks: Mapping[Endpoint, frozenset[OptionalFeature]]
    # By endpoint, without endpoints at which each request is rewritten.
    plain_models: Mapping[Endpoint, PlainModel] = field(default_factory=dict)
    keys: tuple[ProviderKey, ...] = ()  # the provider's, in order
    # The first key; None without a key. With several keys, each attempt chooses its own.
    only_key: ProviderKey | None = field(init=False)
    keyless: bool = False  # the provider needs a key and has none
    maker: str = ""  # signs its answers, by the name in `router.conversation.intake`

    adapted: frozenset[Endpoint] = frozenset()  # endpoints that it serves by a translation
    bridged: frozenset[str] = frozenset()  # paths of translated endpoints that become chats

    def __post_init__(self) -> None:
        object.__setattr__(self, "only_key", self.keys[0] if self.keys else None)


@dataclass(frozen=True, slots=True)
class CompiledShadow:
    """A shadow of the route, and the candidate that gets copies of its requests."""

    shadow: Shadow
    upstream: CompiledTarget


@dataclass(frozen=True, slots=True)
class CompiledJudge:
    """The judge of a live rollout, which reads a sample of its answers."""

    judge: CanaryJudge
    upstream: CompiledTarget


@dataclass(frozen=True, slots=True)
class CompiledAudience:
    """The audience of a live canary or bake.

    settled: the audience at the share whose handover is over; None without one.
    first_callers: the ledger of the callers that are first; None in a bake, which has no
    callers of its own.
    """

    settled: Audience | None
    first_callers: Canary | None


def _compile_audience(trial: Canary | None) -> CompiledAudience | None:
    if trial is None or trial.audience is None:
        return None
    settled_bps = trial.handover.settled_bps if trial.handover else trial.weight_bps
    settled = trial.find_audience(settled_bps)
    return CompiledAudience(settled, None if trial.control else trial.of_first_callers)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CompiledRoute:
    """A route with everything that its requests need."""

    route: Route
    json_name: str  # as a JSON string, for replies
    # By endpoint and arm: the plans while each target is well and no switch is in force.
    plans: Mapping[Endpoint, Mapping[Arm, RoutePlan]]
    upstreams: Mapping[str, CompiledTarget]  # upstreams, capabilities: by the target's id
    capabilities: Mapping[str, Capabilities]
    # By endpoint, the capabilities that a translating target keeps. Endpoints that all targets
    # or no targets translate are missing.
    native: Mapping[Endpoint, Mapping[str, Capabilities]]
    headers: Mapping[Arm, tuple[Header, ...]]
    switches: tuple[KillSwitch, ...]  # kill switches for this route, expired ones included
    targets: Mapping[str, Target]  # by id
    particular: bool  # whether a target's model has configured abilities
    # Endpoints at which its targets read a last turn of the assistant in different ways, or
    # need a field for it.
    prefills: frozenset[Endpoint]
    # Ids of targets that the keep_warm share of the requests keeps warm; empty if it is off.
    warmed: tuple[str, ...]
    keep_warm: KeepWarm
    shadow: CompiledShadow | None = None  # gets a copy of its requests
    keyless: frozenset[str] = frozenset()  # ids of targets without the required key
    # Targets whose providers may not see the route's class of data. No other setting can
    # send it there.
    barred: frozenset[str] = frozenset()
    # By predicate: the route that answers for this one. It has no overrides, so that the
    # router follows only one override.
    overrides: Mapping[str, "CompiledRoute"] = field(default_factory=dict)
    # The overrides' predicates that are no kinds, in the order in which they count.
    predicates: tuple[str, ...] = ()
    # The judge of its live rollout; None without a judge that can be asked.
    judge: CompiledJudge | None = None
    # A copy of `Route.experiment`, because each request reads it several times.
    experiment: Canary | None = field(init=False)
    # The audience of the live canary or bake; None if its share draws all callers.
    audience: CompiledAudience | None = field(init=False)
    # Whether `plans` apply while all targets are well. Then only a prefill can make another
    # plan, not the time or the rest of a request's content.
    is_fixed: bool = field(init=False)

    def __post_init__(self) -> None:
        trial = self.route.experiment
        object.__setattr__(self, "experiment", trial)
        object.__setattr__(self, "audience", _compile_audience(trial))
        is_fixed = not (self.switches or self.particular or self.native)
        object.__setattr__(self, "is_fixed", is_fixed)

    @property
    def incumbent_prefill(self) -> Prefill:
        """How the incumbent reads a last turn of the assistant."""
        return self.capabilities[self.route.incumbent].prefill


@dataclass(frozen=True, slots=True)
class CompiledLiteral:
    """A literal target that a grant opens to an agent. Clients cannot name its route."""

    grant: AgentGrant
    route: CompiledRoute  # shared by all grants for its target and class of data


@dataclass(frozen=True)
class CompiledSnapshot:
    """One complete, immutable revision. A request uses it from start to end."""

    snapshot: Snapshot
    routes: Mapping[str, CompiledRoute]
    grants: Mapping[str, KeyGrant]  # by hash
    budgeted: frozenset[str]  # ids of keys with a budget
    # By the task that a request may name in a header; usually empty.
    tasks: Mapping[bytes, CompiledRoute]
    provider_keys: ProviderKeySets  # of all providers
    keys_by_id: Mapping[str, KeyGrant] = field(default_factory=dict)
    # By the grant's id. Separate from `routes`, so that lists of models and health checks do
    # not include them.
    literals: Mapping[str, CompiledLiteral] = field(default_factory=dict)
    # Whether a route keeps its Responses answers (`responses_state`).
    keeps_responses: bool = False

    @property
    def etag(self) -> str:
        return self.snapshot.etag

    @property
    def revision(self) -> int:
        return self.snapshot.table.revision

    @property
    def judges_validity(self) -> bool:
        """Whether a shadow or a live rollout validates JSON, so that the validator is
        loaded before it serves.
        """
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
        """The ids of the live rollouts and their ledgers: canaries, and holdbacks of bakes."""
        routes = self.routes.values()
        trials = [route.experiment for route in routes if route.experiment]
        trials += [
            route.audience.first_callers
            for route in routes
            if route.audience and route.audience.first_callers
        ]
        return frozenset(trial.rollout for trial in trials)


def feature_fields(endpoint: Endpoint, features: Collection[OptionalFeature]) -> frozenset[str]:
    """Returns the members that belong to some optional features. Cache marks may also stand
    elsewhere.
    """
    names = {
        name for feature in features for name in OPTIONAL_FIELDS[endpoint].get(feature, ())
    }
    if endpoint is Endpoint.MESSAGES and OptionalFeature.REASONING in features:
        names.add("output_config")
    return frozenset(names)


MOST_KNOWN_NAMES: Final = 1_000
LONGEST_NAME: Final = 100  # characters of a name in a metric or a hint
MOST_COMPARED: Final = 200  # routes that are compared to find the nearest name
MOST_COUNTED: Final = 100


class RouteNames:
    """Finds routes by aliases: the first matching pattern wins.

    aliases: a client's name of a model, which may have `*`, and the route's name.
    count: counts names without a route. At most MOST_COUNTED names are distinguished,
    because clients choose them.
    """

    def __init__(self, aliases: Mapping[str, str], count: Callable[[str], None]) -> None:
        self._exact_aliases = {
            name: route for name, route in aliases.items() if "*" not in name
        }
        self._patterns = [(name, route) for name, route in aliases.items() if "*" in name]
        self._count = count
        self._counted_names: set[str] = set()
        self._routes_by_name: BoundedMap[str, CompiledRoute] = BoundedMap(MOST_KNOWN_NAMES)
        self._hints: BoundedMap[str, str] = BoundedMap(MOST_KNOWN_NAMES)
        self._serving: CompiledSnapshot | None = None

    def find(self, model: str, serving: CompiledSnapshot) -> CompiledRoute | None:
        """Finds a route by an alias, or by another spelling of its name; None without one.

        The answers then have the client's name of the model. Look for the exact name first.
        """
        if self._serving is not serving:
            self._serving = serving
            self._routes_by_name = BoundedMap(MOST_KNOWN_NAMES)
            self._hints = BoundedMap(MOST_KNOWN_NAMES)
        if (known_route := self._routes_by_name.get(model)) is not None:
            return known_route
        route = serving.routes.get(self.resolve_name(model))
        if route is None:
            return None
        name = json.dumps(model)
        aliased = replace(
            route,
            json_name=name,
            overrides={
                kind: replace(override, json_name=name)
                for kind, override in route.overrides.items()
            },
        )
        self._routes_by_name.put(model, aliased)
        return aliased

    def exact_aliases(self) -> Mapping[str, str]:
        """Returns the aliases without `*`, which lists of models show."""
        return self._exact_aliases

    def resolve_name(self, model: str) -> str:
        """Returns the route's name for a client's name of a model. The route need not
        exist.
        """
        if (route := self._exact_aliases.get(model)) is not None:
            return route
        matching = (route for name, route in self._patterns if fnmatchcase(model, name))
        return next(matching, spell_route_name(model))

    def note_missing(self, model: str, allowed: list[str]) -> str:
        """Counts a name without a route; returns a hint with the nearest `allowed` name."""
        name = model[:LONGEST_NAME]
        if name in self._counted_names or len(self._counted_names) < MOST_COUNTED:
            self._counted_names.add(name)
            self._count(name)
        else:
            self._count(OTHER_NAMES)
        hint = self._hints.get(name)
        if hint is None:
            hint = did_you_mean(name, [*allowed[:MOST_COMPARED], *self._exact_aliases])
            self._hints.put(name, hint)
        return hint
