"""What we need of the world, as Protocols. Each has a real adapter and a twin that ships.

A `Transaction` is one unit of work: all of it is stored, or none. Reads in it see its writes.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Protocol

from harness.domain.canary.observation import ObservationBlock, TrafficMinute, TrafficTotal
from harness.domain.canary.rollout import Rollout
from harness.domain.drift.watch import DriftCheck, DriftWatch
from harness.domain.evals.pins import Sighting
from harness.domain.evals.run import EvalRun, RunState, Sample, SuitePin, Verdict
from harness.domain.operations.access import Actor, ApiKey
from harness.domain.operations.alerts import Alert, AlertKind, AlertRecord
from harness.domain.operations.audit import AuditEvent, AuditPosition
from harness.domain.operations.delivery import AlertMessage, Delivery
from harness.domain.operations.principals import Principal
from harness.domain.operations.row_signatures import KeyPurpose, RowFault
from harness.domain.pagination import FIRST_PAGE, Page, PageRequest
from harness.domain.privacy.capture import CapturedRequest, CaptureResult
from harness.domain.proposals.proposal import Approval, Proposal, ProposalPhase
from harness.domain.providers.catalogue import Catalogue
from harness.domain.providers.credentials import Credential
from harness.domain.providers.device_flow import DeviceCode, OAuthTokens, PollAnswer
from harness.domain.providers.oauth_kinds import OAuthEndpoints
from harness.domain.providers.oauth_tokens import SignIn
from harness.domain.providers.probe import ProbeReply, ProviderCheck
from harness.domain.reliability.failover import Failover
from harness.domain.reliability.rate_limits import KeyLimits, RateState
from harness.domain.reliability.spend import KeySpend
from harness.domain.routing.evidence import RouteEvidence, Waiver
from harness.domain.routing.kill_switch import KillSwitch
from harness.domain.routing.route_changes import TableChange
from harness.domain.routing.snapshot_lineage import Lineage
from harness.domain.routing.table import Route, RoutingTable, Snapshot
from harness.domain.routing.target import Provider, Target
from harness.domain.shadow.shadow import Shadow, ShadowTally

# Of a list that grows for ever, at once. Who needs what lies further back asks by a cursor.
MOST_LISTED: Final = 1000


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall time, UTC, aware."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump; for durations and deadlines within one process."""
        ...


class Chance(Protocol):
    def token(self, prefix: str) -> str:
        """A new, unguessable id: `prefix` and 16 hexadecimal digits."""
        ...

    def secret(self) -> str:
        """A new secret of 256 bits, URL-safe."""
        ...


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """One stored version of a route: what changed, by whom, with which proof."""

    route: Route
    revision: int
    kind: str
    at: datetime
    actor: str
    reason: str
    verdict: str | None


class Routing(Protocol):
    """The routing table. Revisions rise by one over all routes; versions by one per route."""

    def table(self) -> RoutingTable: ...

    def route(self, name: str) -> Route | None: ...

    def history(self, name: str) -> Sequence[RouteRecord]:
        """Newest first."""
        ...

    def changed_at(self, name: str) -> datetime | None:
        """The time of the route's newest version; None without a route."""
        ...

    def evidence(self, name: str) -> RouteEvidence | None:
        """Why each target of the route's newest version may serve; None without a route."""
        ...

    def commit(
        self,
        change: TableChange,
        *,
        expected_version: int,
        actor: str,
        reason: str,
        now: datetime,
    ) -> int:
        """Write the route's next version; its revision. expected_version 0 creates the route.

        Raises RevisionConflict if another writer was first, IllegalTransition or ProofRefused
        if the change does not apply, ProofRefused when the database itself refuses.
        """
        ...

    def add_target(self, target: Target) -> str:
        """The target's id. Adding the same content again changes nothing."""
        ...

    def targets(self) -> Mapping[str, Target]: ...


class ProviderDoor(Protocol):
    """Asks a provider one small thing."""

    def ask(
        self,
        provider: Provider,
        key: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout_s: float,
    ) -> ProbeReply:
        """key: empty for none. body: None for a GET; of a stream only its first content is
        waited for. Raises nothing: what failed is in the answer, without a secret.
        """
        ...


