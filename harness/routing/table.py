"""The routing table, which is immutable, and `Snapshot`: all that a router serves from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from harness.frame.people.access import OptOut
from harness.frame.people.limits import KeyLimits
from harness.frame.plain_data import ShowsMore
from harness.frame.signing.signed_rows import NO_LINEAGE, Lineage, Revocations, SignedRows
from harness.gate.online.guardrails import DEFAULT_UNIT_RULE, UnitRule
from harness.gate.suite_plan import SuiteRole
from harness.providers.credential import StoredKey
from harness.providers.force import KillSwitch
from harness.providers.target import Provider, Target
from harness.routing.agent import AgentGrant
from harness.routing.candidate_schedule import CandidateSchedule
from harness.routing.overrides import Overrides
from harness.routing.shadow import Shadow

# What to do where no route is there yet; init, doctor, router and dashboard say the same.
FIRST_ROUTE_STEP: Final = (
    "name a provider and a route in swapgate.yaml and run `swapgate config apply` (`swapgate "
    "serve all` takes them at its start), or let `swapgate init --guided` or First steps on "
    "the dashboard's Overview ask for them"
)

BUCKETS = 10_000


class Arm(StrEnum):
    """KEEP_WARM proves nothing (B6); the incumbent before answers HOLDBACK."""

    INCUMBENT = "incumbent"
    CANARY = "canary"
    HOLDBACK = "holdback"
    KEEP_WARM = "keep_warm"


class Stakes(StrEnum):
    LOW = "low"
    HIGH = "high"


class OnContentPolicy(StrEnum):
    """What follows a refusal of the provider's content filter (400)."""

    FAIL = "fail"
    FALLBACK = "fallback"


class StreamCommit(StrEnum):
    """Says when a stream's answer is its target's for good."""

    FIRST_TOKEN = "first_token"  # noqa: S105 - no password
    WHOLE = "whole"  # it is held back until it is complete


class OnBadEvent(StrEnum):
    """What follows an event of a stream that cannot be read."""

    FAIL = "fail"
    SKIP = "skip"


class OnEmptyAnswer(StrEnum):
    """What follows an answer that ends well and says nothing."""

    FAIL = "fail"
    ACCEPT = "accept"  # silence is an answer


@dataclass(frozen=True, slots=True)
class RouteSuite:
    suite: str  # its name
    role: SuiteRole = SuiteRole.PRIMARY  # its effect on the verdict
    weight: float = 1.0  # in the mean of several primary ones
    # Of the content that a person accepted for the route.
    digest: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        weight = "" if self.weight == 1.0 else f", weight {self.weight:g}"
        return f"{self.suite} ({self.role.value}{weight})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainRouteSettings:
    """Holds a route's settings that the file and the database have in the same form."""

    description: str = ""  # shown to people
    stakes: Stakes = Stakes.LOW  # high: only fallbacks that are marked capable
    policy: str = "default"  # name of the policy that swaps of this route go by
    total_timeout_s: float = 120.0  # for the whole request, failovers included
    # Fails the request, or asks the next target, after a provider's content filter refused.
    on_content_policy: OnContentPolicy = OnContentPolicy.FAIL
    data_class: str = ""  # of its traffic; one of `data_classes`
    task: str = ""  # requests with x-swapgate-task: NAME come here
    capture_per_day: int = 200  # most requests that are kept in a day (UTC)
    capture_keep_days: float = 30.0  # how long they are kept
    # Largest request, and largest answer, that is captured, mirrored or judged.
    copy_max_bytes: int = 1024 * 1024
    # Of a stream; without it the model's, else the router's.
    first_token_timeout_s: float | None = None
    # Of a plain answer; without it the model's, the router's, or measured.
    first_byte_timeout_s: float | None = None
    # whole: a stream is held back until it is complete
    commit: StreamCommit = StreamCommit.FIRST_TOKEN
    # skip: a stream goes on without what cannot be read
    on_bad_event: OnBadEvent = OnBadEvent.FAIL
    # accept: an answer that says nothing is one; else the next target is asked
    on_empty_answer: OnEmptyAnswer = OnEmptyAnswer.FAIL
    # Models that its suites measure by the clock, beside what people propose.
    candidates: CandidateSchedule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings(PlainRouteSettings):
    """A route's settings: what may change without bringing a target into traffic."""

    suites: tuple[RouteSuite, ...] = ()
    # Share of the requests for each warmed target (B6), 0 to 1 000 (1 % is 100).
    keep_warm_bps: int = 0
    # The tools act on the world, so that nothing is sent to another model for practice.
    side_effects: bool = False
    # Ids of the fallbacks that are good enough when the stakes are high (A4).
    capable: tuple[str, ...] = ()
    # Share of the requests that is kept, redacted, 0 to 10 000 (F9).
    capture_bps: int = 0
    # The routes that answer what is asked of this one, by kind of request (D6).
    overrides: Overrides = field(default_factory=dict, hash=False)


