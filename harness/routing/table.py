"""The immutable routing table, the choice of an override, and the `Snapshot` from which a
router serves.

A table never changes: Swapproof replaces it whole. `harness.routing.route_changes` computes the
next version of a route. `harness.routing.records` stores the table, and `harness.routing.plan`
orders a route's targets.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from harness.frame.errors import (
    InputError,
    NotAllowed,
    NotFound,
    SwapproofError,
)
from harness.frame.people.access import OptOut
from harness.frame.people.audience import (
    Audience,
    AudienceRule,
    CallerClaims,
    CallerSet,
    find_audience,
)
from harness.frame.people.limits import KeyLimits
from harness.frame.plain_data import ShowsMore
from harness.frame.signing.signed_rows import (
    NO_LINEAGE,
    Lineage,
    Revocations,
    SignedRows,
)
from harness.gate.online.guardrails import DEFAULT_EXPOSURE_RULE, ExposureRule
from harness.gate.online.rollout import name_first_callers
from harness.providers.credential import StoredKey
from harness.providers.force import KillSwitch
from harness.providers.target import (
    DataClasses,
    Provider,
    Target,
    is_at_least_as_strict,
)
from harness.routing.agent import AgentGrant
from harness.routing.route_settings import (
    DEFAULT_ROUTE_SETTINGS,
    FailoverOrder,
    Overrides,
    RequestKind,
    RequestTrait,
    RouteSettings,
    Stakes,
    check_predicate,
    is_header_predicate,
    place_predicate,
)
from harness.routing.shadow import Shadow

# A request of several kinds uses the override of the first kind in this list. The rarer ability
# comes first: a model that reads video also reads pictures, but not the reverse.
KIND_PRECEDENCE: Final = (
    RequestKind.EMBEDDING,
    RequestKind.IMAGE,
    RequestKind.VIDEO,
    RequestKind.VISION,
)


def choose_kind(
    overrides: Overrides,
    declared: RequestKind | None,
    kinds: Collection[RequestKind],
) -> RequestKind | None:
    """Returns the kind with the override that answers the request. A declared kind precedes
    detected kinds.
    """
    if declared is not None:
        return declared if declared in overrides else None
    overridden_kinds = (kind for kind in KIND_PRECEDENCE if kind in kinds and kind in overrides)
    return next(overridden_kinds, None)


def list_predicates(overrides: Overrides) -> tuple[str, ...]:
    """Lists the overrides' traits and headers, in the order in which the router reads them."""
    others = (predicate for predicate in overrides if predicate not in _KINDS)
    return tuple(sorted(others, key=place_predicate))


_KINDS: Final = frozenset(RequestKind)


def choose_predicate(
    predicates: Iterable[str],
    endpoint: str,
    find_header: Callable[[str], str | None],
    *,
    has_tools: bool,
) -> str | None:
    """Returns the first predicate that a request meets; None without one.

    Args:
        predicates: result of `list_predicates`.
        endpoint: the name of an Endpoint.
        find_header: returns the value of a header by its name in lower case.
    """
    tools_trait = RequestTrait.TOOLS if has_tools else RequestTrait.NO_TOOLS
    for predicate in predicates:
        if is_header_predicate(predicate):
            name, _, value = predicate.partition(": ")
            if find_header(name) == value:
                return predicate
        elif predicate in (tools_trait, endpoint):
            return predicate
    return None


def override_errors(
    route: str,
    overrides: Overrides,
    data_classes: Mapping[str, str],
    classes: DataClasses,
) -> Iterator[tuple[str, SwapproofError]]:
    """Yields the errors of overrides, by predicate.

    Args:
        data_classes: by route.
    """
    for kind, other in overrides.items():
        subject = f"route {route!r}: the override for {kind}"
        try:
            check_predicate(kind)
        except InputError as error:
            yield kind, InputError(f"route {route!r}: overrides: {error}")
            continue
        if other == route:
            yield (
                kind,
                InputError(f"{subject} names the route itself: leave it out"),
            )
        elif other not in data_classes:
            message = (
                f"{subject} names {other!r}, which does not exist: create that route first"
            )
            yield kind, NotFound(message)
        elif not is_at_least_as_strict(classes, data_classes[other], than=data_classes[route]):
            class_text = (
                f"carries {data_classes[other]} data"
                if data_classes[other]
                else "has no data class"
            )
            message = (
                f"{subject} names {other!r}, which {class_text}. {route!r} carries "
                f"{data_classes[route]} data, and some providers that may serve {other!r} may "
                f"not see it: give {other!r} a data class as strict, or remove the override"
            )
            yield kind, NotAllowed(message)


