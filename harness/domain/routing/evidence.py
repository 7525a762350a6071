"""Evidence records why a target may serve a route, role by role (A7): baseline, verdict or
waiver. Pure.

A `Waiver` is a person's exception with an expiry, for fallbacks alone; `TargetEvidence` is
stored with each version of a route.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from harness.domain.content_hash import digest
from harness.domain.evals.verdict import Passed


class EvidenceKind(StrEnum):
    """BASELINE: the route was created with it."""

    BASELINE = "baseline"
    VERDICT = "verdict"
    WAIVER = "waiver"


@dataclass(frozen=True, slots=True)
class Waiver:
    """Evidence without a verdict, for a fallback: reason, author and expiry are required.

    From `expires_at` on it opens no chain any more. Where its target stands already it is not
    pulled from under traffic, but no person's change of the route may keep it.
    """

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
    """The target was this route's incumbent or fallback before; the store knows of which."""

    target: str


ChainProof = Passed | Waiver | FormerTarget


@dataclass(frozen=True, slots=True)
class TargetEvidence:
    """Why one target may serve one route. Its id is the hash of the rest."""

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
    """Holds the evidence of one version of a route, by role."""

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