DEFAULT_ROUTE_SETTINGS: Final = RouteSettings()
# A route's own time limits, by the names of its settings; None for what holds without them.
ROUTE_TIMEOUTS: Final = ("first_token_timeout_s", "first_byte_timeout_s")


@dataclass(frozen=True, slots=True)
class Handover:
    """Lets running conversations stay with the incumbent. settled_bps: the share before."""

    until_s: float  # in seconds since 1970 UTC
    settled_bps: int = 0


@dataclass(frozen=True, slots=True)
class Canary:
    target: str
    weight_bps: int  # share of sticky keys in basis points, 1 to 10 000 (1 % is 100)
    salt: str
    rollout: str
    unit_rule: UnitRule = DEFAULT_UNIT_RULE
    # A holdback; its target is what the candidate, now the incumbent, is compared with.
    control: bool = False
    handover: Handover | None = None

    @property
    def candidate_bps(self) -> int:
        return BUCKETS - self.weight_bps if self.control else self.weight_bps

    def is_candidate(self, arm: Arm) -> bool:
        return arm is (Arm.INCUMBENT if self.control else Arm.CANARY)


@dataclass(frozen=True, slots=True)
class Route(ShowsMore):
    name: str
    version: int  # rises by one
    incumbent: str  # incumbent, fallbacks: target ids
    canary: Canary | None = None
    fallbacks: tuple[str, ...] = ()
    settings: RouteSettings = DEFAULT_ROUTE_SETTINGS
    # While a promotion bakes, the incumbent before it and its share; then there is no canary.
    holdback: Canary | None = None
    break_glass: str | None = None  # its id, while the incumbent serves without proof

    @property
    def experiment(self) -> Canary | None:
        """Returns what the rollout counts: the canary, or after the promotion the holdback."""
        return self.canary or self.holdback

    def show_more(self, shown: dict[str, Any]) -> dict[str, Any]:
        return {**shown, "targets": sorted(self.targets)}

    @property
    def targets(self) -> frozenset[str]:
        trial = {self.experiment.target} if self.experiment else set()
        return frozenset({self.incumbent, *self.fallbacks} | trial)

    @property
    def may_answer(self) -> frozenset[str]:
        """The route's targets without the fallbacks that high stakes forbid."""
        if self.settings.stakes is not Stakes.HIGH:
            return self.targets
        beneath = set(self.fallbacks) - set(self.settings.capable) - {self.incumbent}
        return self.targets - beneath | ({self.experiment.target} if self.experiment else set())


@dataclass(frozen=True)
class RoutingTable:
    revision: int = 0
    routes: Mapping[str, Route] = None  # type: ignore[assignment]  # set in __post_init__
    targets: Mapping[str, Target] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", dict(self.routes or {}))
        object.__setattr__(self, "targets", dict(self.targets or {}))


def hash_bucket(key: str, *, salt: str) -> int:
    """Hashes a key to a bucket from 0 to 9 999, the same on every worker, as hash() is not."""
    data = f"{salt}:{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest()) % BUCKETS


