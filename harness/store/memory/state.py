"""All that the store in memory holds. A unit of work changes a copy."""

import secrets
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from typing import Self

from harness.domain.canary.observation import ObservationBlock, TrafficMinute
from harness.domain.canary.rollout import Rollout
from harness.domain.drift.watch import DriftCheck, DriftWatch
from harness.domain.errors import IllegalTransition, InputError
from harness.domain.evals.pins import Sighting
from harness.domain.evals.run import EvalRun, Sample, SuitePin, Verdict
from harness.domain.operations.access import ApiKey
from harness.domain.operations.alerts import AlertRecord
from harness.domain.operations.audit import AuditEvent
from harness.domain.operations.delivery import Delivery
from harness.domain.operations.principals import LOCAL_PRINCIPAL, Principal
from harness.domain.privacy.capture import CapturedRequest
from harness.domain.proposals.proposal import Approval, Proposal
from harness.domain.providers.credentials import Credential
from harness.domain.providers.oauth_tokens import SignIn
from harness.domain.providers.probe import ProviderCheck
from harness.domain.reliability.failover import Failover
from harness.domain.reliability.spend import KeySpend
from harness.domain.routing.evidence import RouteEvidence, Waiver
from harness.domain.routing.target import Provider, Target
from harness.domain.shadow.shadow import ShadowTally
from harness.ports import RouteRecord, ShadowRecord, SwitchRecord


@dataclass
class State:
    """Values are immutable, and so are the tuples: a shallow copy of each dict is a copy.

    routes, evidence: by name, oldest version first. samples: by run, then by item and epoch.
    verdicts: with the proposal's id. suites: with the time they came. traffic: by its key.
    alerts: by id. deliveries: by alert, number and sink. failovers: by worker and number.
    sightings: by target, newest first.
    drift_checks: by watch and number. credentials: by provider and name.
    sign_ins, provider_checks: by provider.
    """

    installation: str = field(default_factory=lambda: secrets.token_hex(6))
    epoch: int = 1
    revision: int = 0
    revision_floor: int = 0
    serving_changes: int = 0
    targets: dict[str, Target] = field(default_factory=dict)
    routes: dict[str, tuple[RouteRecord, ...]] = field(default_factory=dict)
    evidence: dict[str, tuple[RouteEvidence, ...]] = field(default_factory=dict)
    waivers: dict[str, Waiver] = field(default_factory=dict)
    providers: dict[str, Provider] = field(default_factory=dict)
    suites: dict[str, tuple[SuitePin, datetime]] = field(default_factory=dict)
    runs: dict[str, EvalRun] = field(default_factory=dict)
    samples: dict[str, dict[tuple[str, int], Sample]] = field(default_factory=dict)
    proposals: dict[str, Proposal] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    verdicts: dict[str, tuple[Verdict, str]] = field(default_factory=dict)
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    blocks: dict[str, tuple[ObservationBlock, ...]] = field(default_factory=dict)
    traffic: dict[tuple[object, ...], TrafficMinute] = field(default_factory=dict)
    spends: dict[tuple[object, ...], KeySpend] = field(default_factory=dict)
    events: tuple[AuditEvent, ...] = ()
    principals: dict[str, Principal] = field(
        default_factory=lambda: {LOCAL_PRINCIPAL.id: LOCAL_PRINCIPAL}
    )
    keys: dict[str, ApiKey] = field(default_factory=dict)
    switches: dict[str, SwitchRecord] = field(default_factory=dict)
    shadows: dict[str, ShadowRecord] = field(default_factory=dict)
    shadow_tallies: dict[tuple[str, date, str], ShadowTally] = field(default_factory=dict)
    alerts: dict[str, AlertRecord] = field(default_factory=dict)
    deliveries: dict[tuple[str, int, str], Delivery] = field(default_factory=dict)
    failovers: dict[tuple[str, int], Failover] = field(default_factory=dict)
    sightings: dict[str, tuple[Sighting, ...]] = field(default_factory=dict)
    drift_watches: dict[str, DriftWatch] = field(default_factory=dict)
    drift_checks: dict[tuple[str, int], DriftCheck] = field(default_factory=dict)
    captures: dict[str, CapturedRequest] = field(default_factory=dict)
    credentials: dict[tuple[str, str], Credential] = field(default_factory=dict)
    sign_ins: dict[str, SignIn] = field(default_factory=dict)
    provider_checks: dict[str, ProviderCheck] = field(default_factory=dict)

    def fork(self) -> Self:
        forked = copy(self)
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, dict):
                setattr(forked, each.name, dict(value))
        return forked

    @property
    def etag(self) -> str:
        return f"{self.installation}-{self.revision}-{self.serving_changes}"


class Unit:
    """One unit of work's state; what changes it is refused in a `read()`."""

    def __init__(self, state: State, *, writable: bool) -> None:
        self.state = state
        self._writable = writable

    @property
    def writing(self) -> State:
        """Raises IllegalTransition in a `read()`."""
        if not self._writable:
            raise IllegalTransition("this unit of work only reads: use store.write()")
        return self.state


def need(known: Collection[str], noun: str, *ids: str) -> None:
    """What a foreign key does: raises InputError for an id that is not stored."""
    for each in ids:
        if each not in known:
            raise InputError(f"this row refers to a {noun} {each} that is not stored")
