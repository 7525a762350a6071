"""The evidence that lets a target serve a route (A7), and people's exceptions (G2). Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.frame.plain_data import digest
from harness.gate.verdict import Passed


class EvidenceKind(StrEnum):
    """BASELINE: the route was created with the target."""

    BASELINE = "baseline"
    VERDICT = "verdict"
    WAIVER = "waiver"


@dataclass(frozen=True, slots=True)
class Waiver:
    """Evidence without a verdict. A chain that a person sets may not contain an expired one."""

    id: str
    route: str
    target: str
    reason: str
    author: str
    expires_at: datetime

    def expired(self, now: datetime) -> bool:
        return self.expires_at <= now


@dataclass(frozen=True, slots=True)
class FormerTarget:
    """The target was an incumbent or fallback of this route before; the store checks that."""

    target: str


ChainProof = Passed | Waiver | FormerTarget


@dataclass(frozen=True, slots=True)
class TargetEvidence:
    route: str
    target: str
    kind: EvidenceKind
    proof: str = ""  # the verdict's or the waiver's id
    verdict_incumbent: str | None = None

    @property
    def id(self) -> str:
        return f"e_{digest([self.route, self.target, self.kind.value, self.proof])[:24]}"


@dataclass(frozen=True, slots=True)
class RouteEvidence:
    incumbent: TargetEvidence
    canary: TargetEvidence | None = None
    fallbacks: tuple[TargetEvidence, ...] = ()  # in the order of the chain


def baseline_evidence(route: str, target: str) -> TargetEvidence:
    return TargetEvidence(route, target, EvidenceKind.BASELINE)


def verdict_evidence(proof: Passed) -> TargetEvidence:
    return TargetEvidence(
        proof.route, proof.candidate, EvidenceKind.VERDICT, proof.id, proof.incumbent
    )


def waiver_evidence(waiver: Waiver) -> TargetEvidence:
    return TargetEvidence(waiver.route, waiver.target, EvidenceKind.WAIVER, waiver.id)


LONGEST: Final = timedelta(days=7)
CONFIRM_WITHIN: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class BreakGlass:
    id: str
    route: str
    incumbent: str  # target id; served before, and serves again when the break-glass ends
    target: str  # target id; serves without proof
    reason: str
    through_freeze: bool  # also while the route is frozen
    proposer: str
    proposer_principal: str
    proposer_key: str | None  # the management key's id, None for the local operator
    created_at: datetime
    confirm_by: datetime
    expires_at: datetime
    # confirmer, …, waiver: None until a second person confirms
    confirmer: str | None = None
    confirmer_principal: str | None = None
    confirmer_key: str | None = None
    confirmed_at: datetime | None = None
    waiver: str | None = None
    ended_at: datetime | None = None
    ended_because: str = ""

    @property
    def self_approval(self) -> bool:
        return False

    @property
    def confirmed(self) -> bool:
        return self.confirmed_at is not None

    @property
    def state(self) -> str:
        if self.ended_at is not None:
            return "ended"
        return "in force" if self.confirmed else "waits for a second person"