# Next step while there is no route; init, doctor, router and dashboard show it.
FIRST_ROUTE_STEP: Final = (
    "name a provider and a route in swapproof.yaml and run `swapproof config apply` "
    "(`swapproof serve all` takes them at its start), or let `swapproof init --guided` or "
    "First steps on the dashboard's Overview ask for them"
)

BUCKETS = 10_000


class Arm(StrEnum):
    """An arm of a route. Requests of KEEP_WARM are no evidence for a canary."""

    INCUMBENT = "incumbent"
    CANARY = "canary"
    HOLDBACK = "holdback"
    KEEP_WARM = "keep_warm"


@dataclass(frozen=True, slots=True)
class Handover:
    """Keeps conversations at the incumbent that began before a step.

    settled_bps: the canary's share that is past its handover.
    """

    until_s: float  # seconds since 1970 UTC
    settled_bps: int = 0


@dataclass(frozen=True, slots=True)
class Canary:
    """The second arm of a route: a canary's candidate, or a bake's former incumbent."""

    target: str
    weight_bps: int  # share of sticky keys in basis points, 1 to 10 000 (1 % is 100)
    salt: str
    rollout: str
    unit_rule: ExposureRule = DEFAULT_EXPOSURE_RULE
    # True for a holdback. Its target is the control, and the route's incumbent the candidate.
    control: bool = False
    handover: Handover | None = None

    @property
    def candidate_bps(self) -> int:
        """The candidate's share of the callers in basis points, whichever arm this is."""
        return BUCKETS - self.weight_bps if self.control else self.weight_bps

    @property
    def audience(self) -> Audience | None:
        """The audience at this share, in a bake that of the last step; None without one."""
        return self.find_audience(BUCKETS if self.control else self.weight_bps)

    def find_audience(self, weight_bps: int) -> Audience | None:
        return find_audience(self.unit_rule.audiences, weight_bps)

    @property
    def of_first_callers(self) -> "Canary":
        """The ledger of the callers that the audience puts first: every caller is the canary's,
        and only errors count.
        """
        rule = replace(
            self.unit_rule,
            guardrails={},
            judge=None,
            window_s=0.0,
            local_alpha=0.0,
            caps={},
            audiences=(),
        )
        return replace(
            self,
            rollout=name_first_callers(self.rollout),
            weight_bps=BUCKETS,
            unit_rule=rule,
            handover=None,
        )

    @property
    def candidate_arm(self) -> Arm:
        """The arm whose requests go to the candidate."""
        return Arm.INCUMBENT if self.control else Arm.CANARY

    def is_candidate(self, arm: Arm) -> bool:
        """Tells whether requests in this arm go to the candidate."""
        return arm is self.candidate_arm

    def find_settled_bps(self, now_s: float) -> int:
        """Finds the share whose callers all went to the canary's target before `now_s`.

        Args:
            now_s: seconds since 1970 UTC.

        During a handover, this is the share before it.
        """
        handover = self.handover
        if handover is not None and now_s < handover.until_s:
            return handover.settled_bps
        return self.weight_bps


