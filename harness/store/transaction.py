"""`Transaction` is one unit of work: all repositories on one connection. The database stores
all of it, or nothing. Its reads see its writes.
"""

from collections.abc import Sequence
from datetime import datetime

from harness.domain.operations.row_signatures import SignedRows
from harness.domain.proposals.proof import Proof
from harness.domain.proposals.proposal import Proposal
from harness.domain.routing.snapshot_lineage import Lineage
from harness.ports import Clock
from harness.store.signing import signed_snapshot
from harness.store.signing.proof_rows import read_proof
from harness.store.sql.agents import AgentGrants, Agents, SwitchRequests
from harness.store.sql.audit import AuditLog
from harness.store.sql.drift import Drift
from harness.store.sql.evals import EvalRuns, Suites
from harness.store.sql.evidence import Waivers
from harness.store.sql.installation import Installations, missing_heads
from harness.store.sql.interventions import BreakGlasses, Freezes, Switches
from harness.store.sql.observations import Captures, Failovers, Observations
from harness.store.sql.operations import (
    Alerts,
    ApiKeys,
    DashboardSessions,
    Deliveries,
    PersonLinks,
    Principals,
)
from harness.store.sql.preload import Preload
from harness.store.sql.proposals import Approvals, Proposals, Rollouts, Verdicts
from harness.store.sql.providers import (
    Credentials,
    DiscoveredModels,
    ProviderChecks,
    Providers,
    Sightings,
    SignIns,
)
from harness.store.sql.routing import Routing
from harness.store.sql.sessions import (
    IdempotentAnswers,
    IdempotentRequests,
    SessionMessages,
    Sessions,
    Turns,
)
from harness.store.sql.shadow import Shadows
from harness.store.sql.spending import Spending
from harness.store.unit_of_work import Unit


class Transaction:
    def __init__(self, unit: Unit, *, secret: bytes, clock: Clock) -> None:
        now = clock.now()
        self.routing = Routing(unit)
        self.providers = Providers(unit, now)
        self.proposals = Proposals(unit)
        self.approvals = Approvals(unit)
        self.runs = EvalRuns(unit)
        self.suites = Suites(unit)
        self.verdicts = Verdicts(unit)
        self.rollouts = Rollouts(unit)
        self.observations = Observations(unit)
        self.audit = AuditLog(unit, secret)
        self.principals = Principals(unit)
        self.person_links = PersonLinks(unit)
        self.keys = ApiKeys(unit)
        self.dashboard_sessions = DashboardSessions(unit)
        self.waivers = Waivers(unit, now)
        self.switches = Switches(unit)
        self.freezes = Freezes(unit)
        self.break_glasses = BreakGlasses(unit)
        self.shadows = Shadows(unit)
        self.spending = Spending(unit)
        self.alerts = Alerts(unit)
        self.deliveries = Deliveries(unit)
        self.failovers = Failovers(unit)
        self.sightings = Sightings(unit)
        self.drift = Drift(unit)
        self.captures = Captures(unit)
        self.credentials = Credentials(unit)
        self.sign_ins = SignIns(unit)
        self.provider_checks = ProviderChecks(unit)
        self.discovered_models = DiscoveredModels(unit)
        self.agents = Agents(unit)
        self.agent_grants = AgentGrants(unit)
        self.sessions = Sessions(unit)
        self.session_messages = SessionMessages(unit)
        self.turns = Turns(unit)
        self.switch_requests = SwitchRequests(unit)
        self.idempotent_answers = IdempotentAnswers(unit)
        self.idempotent_requests = IdempotentRequests(unit)
        self.installation = Installations(unit)
        self.preload = Preload(unit)
        self._unit = unit

    def missing_lineage(self, known: Lineage) -> Sequence[str]:
        lost = [
            f"the served version of route {name}"
            for name in missing_heads(self._unit, known.heads)
        ]
        number, _, mac = known.log_end.partition(":")
        if number and [event.mac for event in self.audit.after(int(number) - 1, 1)] != [mac]:
            lost.append(f"event {number} of the audit log")
        return lost

    def signed_rows(self) -> SignedRows:
        """Reads the rows that make a snapshot, not verified yet."""
        return signed_snapshot.read(self._unit, self.installation.lineage().installation)

    def export_proof(self, proposal: Proposal, at: datetime) -> Proof:
        installation = self.installation.lineage().installation
        return read_proof(self._unit, installation, proposal, at.isoformat())

    def finish(self, now: datetime) -> None:
        self._unit.finish(now)
