"""Protocols of the database as a whole: a unit of work (`Transaction`), pages of stored rows
for people (`Listings`), and the `Store`, which opens both and gives a router's snapshot.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.grant import AgentGrant
from harness.domain.agents.message import MessageRecord
from harness.domain.agents.model_figures import ModelUsage
from harness.domain.agents.switch_request import ModelSwitchRequest
from harness.domain.drift import DriftCheck, DriftWatch
from harness.domain.evals.run import EvalRun, RunState, Sample
from harness.domain.evals.verdict import Verdict
from harness.domain.operations.access import ApiKey
from harness.domain.operations.alert_record import AlertRecord
from harness.domain.operations.audit import ALL_EVENTS, AuditEvent, AuditFilter
from harness.domain.operations.row_signatures import RowFault
from harness.domain.pagination import FIRST_PAGE, Page, PageRequest
from harness.domain.privacy.capture import CapturedRequest
from harness.domain.proposals.proof import Proof
from harness.domain.proposals.proposal import Proposal
from harness.domain.reliability.failover import Failover, FailoverCount
from harness.domain.routing.evidence import BreakGlass
from harness.domain.routing.freeze import FreezeRecord
from harness.domain.routing.snapshot_lineage import Lineage
from harness.domain.routing.table import Route, Snapshot
from harness.domain.routing.target import Target
from harness.ports.access import ApiKeys, DashboardSessions, PersonLinks, Principals
from harness.ports.agents import (
    AgentGrants,
    Agents,
    IdempotentAnswers,
    SessionMessages,
    Sessions,
    SwitchRequests,
    Turns,
)
from harness.ports.evals import Drift, EvalRuns, Sightings, Suites
from harness.ports.operations import (
    Alerts,
    AuditLog,
    Deliveries,
    Failovers,
    IdempotentRequests,
    Installations,
    Spending,
)
from harness.ports.proposals import Approvals, Observations, Proposals, Rollouts, Verdicts
from harness.ports.providers import (
    Credentials,
    DiscoveredModels,
    ProviderChecks,
    Providers,
    SignIns,
)
from harness.ports.routing import (
    BreakGlasses,
    Captures,
    Freezes,
    RouteHead,
    RouteRecord,
    Routing,
    ShadowRecord,
    Shadows,
    Switches,
    SwitchRecord,
    Waivers,
)


class Preload(Protocol):
    """Reads for many, by one statement, what a `read()` is asked for one by one afterwards; who
    asks gets the same answer, and the same refusal of a forged row. A `write()` keeps nothing.
    """

    def routes(self, names: Collection[str]) -> None:
        """Reads what `routing.route` and `routing.changed_at` are asked for."""
        ...

    def later_versions(self, rollouts: Mapping[str, str]) -> None:
        """Reads what `routing.later_versions` is asked for. rollouts: their routes, by id."""
        ...

    def verdicts(self, ids: Collection[str]) -> None:
        """Reads what `verdicts.get` is asked for."""
        ...

    def newest_verdicts(self, routes: Collection[str]) -> None:
        """Reads what `verdicts.newest` is asked for."""
        ...

    def newest_rollouts(self, routes: Collection[str]) -> None:
        """Reads what `rollouts.newest` is asked for."""
        ...

    def newest_alerts(self, keys: Collection[str]) -> None:
        """Reads what `alerts.newest` is asked for."""
        ...

    def deliveries(self, alerts: Collection[str]) -> None:
        """Reads what `deliveries.for_alert` is asked for."""
        ...

    def blocks(self, rollouts: Collection[str]) -> None:
        """Reads what `observations.blocks` is asked for."""
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
    def person_links(self) -> PersonLinks: ...
    @property
    def keys(self) -> ApiKeys: ...
    @property
    def dashboard_sessions(self) -> DashboardSessions: ...
    @property
    def waivers(self) -> Waivers: ...
    @property
    def switches(self) -> Switches: ...
    @property
    def freezes(self) -> Freezes: ...
    @property
    def break_glasses(self) -> BreakGlasses: ...
    @property
    def shadows(self) -> Shadows: ...
    @property
    def spending(self) -> Spending: ...
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
    @property
    def discovered_models(self) -> DiscoveredModels: ...
    @property
    def agents(self) -> Agents: ...
    @property
    def agent_grants(self) -> AgentGrants: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def session_messages(self) -> SessionMessages: ...
    @property
    def turns(self) -> Turns: ...
    @property
    def switch_requests(self) -> SwitchRequests: ...
    @property
    def idempotent_answers(self) -> IdempotentAnswers: ...
    @property
    def idempotent_requests(self) -> IdempotentRequests: ...
    @property
    def preload(self) -> Preload: ...

    def export_proof(self, proposal: Proposal, at: datetime) -> Proof:
        """Reads the signed rows that the proposal's swap rests on, and signs the whole."""
        ...