def choose_arm(route: Route, key: str) -> Arm:
    """Chooses a caller's arm. Raising the canary's weight only adds callers to it."""
    canary = route.canary
    if canary and hash_bucket(key, salt=canary.salt) < canary.weight_bps:
        return Arm.CANARY
    holdback = route.holdback
    if holdback and hash_bucket(key, salt=holdback.salt) >= BUCKETS - holdback.weight_bps:
        # From the other end than the canary: these callers have never left the old model.
        return Arm.HOLDBACK
    return Arm.INCUMBENT


def is_mirrored(shadow: Shadow, key: str) -> bool:
    return hash_bucket(key, salt=f"shadow:{shadow.id}") < shadow.limits.share_bps


def find_shadow_end(shadow: Shadow, route: Route | None) -> str:
    if route is None:
        return f"there is no route {shadow.route!r} any more"
    if route.settings.side_effects:
        return "the route's tools act on the world now (side_effects)"
    if route.settings.data_class != shadow.data_class:
        return "the route carries another class of data now"
    if route.incumbent != shadow.incumbent:
        return "the route has another incumbent now"
    if route.canary is not None and route.canary.target == shadow.candidate.id:
        return "the candidate has its canary now, and answers users"
    return ""


@dataclass(frozen=True, slots=True)
class KeyGrant:
    id: str
    hash: str  # HMAC-SHA-256 hex
    routes: frozenset[str] = frozenset()  # empty means all
    # None when there are none, so that such a key costs one look.
    limits: KeyLimits | None = None
    opt_outs: frozenset[OptOut] = frozenset()


@dataclass(frozen=True)
class Snapshot:
    """Holds all that a router needs to serve, at one moment. Immutable; swapped whole."""

    table: RoutingTable
    providers: Mapping[str, Provider]
    keys: tuple[KeyGrant, ...]
    etag: str  # changes whenever anything in it does (a key, a provider, a revision, a switch)
    # Kill switches that nobody has lifted; they may have expired since.
    switches: tuple[KillSwitch, ...] = ()
    shadows: tuple[Shadow, ...] = ()  # that nobody has ended, as well
    stored_keys: tuple[StoredKey, ...] = ()  # of the providers, encrypted, in order
    # The rows that it was built from; None where nobody but Swapgate can have written them.
    signed: SignedRows | None = None
    lineage: Lineage = NO_LINEAGE  # where it stands in its installation's history
    revoked: frozenset[str] = frozenset()  # ids of data keys that open nothing any more
    # That nobody has revoked; their targets are in the table, too. They may have expired since.
    agent_grants: tuple[AgentGrant, ...] = ()

    def without(self, former: Sequence[Revocations]) -> "Snapshot":
        """Revokes in this snapshot, as well, the keys that were revoked in earlier epochs."""
        more = [
            revocations
            for revocations in former
            if not self.revoked.issuperset(revocations.ids)
        ]
        if self.signed is None or not more:
            return self
        revoked = self.revoked.union(*(revocations.ids for revocations in more))
        return replace(
            self,
            keys=tuple(key for key in self.keys if key.id not in revoked),
            revoked=revoked,
            signed=replace(self.signed, former=tuple(more)),
        )


@dataclass(frozen=True, slots=True)
class RouteRecord:
    route: Route
    revision: int
    kind: str
    at: datetime
    actor: str
    reason: str
    verdict: str | None
    # The break-glass whose end this version is; filled where versions are listed.
    ended_break_glass: str | None = None


@dataclass(frozen=True, slots=True)
class RouteHead:
    """A route's newest version and rollout without their proof, to put routes in order."""

    name: str
    incumbent: str
    at: datetime  # of the version
    break_glass: bool  # one serves there, or waits for a second person
    # rollout: the newest, its id. It and what follows are None for a route that had none.
    rollout: str | None
    state: str | None
    candidate: str | None
    updated_at: datetime | None