@dataclass(frozen=True, slots=True)
class Route(ShowsMore):
    """One version of a route: its targets and settings."""

    name: str
    version: int  # rises by one
    incumbent: str  # a target id, as in `fallbacks`
    canary: Canary | None = None
    fallbacks: tuple[str, ...] = ()
    settings: RouteSettings = DEFAULT_ROUTE_SETTINGS
    # During a bake: the previous incumbent and its share. A route has no canary then.
    holdback: Canary | None = None
    break_glass: str | None = None  # id of the break-glass by which the incumbent serves

    @property
    def experiment(self) -> Canary | None:
        """The canary, or during a bake the holdback."""
        return self.canary or self.holdback

    def show_more(self, shown: dict[str, Any]) -> dict[str, Any]:
        return {**shown, "targets": sorted(self.targets)}

    @property
    def targets(self) -> frozenset[str]:
        """The ids of all targets of this version, including fallbacks that high stakes
        forbid.
        """
        experiment_targets = {self.experiment.target} if self.experiment else set()
        return frozenset({self.incumbent, *self.fallbacks} | experiment_targets)

    def is_unproven(self, target: str) -> bool:
        """Tells whether a target (an id) is a fallback without proof. Only routes with
        `failover: proven_first` know the proofs.
        """
        arms = {self.incumbent, self.experiment.target if self.experiment else ""}
        knows_proofs = self.settings.failover is FailoverOrder.PROVEN_FIRST
        if not knows_proofs or target not in self.fallbacks or target in arms:
            return False
        return all(spare.target != target for spare in self.settings.proven)

    @property
    def may_answer(self) -> frozenset[str]:
        """The route's targets without the fallbacks that high stakes forbid."""
        if self.settings.stakes is not Stakes.HIGH:
            return self.targets
        incapable = set(self.fallbacks) - set(self.settings.capable) - {self.incumbent}
        return self.targets - incapable | (
            {self.experiment.target} if self.experiment else set()
        )


def order_fallbacks(route: Route, now: datetime) -> Route:
    """Returns the route with its fallbacks in the order in which routers try them, and without
    proofs that have lapsed or compare with another incumbent.

    With `failover: proven_first`, proven fallbacks precede the others. Each group keeps the
    declared order.
    """
    if not route.settings.proven and route.settings.failover is FailoverOrder.DECLARED:
        return route
    proven = tuple(
        spare for spare in route.settings.proven if spare.holds(route.incumbent, now)
    )
    ordered = route.fallbacks
    if route.settings.failover is FailoverOrder.PROVEN_FIRST:
        ids = {spare.target for spare in proven}
        ordered = tuple(sorted(route.fallbacks, key=lambda fallback: fallback not in ids))
    return replace(route, fallbacks=ordered, settings=replace(route.settings, proven=proven))


@dataclass(frozen=True)
class RoutingTable:
    """All routes at one revision, and the targets that they name, by id."""

    revision: int = 0
    routes: Mapping[str, Route] = None  # type: ignore[assignment]  # set in __post_init__
    targets: Mapping[str, Target] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", dict(self.routes or {}))
        object.__setattr__(self, "targets", dict(self.targets or {}))


def hash_bucket(key: str, *, salt: str) -> int:
    """Hashes a key to a bucket, 0 to 9 999. Unlike hash(), it is equal in all workers."""
    data = f"{salt}:{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest()) % BUCKETS


def choose_arm(route: Route, key: str) -> Arm:
    """Chooses a caller's arm. If the canary's weight rises, it keeps its callers.

    Args:
        key: the caller's sticky key.

    The same key always gets the same arm at the same weight, in every worker. Ignores
    handovers.
    """
    canary = route.canary
    if canary and hash_bucket(key, salt=canary.salt) < canary.weight_bps:
        return Arm.CANARY
    holdback = route.holdback
    if holdback and hash_bucket(key, salt=holdback.salt) >= BUCKETS - holdback.weight_bps:
        # The canary grew from bucket 0, so these callers always had the old model.
        return Arm.HOLDBACK
    return Arm.INCUMBENT


class CallerPlace(NamedTuple):
    """A caller's arm. rule, callers: of the audience; None if the share drew the arm."""

    arm: Arm
    rule: AudienceRule | None = None
    callers: CallerSet | None = None