class Listings(Protocol):
    """Pages of what is stored, for people to look at; `asked.after` raises NotFound for a row
    that is not stored, InputError for what is no cursor.

    A row that is not as it was signed is named in its page and does not hide the others. That
    is why a Transaction has none of this: nothing is decided by what is read here.
    """

    def proposals(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        route: str | None = None,
        open_only: bool = False,
        decided_only: bool = False,
    ) -> Page[Proposal]:
        """Lists the proposals, newest first. decided_only: those that have ended."""
        ...

    def runs(
        self, page_request: PageRequest = FIRST_PAGE, *, states: Sequence[RunState] = ()
    ) -> Page[EvalRun]:
        """Lists the eval runs, newest first; those of all states when none is named."""
        ...

    def samples(self, page_request: PageRequest = FIRST_PAGE, *, run: str) -> Page[Sample]:
        """Lists a run's samples in the run's order. Raises NotFound for an unknown run."""
        ...

    def targets(self, page_request: PageRequest = FIRST_PAGE) -> Page[Target]:
        """Lists the targets by provider and model."""
        ...

    def versions(
        self, page_request: PageRequest = FIRST_PAGE, *, route: str
    ) -> Page[RouteRecord]:
        """Lists the versions of a route, newest first. Raises NotFound for an unknown route."""
        ...

    def keys(self, page_request: PageRequest = FIRST_PAGE) -> Page[ApiKey]:
        """Lists the data and management keys, oldest first, with the revoked ones."""
        ...

    def switches(self, page_request: PageRequest = FIRST_PAGE) -> Page[SwitchRecord]:
        """Lists the kill switches, newest first, with the lifted and expired ones."""
        ...

    def freezes(
        self, page_request: PageRequest = FIRST_PAGE, *, route: str | None = None
    ) -> Page[FreezeRecord]:
        """Lists the freezes that people set, newest first, with the lifted and past ones.
        route: those about it alone, with those of all routes.
        """
        ...

    def break_glasses(self, page_request: PageRequest = FIRST_PAGE) -> Page[BreakGlass]:
        """Lists the break-glasses, newest first, with those that are over."""
        ...

    def shadows(
        self, page_request: PageRequest = FIRST_PAGE, *, route: str | None = None
    ) -> Page[ShadowRecord]:
        """Lists the shadows, newest first, with those that have ended."""
        ...

    def drift_checks(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        target: str | None = None,
        suites: Collection[str] | None = None,
    ) -> Page[tuple[DriftWatch, DriftCheck]]:
        """Lists the runs of drift watches, newest first; of all targets and suites unless some
        are named.
        """
        ...

    def alerts(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        open_only: bool = False,
        search: str = "",
    ) -> Page[AlertRecord]:
        """Lists the alerts, the one seen last first. search: a part of their text."""
        ...

    def failovers(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        since: datetime,
        route: str | None = None,
        user_hashes: Sequence[str] = (),
    ) -> Page[Failover]:
        """Lists the failovers, newest first. user_hashes: any of them; empty for all users."""
        ...

    def failover_counts(
        self, *, since: datetime, route: str | None = None
    ) -> Sequence[FailoverCount]:
        """Counts the failovers by route, target and failure, the most frequent first."""
        ...

    def captures(
        self, page_request: PageRequest = FIRST_PAGE, *, route: str | None = None
    ) -> Page[CapturedRequest]:
        """Lists the captured requests, newest first."""
        ...

    def agents(
        self, page_request: PageRequest = FIRST_PAGE, *, owner_key: str | None = None
    ) -> Page[Agent]:
        """Lists the agents, newest first, without deleted ones. owner_key: the key that created
        them, empty for those that no key created, None for all.
        """
        ...

    def sessions(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        agent: str | None = None,
        user_id: str | None = None,
        parent: str | None = None,
    ) -> Page[AgentSession]:
        """Lists the sessions, newest first; closed ones too. parent: the session that spawned
        them, empty for those that none did, None for all.
        """
        ...

    def session_messages(
        self, page_request: PageRequest = FIRST_PAGE, *, session: str
    ) -> Page[MessageRecord]:
        """Lists a session's messages by position."""
        ...

    def model_usage(self, *, sessions: Collection[str]) -> Sequence[ModelUsage]:
        """What each model did in these sessions, by the model's name."""
        ...

    def switch_requests(
        self,
        page_request: PageRequest = FIRST_PAGE,
        *,
        session: str | None = None,
        pending_only: bool = False,
    ) -> Page[ModelSwitchRequest]:
        """Lists the switch requests, newest first."""
        ...

    def agent_grants(
        self, page_request: PageRequest = FIRST_PAGE, *, agent: str | None = None
    ) -> Page[AgentGrant]:
        """Lists the agents' grants, newest first; revoked and expired ones too."""
        ...

    def events(
        self, page_request: PageRequest = FIRST_PAGE, *, selection: AuditFilter = ALL_EVENTS
    ) -> Page[AuditEvent]:
        """Lists the selected audit events, newest first."""
        ...

    def verdicts(self, ids: Collection[str]) -> Mapping[str, Verdict]:
        """Loads the verdicts with these ids, without those that are not as they were signed."""
        ...

    def targets_of(self, ids: Collection[str]) -> Mapping[str, Target]:
        """Loads the targets with these ids, without those that are not as they were signed."""
        ...

    def routes(self, page_request: PageRequest | None = None) -> Page[Route]:
        """Lists the routes by name, as they are now; all of them without a page."""
        ...

    def routes_named(self, names: Collection[str]) -> Page[Route]:
        """Loads the routes with these names."""
        ...

    def route_heads(self) -> Sequence[RouteHead]:
        """Lists by name what all routes are sorted by; forged rows are among them."""
        ...

    def suite_users(self) -> Mapping[str, Sequence[str]]:
        """Names the routes that use each suite, by suite; forged rows are among them. A row
        that cannot be read is named under the empty name.
        """
        ...

    def target_users(self) -> Mapping[str, Sequence[str]]:
        """Names the routes that use each target, by its id; forged rows are among them."""
        ...


