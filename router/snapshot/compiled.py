"""The compiled snapshot is one revision of the routing table as requests use it, immutable,
with everything one look-up away: routes with their plans, targets with prices and keys,
shadows, judges, and the grants of API keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from harness.domain.canary.guardrails import Guardrail
from harness.domain.proposals.policy import CanaryJudge
from harness.domain.providers.credentials import ProviderKey, ProviderKeySets
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.routing.capabilities import Capabilities, Endpoint
from harness.domain.routing.degradation import OptionalFeature
from harness.domain.routing.keep_warm import KeepWarm
from harness.domain.routing.kill_switch import KillSwitch, SwitchTarget
from harness.domain.routing.overrides import RequestKind
from harness.domain.routing.plan import RoutePlan, RouteTargets
from harness.domain.routing.table import Arm, Canary, KeyGrant, Route, Snapshot
from harness.domain.routing.target import Price, Provider, Target
from harness.domain.shadow.shadow import Shadow

_VALIDITY: Final = frozenset({Guardrail.JSON_VALIDITY, Guardrail.TOOL_VALIDITY})
Header = tuple[bytes, bytes]
NO_KEYS: Final[ProviderKeySets] = {}


@dataclass(frozen=True, slots=True)
class CompiledTarget:
    """A target, as it is sent to, with its provider. price: None when unknown. header:
    x-swapgate-target.

    can: what its provider's configuration says of its model, of that what its kind serves.
    lacks: by endpoint, the hints that it does not get.
    keys: of the provider, in order. keyless: it wants a key and has none.
    """

    target: Target
    id: str
    name: str
    provider: Provider
    price: Price | None
    header: Header
    can: Capabilities
    lacks: Mapping[Endpoint, frozenset[OptionalFeature]]
    keys: tuple[ProviderKey, ...] = ()
    keyless: bool = False

    @property
    def adapted(self) -> frozenset[Endpoint]:
        """Those that it answers by a translation."""
        return PROVIDER_KINDS[self.provider.kind].adapted


@dataclass(frozen=True, slots=True)
class CompiledShadow:
    shadow: Shadow
    upstream: CompiledTarget


@dataclass(frozen=True, slots=True)
class CompiledJudge:
    """Who reads a sample of a live rollout's answers."""

    judge: CanaryJudge
    upstream: CompiledTarget


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route with all that a request of it needs. json_name: as a JSON string, for replies.

    plans: by endpoint, per arm, when every target is well and no switch is in force.
    upstreams, capabilities: by target id. native: by endpoint, capabilities of what no
    translation can say; without endpoints that all targets translate, or none. switches: kill
    switches about this route, whether expired or not. names: of the targets, for switches.
    particular: something is configured
    about what one of its models can do. warmed: target ids that a share of its requests, as
    keep_warm says, keeps warm; empty when it is off. shadow: who gets a copy of its requests.
    judge: of its live rollout, None for none, or for one that cannot be asked.
    keyless: target ids whose providers want a key and have none. barred: those whose providers
    may not see its class of data (D8): nothing of it goes there, whatever else is said.
    overrides: by kind of request, the route that answers it, as it is for those who asked this
    one; that has none of its own, so that an override is followed once.
    """

    route: Route
    json_name: str
    targets: RouteTargets
    plans: Mapping[Endpoint, Mapping[Arm, RoutePlan]]
    upstreams: Mapping[str, CompiledTarget]
    capabilities: Mapping[str, Capabilities]
    native: Mapping[Endpoint, Mapping[str, Capabilities]]
    headers: Mapping[Arm, tuple[Header, ...]]
    switches: tuple[KillSwitch, ...]
    names: Mapping[str, SwitchTarget]
    particular: bool
    warmed: tuple[str, ...]
    keep_warm: KeepWarm
    shadow: CompiledShadow | None = None
    keyless: frozenset[str] = frozenset()
    barred: frozenset[str] = frozenset()
    overrides: Mapping[RequestKind, "CompiledRoute"] = field(default_factory=dict)
    judge: CompiledJudge | None = None

    @property
    def trial(self) -> Canary | None:
        return self.route.trial


@dataclass(frozen=True)
class CompiledSnapshot:
    """One revision, complete and immutable. A request keeps it from start to end.

    grants: by hash. budgeted: ids of the keys that have a budget. tasks: route by the task that
    requests may name in a header, mostly empty. provider_keys: of all providers.
    """

    snapshot: Snapshot
    routes: Mapping[str, CompiledRoute]
    grants: Mapping[str, KeyGrant]
    budgeted: frozenset[str]
    tasks: Mapping[bytes, CompiledRoute]
    provider_keys: ProviderKeySets

    @property
    def etag(self) -> str:
        return self.snapshot.etag

    @property
    def revision(self) -> int:
        return self.snapshot.table.revision

    @property
    def judges_validity(self) -> bool:
        """Whether a live rollout asks if answers' JSON or tool calls hold."""
        trials = (route.trial for route in self.routes.values())
        return any(trial and _VALIDITY & trial.unit_rule.guardrails.keys() for trial in trials)

    @property
    def rollouts(self) -> frozenset[str]:
        routes = self.routes.values()
        return frozenset(route.trial.rollout for route in routes if route.trial)


def header_text(text: str) -> bytes:
    """Printable ASCII; anything else percent-encoded, so that no name can break a header."""
    return quote(text, safe=" !#$&'()*+,/:;=?@[]~").encode()