def place_caller(route: Route, claims: CallerClaims, key: str) -> CallerPlace:
    """Chooses a caller's arm by the audience's rules, then by the share.

    Args:
        claims: of the request.
        key: the caller's sticky key.

    Routers and `canary who` call it, so that the command gives the router's own answer. Ignores
    handovers, as `choose_arm` does.
    """
    trial = route.experiment
    audience = trial.audience if trial is not None else None
    found = audience.find_set(claims) if audience is not None else None
    if trial is None or found is None:
        return CallerPlace(choose_arm(route, key))
    if found[0] is AudienceRule.FIRST:
        return CallerPlace(trial.candidate_arm, *found)
    return CallerPlace(Arm.HOLDBACK if trial.control else Arm.INCUMBENT, *found)


def is_mirrored(shadow: Shadow, key: str) -> bool:
    """Tells whether the shadow mirrors this caller's requests; the same for each of them."""
    return hash_bucket(key, salt=f"shadow:{shadow.id}") < shadow.limits.share_bps


def find_shadow_end(shadow: Shadow, route: Route | None) -> str:
    """Returns the change of the route that ends the shadow, as text; empty without such a
    change.
    """
    if route is None:
        return f"the route {shadow.route!r} does not exist any more"
    if route.settings.side_effects:
        return "the route's tools have side effects now (side_effects)"
    if route.settings.data_class != shadow.data_class:
        return "the route carries another class of data now"
    if route.incumbent != shadow.incumbent:
        return "the route has another incumbent now"
    if route.canary is not None and route.canary.target == shadow.candidate.id:
        return "the candidate is the canary now, and answers callers"
    return ""


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """A client key as a router needs it, with its routes and limits."""

    id: str
    hash: str  # HMAC-SHA-256 hex
    routes: frozenset[str] = frozenset()  # empty means all
    # None without limits.
    limits: KeyLimits | None = None
    opt_outs: frozenset[OptOut] = frozenset()
    name: str = ""  # the admin's name for it, which an audience may name


@dataclass(frozen=True)
class Snapshot:
    """All data that a router serves from, at one moment. Immutable; replaced whole."""

    table: RoutingTable
    providers: Mapping[str, Provider]
    keys: tuple[KeyGrant, ...]
    etag: str  # changes with every change of the content: a key, provider, revision, switch
    # Kill switches that are not lifted; some may have expired.
    switches: tuple[KillSwitch, ...] = ()
    shadows: tuple[Shadow, ...] = ()  # shadows that are not ended; some may have expired
    stored_keys: tuple[StoredKey, ...] = ()  # the providers' encrypted keys, in order
    # The signed rows of the snapshot; None if it was not built from stored rows.
    signed: SignedRows | None = None
    lineage: Lineage = NO_LINEAGE  # the snapshot's place in the installation's history
    revoked: frozenset[str] = frozenset()  # ids of revoked client keys
    # Grants that are not revoked; some may have expired. The table contains their targets.
    agent_grants: tuple[AgentGrant, ...] = ()

    def without(self, former: Sequence[Revocations]) -> "Snapshot":
        """Returns the snapshot without the keys that were revoked in earlier epochs."""
        further_revocations = [
            revocations
            for revocations in former
            if not self.revoked.issuperset(revocations.ids)
        ]
        if self.signed is None or not further_revocations:
            return self
        revoked = self.revoked.union(*(revocations.ids for revocations in further_revocations))
        return replace(
            self,
            keys=tuple(key for key in self.keys if key.id not in revoked),
            revoked=revoked,
            signed=replace(self.signed, former=tuple(further_revocations)),
        )


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """One stored version of a route, with the change that led to it."""

    route: Route
    revision: int
    kind: str
    at: datetime
    actor: str
    reason: str
    verdict: str | None
    # The break-glass that this version ended; set only in listings.
    ended_break_glass: str | None = None


@dataclass(frozen=True, slots=True)
class RouteHead:
    """A route's newest version and rollout without their proof, to sort routes."""

    name: str
    incumbent: str
    at: datetime  # the version's time
    break_glass: bool  # whether a break-glass serves the route, or waits for a second person
    # rollout: id of the newest rollout. rollout and below: None without a rollout.
    rollout: str | None
    state: str | None
    candidate: str | None
    updated_at: datetime | None