class Providers(Protocol):
    def put(self, provider: Provider) -> None: ...

    def remove(self, name: str) -> None:
        """As if it had never been put. Raises NotFound."""
        ...

    def all(self) -> Mapping[str, Provider]: ...


class Proposals(Protocol):
    def add(self, proposal: Proposal) -> None:
        """Raises RouteBusy when the route has an open proposal; the error names it."""
        ...

    def get(self, proposal: str) -> Proposal:
        """Raises NotFound."""
        ...

    def save(self, proposal: Proposal) -> Proposal:
        """Store it at version + 1. Raises StaleWrite if the stored version is another."""
        ...

    def open(self) -> Sequence[Proposal]:
        """Oldest first."""
        ...

    def list(
        self,
        *,
        route: str | None = None,
        open_only: bool = False,
        limit: int = MOST_LISTED,
        after: str | None = None,
    ) -> Sequence[Proposal]:
        """Newest first, `limit` at the most. after: the id of the last one of the page before.

        Raises NotFound for an `after` that is not stored.
        """
        ...

    def phases(self) -> Mapping[ProposalPhase, int]:
        """How many are in each; none is left out for its signature."""
        ...

    def of_pair(self, route: str, incumbent: str, candidate: str) -> Sequence[Proposal]:
        """Of that route, between these targets; newest first."""
        ...

    def since(self, route: str, at: datetime) -> Sequence[Proposal]:
        """Of that route, made then or later; newest first."""
        ...

    def let_in(self, route: str) -> Sequence[Proposal]:
        """Of that route, which a person approved or which had a canary; newest first, the last
        20.
        """
        ...

    def of_candidates(self, targets: Collection[str]) -> Sequence[Proposal]:
        """Of these target ids, on any route; newest first."""
        ...


class Approvals(Protocol):
    def add(self, approval: Approval) -> None:
        """Raises NotAllowed for the proposer's own, unless the policy says `self_approval`."""
        ...

    def of(self, proposal: str) -> Sequence[Approval]:
        """Oldest first."""
        ...


class EvalRuns(Protocol):
    def add(self, run: EvalRun) -> None: ...

    def get(self, run: str) -> EvalRun:
        """Raises NotFound."""
        ...

    def list(
        self,
        *,
        states: Sequence[RunState] = (),
        limit: int = MOST_LISTED,
    ) -> Sequence[EvalRun]:
        """Newest first, `limit` at the most; all states when none is named."""
        ...

    def of_targets(self, targets: Collection[str]) -> Sequence[EvalRun]:
        """Newest first."""
        ...

    def scored(self, run: str) -> bool:
        """Whether anything was learned of its target: one answer that has a score, or that is
        unscored for what it says. An error of the infrastructure tells nothing.
        """
        ...

    def shared(self, fingerprint: str, *, not_before: datetime) -> EvalRun | None:
        """The newest run with this fingerprint, not FAILED, created since `not_before`."""
        ...

    def set_state(self, run: str, state: RunState, message: str = "") -> None:
        """States but RUNNING clear the lease. FAILED adds one to `failures`."""
        ...

    def want(self, run: str, items: int) -> None:
        """Raise the number of wanted items (never lower it); queue the run if it ended."""
        ...

    def lease(self, run: str, owner: str, *, now: datetime, until: datetime) -> bool:
        """Take or renew the lease; False when the run has ended, or another has it.

        Another's lease that has expired may be taken, and so may one that reaches further than
        `domain.evaluation.furthest_lease`.
        """
        ...

    def leave(self, run: str, owner: str, state: RunState, message: str = "") -> bool:
        """`set_state` by the lease's owner; False, and nothing done, when it is not theirs."""
        ...

    def release(self, owner: str) -> Sequence[str]:
        """Give up every lease of a dead owner; the runs go back to QUEUED."""
        ...

    def store_sample(self, sample: Sample) -> bool:
        """False when that run, item and epoch is stored already: nothing counts twice."""
        ...

    def done(self, run: str) -> frozenset[tuple[str, int]]:
        """(item, epoch) of every stored sample."""
        ...

    def samples(self, run: str, *, below: int | None = None) -> Sequence[Sample]:
        """In the run's order (position, epoch); only positions below `below` if given."""
        ...

    def outcomes(self, run: str, *, below: int) -> Sequence[Sample]:
        """As `samples`, for who decides again and again: without prompts, and an answer is
        only ANSWERED or empty.
        """
        ...

    def progress(self, run: str) -> tuple[int, float, int, int]:
        """Stored samples, cost in USD (known prices), input tokens, output tokens."""
        ...