class Store(Protocol):
    """Opens transactions and views of one database. Thread-safe; raises StoreUnavailable when
    it does not answer.
    """

    def write(self) -> AbstractContextManager[Transaction]:
        """Opens a transaction that commits at the end of the block; an exception rolls all of
        it back.
        """
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """A consistent view; writing in it is an error."""
        ...

    def listings(self) -> AbstractContextManager[Listings]:
        """Opens a consistent view of what is shown to people."""
        ...

    def snapshot(self) -> Snapshot:
        """What a router serves from, read at one moment."""
        ...

    def etag(self) -> str:
        """Reads the snapshot's etag alone, which is cheap."""
        ...

    def change_mark(self) -> str:
        """Reads a mark that is another one whenever anything was committed since, by whomever;
        which is cheap.
        """
        ...

    def signature_faults(self, *, working: bool = False) -> Sequence[RowFault]:
        """Finds every stored row whose signature does not hold; reads all of them.

        working: of open proposals, live rollouts and runs that are to go on alone.
        """
        ...

    def missing_lineage(self, known: Lineage) -> Sequence[str]:
        """Says what of a lineage's `heads` and `log_end` is not stored; empty when all is."""
        ...

    def drop_deleted(self) -> None:
        """Lets go of copies of what was deleted, as in SQLite's log, as far as nobody reads."""
        ...

    def leader(self) -> str:
        """Names the process that leads; empty where none does."""
        ...

    def wait_for_change(self, timeout_s: float) -> bool:
        """Block until something may have changed, or the time is up (False)."""
        ...

    def close(self) -> None: ...


class LeaderStore(Store, Protocol):
    """A store whose control processes elect one that leads."""

    def try_lead(self, owner: str) -> bool:
        """Returns whether this process leads, from now on or still."""
        ...
