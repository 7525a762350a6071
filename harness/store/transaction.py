"""`Transaction` is one unit of work: all repositories on one connection. The database stores
all of it, or nothing. Its reads see its writes.
"""

from collections.abc import Sequence
from datetime import datetime

from harness.domain.operations.signed_rows import Lineage, SignedRows
from harness.domain.proposals.proof import Proof
from harness.domain.proposals.proposal import Proposal
from harness.ports import Clock
from harness.store.signing import signed_snapshot
from harness.store.signing.proof_rows import read_proof
from harness.store.sql import (
    agents,
    audit,
    drift,
    evals,
    evidence,
    installation,
    interventions,
    observations,
    operations,
    preload,
    proposals,
    providers,
    routing,
)
from harness.store.unit_of_work import Unit


class Transaction:
    def __init__(self, unit: Unit, *, secret: bytes, clock: Clock) -> None:
        now = clock.now()
        self.routing = routing.Routing(unit)
        self.providers = providers.Providers(unit, now)
        self.proposals = proposals.Proposals(unit)
        self.approvals = proposals.Approvals(unit)
        self.runs = evals.EvalRuns(unit)
        self.suites = evals.Suites(unit)
        self.verdicts = proposals.Verdicts(unit)
        self.rollouts = proposals.Rollouts(unit)
        self.candidate_rounds = proposals.CandidateRounds(unit)
        self.observations = observations.Observations(unit)
        self.audit = audit.AuditLog(unit, secret, clock)
        self.principals = operations.Principals(unit)
        self.person_links = operations.PersonLinks(unit)
        self.keys = operations.ApiKeys(unit)
        self.dashboard_sessions = operations.DashboardSessions(unit)
        self.waivers = evidence.Waivers(unit, now)
        self.switches = interventions.Switches(unit)
        self.freezes = interventions.Freezes(unit)
        self.break_glasses = interventions.BreakGlasses(unit)
        self.shadows = interventions.Shadows(unit)
        self.spending = installation.Spending(unit)
        self.alerts = operations.Alerts(unit)
        self.deliveries = operations.Deliveries(unit)
        self.failovers = observations.Failovers(unit)
        self.sightings = providers.Sightings(unit)
        self.drift = drift.Drift(unit)
        self.captures = observations.Captures(unit)
        self.credentials = providers.Credentials(unit)
        self.sign_ins = providers.SignIns(unit)
        self.provider_checks = providers.ProviderChecks(unit)
        self.discovered_models = providers.DiscoveredModels(unit)
        self.agents = agents.Agents(unit)
        self.agent_grants = agents.AgentGrants(unit)
        self.sessions = agents.Sessions(unit)
        self.session_messages = agents.SessionMessages(unit)
        self.switch_requests = agents.SwitchRequests(unit)
        self.idempotent_requests = operations.IdempotentRequests(unit)
        self.installation = installation.Installations(unit)
        self.preload = preload.Preload(unit)
        self._unit, self._clock = unit, clock

    def now(self) -> datetime:
        return self._clock.now()

    def missing_lineage(self, known: Lineage) -> Sequence[str]:
        lost = [
            f"the served version of route {name}"
            for name in installation.missing_heads(self._unit, known.heads)
        ]
        number, _, mac = known.log_end.partition(":")
        if number and [event.mac for event in self.audit.after(int(number) - 1, 1)] != [mac]:
            lost.append(f"event {number} of the audit log")
        return lost

    def signed_rows(self) -> SignedRows:
        return signed_snapshot.read(self._unit, self.installation.lineage().installation)

    def export_proof(self, proposal: Proposal, at: datetime) -> Proof:
        installation = self.installation.lineage().installation
        return read_proof(self._unit, installation, proposal, at.isoformat())

    def finish(self, now: datetime) -> None:
        self._unit.finish(now)