class Suites(Protocol):
    def put(self, pin: SuitePin, now: datetime) -> None:
        """Content-addressed: the same digest again changes nothing."""
        ...

    def get(self, digest: str) -> SuitePin:
        """Raises NotFound."""
        ...

    def all(self) -> Sequence[SuitePin]:
        """Newest first."""
        ...


class Verdicts(Protocol):
    def add(self, verdict: Verdict, proposal: str) -> None: ...

    def get(self, verdict: str) -> Verdict:
        """Raises NotFound."""
        ...

    def of(self, proposal: str) -> Sequence[Verdict]:
        """Newest first."""
        ...

    def list(self, *, route: str | None = None, limit: int = MOST_LISTED) -> Sequence[Verdict]:
        """Newest first."""
        ...


class Rollouts(Protocol):
    def add(self, rollout: Rollout) -> None:
        """Raises RouteBusy when the route has a live rollout, ProofRefused when its verdict was
        another rollout's proof already."""
        ...

    def get(self, rollout: str) -> Rollout:
        """Raises NotFound."""
        ...

    def save(self, rollout: Rollout) -> Rollout:
        """Store it at version + 1. Raises StaleWrite."""
        ...

    def live(self) -> Sequence[Rollout]: ...

    def baking(self) -> Sequence[Rollout]:
        """Promoted, and still compared with the incumbent before it."""
        ...

    def list(
        self,
        *,
        route: str | None = None,
        candidate: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[Rollout]:
        """Newest first."""
        ...


class Observations(Protocol):
    def append(
        self,
        blocks: Iterable[ObservationBlock],
        traffic: Iterable[TrafficMinute],
        spends: Iterable[KeySpend] = (),
    ) -> None:
        """A block already stored (rollout, worker, sequence) is left as it is.

        Traffic of the same (route, minute, worker, arm, target, revision) adds up, and so does
        what a key spent, by (key, day, worker).
        """
        ...

    def blocks(self, rollout: str, *, after: int = 0) -> Sequence[ObservationBlock]:
        """Numbered 1, 2, 3 … in order of arrival. after: only those of a higher number."""
        ...

    def traffic(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficMinute]:
        """Oldest first."""
        ...

    def totals(self, *, since: datetime, route: str | None = None) -> Sequence[TrafficTotal]:
        """Sums of what `traffic` gives, in order of route, arm and target."""
        ...

    def spends(self, *, since: date, keys: Collection[str] | None = None) -> Sequence[KeySpend]:
        """That day and later, of all keys unless some are named; in order of its key."""
        ...


class AuditLog(Protocol):
    def append(
        self,
        *,
        at: datetime,
        actor: Actor,
        action: str,
        subject: str,
        details: Mapping[str, object],
    ) -> AuditEvent: ...

    def tail(self, limit: int = 50) -> Sequence[AuditEvent]:
        """Newest first."""
        ...

    def all(self) -> Iterable[AuditEvent]:
        """Oldest first, read a page at a time."""
        ...

    def get(self, number: int) -> AuditEvent | None: ...

    def of(self, subject: str, *, since: datetime, limit: int) -> Sequence[AuditEvent]:
        """Newest first."""
        ...

    def after(self, number: int, limit: int = 500) -> Sequence[AuditEvent]:
        """At most `limit` events behind that number, oldest first."""
        ...

    def break_after(self, mark: AuditPosition, events: Sequence[AuditEvent]) -> int | None:
        """As `first_break`, of the events that follow `mark`."""
        ...

    def first_break(self) -> int | None:
        """The number of the first event that does not fit the chain; None when it is whole."""
        ...


class Principals(Protocol):
    """Who acts. The local operator is there from the start."""

    def add(self, new: Principal) -> None:
        """Raises Conflict when its id, its folded name, or issuer and subject are taken."""
        ...

    def get(self, principal: str) -> Principal:
        """Raises NotFound."""
        ...

    def named(self, name: str) -> Principal | None:
        """Whose folded name is the same."""
        ...

    def among(self, ids: Collection[str]) -> Mapping[str, Principal]:
        """Those of these that are stored, by id."""
        ...


class AuditAnchor(Protocol):
    """Where the end of the audit log is kept outside the database."""

    def read(self) -> AuditPosition | None:
        """None where nothing is kept yet. Raises SignatureInvalid."""
        ...

    def keep(self, mark: AuditPosition) -> None: ...


class AuditedRows(Protocol):
    """Rows whose every change an audit event records, by name and digest as they are now."""

    def page(self, after: str = "", limit: int = 200) -> Sequence[tuple[str, str]]:
        """At most `limit` rows, always in the same order; after: the last one seen."""
        ...

    def digests(self, rows: Collection[str]) -> Mapping[str, str | None]:
        """None for a row that is not there."""
        ...

    def deciding(self) -> Mapping[str, str]:
        """Open proposals with their approvals, rollouts that are not over with their proofs."""
        ...

    def serving(self) -> Mapping[str, str]:
        """What makes the newest snapshot, and why it may."""
        ...

    def take_over(self, now: datetime) -> int:
        """Record all rows as they are, unless rows were ever recorded; how many."""
        ...


class ApiKeys(Protocol):
    def add(self, key: ApiKey) -> None:
        """Raises Conflict when its id or hash is stored, InputError without its principal."""
        ...

    def get(self, key: str) -> ApiKey | None:
        """Also revoked ones: look at revoked_at."""
        ...

    def by_hash(self, hash_: str) -> ApiKey | None:
        """Also revoked ones: look at revoked_at."""
        ...

    def of_principal(self, principal: str) -> Sequence[ApiKey]:
        """Also revoked ones, oldest first."""
        ...

    def revoke(self, key: str, now: datetime) -> None:
        """Raises NotFound."""
        ...

    def limit(self, key: str, limits: KeyLimits | None) -> ApiKey:
        """Replace its limits. Raises NotFound."""
        ...


class Waivers(Protocol):
    def add(self, waiver: Waiver) -> None: ...

    def list(self, *, route: str | None = None) -> Sequence[Waiver]: ...


@dataclass(frozen=True, slots=True)
class SwitchRecord:
    """A kill switch as it is stored. lifted_at, lifted_by: None until somebody lifts it."""

    switch: KillSwitch
    lifted_at: datetime | None = None
    lifted_by: str | None = None


class Switches(Protocol):
    """Kill switches of CLI and REST; those of the environment and the file are not stored."""

    def add(self, switch: KillSwitch) -> None:
        """Raises InputError without a reason, Conflict when the id is stored already."""
        ...

    def lift(self, id_: str, *, actor: str, now: datetime) -> SwitchRecord:
        """Lifting it again changes nothing. Raises NotFound."""
        ...

    def get(self, id_: str) -> SwitchRecord:
        """Raises NotFound."""
        ...

    def not_lifted(self) -> Sequence[KillSwitch]:
        """Newest first; expired ones too."""
        ...


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """A shadow as it is stored. ended_at, ended_by: None until it ends."""

    shadow: Shadow
    ended_at: datetime | None = None
    ended_by: str | None = None
    ended_because: str | None = None


class Shadows(Protocol):
    """Shadows (F8), and what workers added up of their pairs."""

    def add(self, new: Shadow) -> None:
        """Raises InputError for limits that make no sense, Conflict while the route has one."""
        ...

    def end(self, id_: str, *, actor: str, because: str, now: datetime) -> ShadowRecord:
        """Ending it again changes nothing. Raises NotFound."""
        ...

    def list(
        self,
        *,
        route: str | None = None,
        proposal: str | None = None,
        limit: int = MOST_LISTED,
    ) -> Sequence[ShadowRecord]:
        """Newest first, `limit` at the most; ended ones too."""
        ...

    def live(self) -> Sequence[Shadow]:
        """Those that nobody has ended; expired ones too."""
        ...

    def append(self, more: Iterable[ShadowTally]) -> None:
        """Add to what is stored of the same shadow, day and worker."""
        ...

    def tallies(
        self, shadows: Sequence[str], *, since: date | None = None
    ) -> Sequence[ShadowTally]:
        """By shadow, day and worker. since: the first day, None for all."""
        ...


class Alerts(Protocol):
    def tell(self, alerts: Iterable[Alert]) -> None:
        """Fold them into the records of their keys, in their order (`domain.alerts.heard`)."""
        ...

    def get(self, alert: str) -> AlertRecord:
        """Raises NotFound."""
        ...

    def newest(self, key: str) -> AlertRecord | None:
        """In a `write()`, nobody else changes it until the end of the unit of work."""
        ...

    def save(self, record: AlertRecord) -> None:
        """Raises NotFound."""
        ...

    def list(
        self, *, open_only: bool = False, kind: AlertKind | None = None, limit: int = 100
    ) -> Sequence[AlertRecord]:
        """The one heard last first. kind: None for all."""
        ...

    def unsettled(self) -> Sequence[AlertRecord]:
        """Those that are open, or of which people may have something left to hear."""
        ...

    def forget(self, before: datetime) -> int:
        """Delete what ended before; how many. Their deliveries go with them."""
        ...


class Deliveries(Protocol):
    """The outbox: one row per message and sink."""

    def add(self, delivery: Delivery) -> None: ...

    def due(self, now: datetime, *, limit: int = 100) -> Sequence[Delivery]:
        """Oldest first; not before an earlier one of the same alert and sink is over."""
        ...

    def save(self, delivery: Delivery) -> None: ...

    def of(self, alert: str) -> Sequence[Delivery]:
        """Oldest first."""
        ...


class AlertSinks(Protocol):
    """Who is told of alerts, by name."""

    def names(self) -> Sequence[str]: ...

    def send(self, sink: str, message: AlertMessage) -> None:
        """Blocks for a bounded time. Raises DeliveryFailed, without any secret in its words."""
        ...


class Failovers(Protocol):
    def append(self, rows: Iterable[Failover]) -> None:
        """One already stored (worker, number) is left as it is."""
        ...

    def forget(self, before: datetime) -> int:
        """Delete the older ones; how many."""
        ...


class Sightings(Protocol):
    def note(self, seen: Iterable[Sighting]) -> None:
        """Add them; of one that is known, `last_at` rises. The oldest of a target give way."""
        ...

    def of(self, target: str) -> Sequence[Sighting]:
        """Newest first, at most MOST_SIGHTINGS."""
        ...


class Drift(Protocol):
    """Watches of incumbents, and the runs that they compare."""

    def open(self, watch: DriftWatch) -> bool:
        """False when that target and suite has an open watch."""
        ...

    def save(self, watch: DriftWatch) -> bool:
        """Its state and end; False when it is closed already."""
        ...

    def watches(
        self, *, open_only: bool = False, limit: int = MOST_LISTED
    ) -> Sequence[DriftWatch]:
        """Newest first, `limit` at the most."""
        ...

    def start(self, check: DriftCheck) -> bool:
        """False when the watch has a running check, or one of that number."""
        ...

    def end(self, check: DriftCheck) -> bool:
        """Store how it ended; False when it runs no more."""
        ...

    def checks(self, watch: str) -> Sequence[DriftCheck]:
        """Oldest first."""
        ...


class Captures(Protocol):
    """Requests with their answers, redacted before they come here (F9)."""

    def add(self, new: CapturedRequest, *, most_per_day: int) -> CaptureResult:
        """One already stored (id) is counted. most_per_day: of its route, by UTC day."""
        ...

    def get(self, id_: str) -> CapturedRequest:
        """Raises NotFound."""
        ...

    def list(
        self,
        *,
        route: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> Sequence[CapturedRequest]:
        """Newest first."""
        ...

    def forget(self, now: datetime) -> int:
        """Delete those that have expired; how many."""
        ...

    def purge(
        self, *, id_: str | None = None, route: str | None = None, users: Sequence[str] = ()
    ) -> int:
        """Delete those that fit all that is given, all of them if nothing is; how many.

        users: hashes, any of them.
        """
        ...


class Credentials(Protocol):
    """Keys of providers, encrypted by whoever stores them. None is ever deleted."""

    def all(self) -> Sequence[Credential]:
        """By provider, in the order in which they are tried; those taken away too."""
        ...

    def put(self, credential: Credential) -> None:
        """Add it, or replace the one of its provider and name. Raises InputError for an
        unknown provider."""
        ...


class SignIns(Protocol):
    """What people's signing in left behind, one per provider. Routers never see it."""

    def all(self) -> Sequence[SignIn]:
        """By provider."""
        ...

    def start(self, new: SignIn) -> None:
        """Instead of the provider's last one. Raises InputError for an unknown provider."""
        ...

    def save(self, changed: SignIn) -> None:
        """Raises StaleWrite where it is over: somebody signed in anew, or out."""
        ...

    def end(self, provider: str) -> bool:
        """Whether there was one."""
        ...


class ProviderChecks(Protocol):
    """What `/check` found of each provider last, whichever process asked (D5)."""

    def all(self) -> Sequence[ProviderCheck]:
        """By provider."""
        ...

    def keep(self, checks: Iterable[ProviderCheck]) -> None:
        """Each instead of an older one of its provider.

        Raises InputError for an unknown provider.
        """
        ...


class OAuthServer(Protocol):
    """Where people sign in for a provider.

    All raise SignInRefused with the server's word, SignInUnreachable, also for an answer that
    is none.
    """

    def device_code(self, place: OAuthEndpoints) -> DeviceCode: ...

    def poll(self, place: OAuthEndpoints, code: DeviceCode) -> PollAnswer | OAuthTokens:
        """Whether the person is done. What cannot be reached is an Answer, too."""
        ...

    def refresh(self, place: OAuthEndpoints, refresh_token: str) -> OAuthTokens: ...

    def exchange(self, place: OAuthEndpoints, account_token: str) -> OAuthTokens:
        """A short-lived token for the account's."""
        ...


class Cipher(Protocol):
    """Encrypts what must not be read in the database, on disk or in a backup."""

    def encrypt(self, text: str) -> str: ...

    def decrypt(self, token: str) -> str:
        """Raises DecryptionFailed, ConfigError without any key."""
        ...

    def again(self, token: str) -> str:
        """The same text, encrypted with the newest key. Raises as `decrypt`."""
        ...


class Signer(Protocol):
    """Signs with this process's private key."""

    def sign(self, payload: bytes) -> str:
        """`<key id>.<base64url>`. Raises ConfigError where this process has no private key."""
        ...


class Verifier(Protocol):
    """Has public keys alone."""

    def check(self, payload: bytes, signature: str, purpose: KeyPurpose) -> None:
        """purpose: of the key that must have signed; one of `control` may sign everything.

        Raises SignatureInvalid, ConfigError without a keyring. What held once is remembered.
        """
        ...


class Signatures(Signer, Verifier, Protocol):
    """Both, for a store: one that only reads never asks for the private key."""


class Installations(Protocol):
    """The database's own place in the history of its installation."""

    def lineage(self) -> Lineage: ...

    def epoch(self) -> int:
        """`lineage().epoch`, cheaply."""
        ...

    def highest_served(self) -> int:
        """The highest revision that traffic was recorded of; 0 without any."""
        ...

    def open_epoch(self, *, above: int) -> Lineage:
        """Begin a new epoch, in which revisions go on above `above`; see domain.lineage."""
        ...


class Transaction(Protocol):
    @property
    def installation(self) -> Installations: ...
    @property
    def routing(self) -> Routing: ...
    @property
    def providers(self) -> Providers: ...
    @property
    def proposals(self) -> Proposals: ...
    @property
    def approvals(self) -> Approvals: ...
    @property
    def runs(self) -> EvalRuns: ...
    @property
    def suites(self) -> Suites: ...
    @property
    def verdicts(self) -> Verdicts: ...
    @property
    def rollouts(self) -> Rollouts: ...
    @property
    def observations(self) -> Observations: ...
    @property
    def audit(self) -> AuditLog: ...
    @property
    def principals(self) -> Principals: ...
    @property
    def audited(self) -> AuditedRows: ...
    @property
    def keys(self) -> ApiKeys: ...
    @property
    def waivers(self) -> Waivers: ...
    @property
    def switches(self) -> Switches: ...
    @property
    def shadows(self) -> Shadows: ...
    @property
    def alerts(self) -> Alerts: ...
    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def failovers(self) -> Failovers: ...
    @property
    def sightings(self) -> Sightings: ...
    @property
    def drift(self) -> Drift: ...
    @property
    def captures(self) -> Captures: ...
    @property
    def credentials(self) -> Credentials: ...
    @property
    def sign_ins(self) -> SignIns: ...
    @property
    def provider_checks(self) -> ProviderChecks: ...


class Listings(Protocol):
    """Pages of what is stored, for people to look at; `asked.after` raises NotFound for a row
    that is not stored, InputError for what is no cursor.

    A row that is not as it was signed is named in its page and does not hide the others. That
    is why a Transaction has none of this: nothing is decided by what is read here.
    """

    def proposals(
        self,
        asked: PageRequest = FIRST_PAGE,
        *,
        route: str | None = None,
        open_only: bool = False,
    ) -> Page[Proposal]:
        """Newest first."""
        ...

    def runs(
        self, asked: PageRequest = FIRST_PAGE, *, states: Sequence[RunState] = ()
    ) -> Page[EvalRun]:
        """Newest first; all states when none is named."""
        ...

    def samples(self, asked: PageRequest = FIRST_PAGE, *, run: str) -> Page[Sample]:
        """In the run's order. Raises NotFound for an unknown run."""
        ...

    def targets(self, asked: PageRequest = FIRST_PAGE) -> Page[Target]:
        """By provider and model."""
        ...

    def versions(self, asked: PageRequest = FIRST_PAGE, *, route: str) -> Page[RouteRecord]:
        """Newest first. Raises NotFound for an unknown route."""
        ...

    def keys(self, asked: PageRequest = FIRST_PAGE) -> Page[ApiKey]:
        """Oldest first; revoked ones too."""
        ...

    def switches(self, asked: PageRequest = FIRST_PAGE) -> Page[SwitchRecord]:
        """Newest first; lifted and expired ones too."""
        ...

    def shadows(
        self, asked: PageRequest = FIRST_PAGE, *, route: str | None = None
    ) -> Page[ShadowRecord]:
        """Newest first; ended ones too."""
        ...

    def drift_checks(
        self,
        asked: PageRequest = FIRST_PAGE,
        *,
        target: str | None = None,
        suites: Collection[str] | None = None,
    ) -> Page[tuple[DriftWatch, DriftCheck]]:
        """Newest first; of all targets and suites unless some are named."""
        ...

    def alerts(
        self, asked: PageRequest = FIRST_PAGE, *, open_only: bool = False
    ) -> Page[AlertRecord]:
        """The one heard last first."""
        ...

    def failovers(
        self,
        asked: PageRequest = FIRST_PAGE,
        *,
        since: datetime,
        route: str | None = None,
        user_hashes: Sequence[str] = (),
    ) -> Page[Failover]:
        """Newest first. user_hashes: any of them; empty for all users."""
        ...

    def captures(
        self, asked: PageRequest = FIRST_PAGE, *, route: str | None = None
    ) -> Page[CapturedRequest]:
        """Newest first."""
        ...

    def events(self, asked: PageRequest = FIRST_PAGE) -> Page[AuditEvent]:
        """Of the audit log, newest first."""
        ...

    def verdicts(self, ids: Collection[str]) -> Mapping[str, Verdict]:
        """Those of these that are stored and as they were signed."""
        ...

    def targets_of(self, ids: Collection[str]) -> Mapping[str, Target]:
        """As `verdicts`."""
        ...

    def routes(self) -> Page[Route]:
        """All of them by name, as they are now."""
        ...


class Store(Protocol):
    """One database. Thread-safe; raises StoreUnavailable when it does not answer."""

    def write(self) -> AbstractContextManager[Transaction]:
        """Commits at the end of the block; an exception rolls all of it back."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """A consistent view; writing in it is an error."""
        ...

    def listings(self) -> AbstractContextManager[Listings]:
        """A consistent view, to be shown."""
        ...

    def snapshot(self) -> Snapshot:
        """What a router serves from, read at one moment."""
        ...

    def etag(self) -> str:
        """The snapshot's etag, cheaply."""
        ...

    def signature_faults(self, *, working: bool = False) -> Sequence[RowFault]:
        """Every stored row whose signature does not hold; reads all of them.

        working: of open proposals, live rollouts and runs that are to go on alone.
        """
        ...

    def lacking(self, known: Lineage) -> Sequence[str]:
        """What of `heads` and `log_end` is not stored, in words; empty when all is."""
        ...

    def wait_for_change(self, timeout_s: float) -> bool:
        """Block until something may have changed, or the time is up (False)."""
        ...

    def try_lead(self, owner: str) -> bool:
        """Whether this process is, or has just become, the one that runs the reconcile loop."""
        ...

    def close(self) -> None: ...


class EvalWorkers(Protocol):
    """One worker process per run and target."""

    def start(self, run: str) -> str:
        """Start a worker; its owner name for the lease."""
        ...

    def alive(self) -> Mapping[str, str]:
        """Run to owner, for workers that still run."""
        ...

    def reap(self) -> Sequence[tuple[str, str, int, str]]:
        """(run, owner, exit code, last words) of workers that ended since the last call."""
        ...

    def stop(self, run: str) -> None: ...

    def stop_all(self) -> None: ...


@dataclass(frozen=True)
class EvalJob:
    """What a worker is to do. done: (item, epoch) pairs that are stored already.

    judge, judge_provider, judge_api_key: of the suite's judge, where it has one; judge is the
    id of its target.
    """

    run: EvalRun
    target: Target
    provider: Provider
    api_key: str | None = field(repr=False)
    done: frozenset[tuple[str, int]] = frozenset()
    max_connections: int = 8
    judge_provider: Provider | None = None
    judge_api_key: str | None = field(default=None, repr=False)
    judge: str = ""


@dataclass(frozen=True, slots=True)
class Posted:
    """A provider's whole answer. headers: by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class ProviderCalls(Protocol):
    """Carries OpenAI's requests to a provider, in that one's own words. Never tries again.

    Belongs to the event loop that calls first.
    """

    async def post(self, path: str, body: bytes) -> Posted:
        """path: OpenAI's, e.g. `/chat/completions`. Any status is an answer, as OpenAI would
        word it. Raises NoAnswer when there is none.
        """
        ...

    async def close(self) -> None: ...


class ProviderCallsFactory(Protocol):
    def __call__(
        self,
        provider: Provider,
        api_key: str | None,
        *,
        connections: int,
        timeout_s: float,
        allowed: Collection[str],
    ) -> ProviderCalls:
        """timeout_s: of one call. allowed: as `domain.base_url` reads it.

        Raises ConfigError where what a kind of provider needs is not installed.
        """
        ...


class RateBook(Protocol):
    """The state of rate limits by name. Never waits, never raises."""

    def change(self, key: str, change: Callable[[RateState], RateState]) -> RateState:
        """Replace the key's state by what comes of it; the state before."""
        ...

    def close(self) -> None: ...


class EvalRunner(Protocol):
    @property
    def remark(self) -> str:
        """Of the last run: why it failed, or how far its judge agrees with people. May be
        empty.
        """
        ...

    def run(
        self, job: EvalJob, on_sample: Callable[[Sample], bool], stop: Callable[[], bool]
    ) -> RunState:
        """Ask and score every sample that is missing, in order; hand each over as it finishes.

        on_sample: stores it; False ends the run (budget, lease lost). stop: asked between
        samples. Returns DONE, STOPPED, OVER_BUDGET or FAILED. Errors of samples are samples.
        Raises JudgeUnfit when nothing can be measured with the suite's judge.
        """
        ...


class ModelTable(Protocol):
    """What is known of models, from what lies on this machine."""

    def catalogue(self) -> Catalogue:
        """Always the same; the first call may read a file."""
        ...


class SuiteCatalog(Protocol):
    """The suites that this installation knows."""

    def names(self) -> Sequence[str]: ...

    def pin(self, suite: str) -> SuitePin:
        """Raises NotFound, naming the nearest suite."""
        ...

    def title(self, suite: str) -> str: ...

    def data_class(self, suite: str) -> str:
        """Of its data (D8), empty for none. Raises NotFound."""
        ...

    def tags(self, suite: str) -> Mapping[str, tuple[str, ...]]:
        """Item → its tags, of the items that have any. Raises as pin()."""
        ...

    def shown(self, suite: str, item: str) -> tuple[str, str]:
        """An item's input and target, as people read them. Raises NotFound, and as pin()."""
        ...
