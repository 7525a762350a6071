"""A proven spare: a model that passed a route's suites lately, so that it may take over. Pure.

A proof is the verdict of a comparison with the route's incumbent; this module says how long and
for what it counts. `harness.proposals.candidates.spares` loads the comparisons.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.frame.formatting import format_age
from harness.gate.verdict import Passed, Verdict

SPARE_FOR: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class ProvenSpare:
    """A fallback with proof, as a version of a route stores it for the routers."""

    target: str  # its id
    incumbent: str  # the id of the target with which the verdict compares it
    verdict: str
    until: datetime

    def holds(self, incumbent: str, now: datetime) -> bool:
        """Tells whether the proof counts now, for a route with this incumbent."""
        return self.incumbent == incumbent and now < self.until


@dataclass(frozen=True, slots=True)
class SpareComparison:
    """The newest decided comparison of a model with a route's incumbent."""

    proposal: str
    verdict: Verdict
    digests: Mapping[str, str]  # by suite, as registered
    # Why the comparison proves nothing now, besides outcome, suites and age; empty if it may.
    fault: str = ""


@dataclass(frozen=True, slots=True)
class SpareProof:
    """Whether a model is proven, with its newest comparison. why: empty for a proven model."""

    proven: bool
    why: str = ""
    # The next four are empty without a comparison.
    verdict: str = ""
    proposal: str = ""
    decided_at: datetime | None = None
    until: datetime | None = None


def judge_spare(
    newest: SpareComparison | None,
    suites: Mapping[str, str],
    now: datetime,
) -> SpareProof:
    """Judges a spare by its newest comparison alone, even if an older one was better.

    Args:
        newest: None if the incumbent and the model were never compared.
        suites: the route's present suites, each with its digest.
    """
    if newest is None:
        return SpareProof(proven=False, why="no verdict compares it with the route's incumbent")
    verdict = newest.verdict
    until = verdict.decided_at + SPARE_FOR
    why = _find_fault(newest, suites, now)
    return SpareProof(not why, why, verdict.id, newest.proposal, verdict.decided_at, until)


def _find_fault(newest: SpareComparison, suites: Mapping[str, str], now: datetime) -> str:
    """Returns the first reason why the comparison proves nothing now; empty without one."""
    verdict = newest.verdict
    day = f"{verdict.decided_at:%Y-%m-%d}"
    if not isinstance(verdict, Passed):
        return f"its newest verdict, of {day}, is {verdict.words}"
    if newest.fault:
        return newest.fault
    if newest.digests.keys() != suites.keys():
        return f"the route has other suites since its verdict of {day}"
    changed = sorted(name for name, digest in suites.items() if newest.digests[name] != digest)
    if changed:
        return f"suite {', '.join(changed)} has changed since its verdict of {day}"
    if verdict.decided_at + SPARE_FOR <= now:
        return f"its verdict of {day} proved it for {SPARE_FOR.days} days only"
    return ""


@dataclass(frozen=True, slots=True)
class Spare:
    """A fallback of a route, or a model that passed its suites."""

    target: str  # its id
    name: str
    place: int | None  # in the chain, from 1; None for a model outside of the chain
    proof: SpareProof
    age: str = ""  # of the newest comparison, for people

    @property
    def proven(self) -> bool:
        return self.proof.proven

    @property
    def proof_text(self) -> str:
        """Describes the proof for people: `proven 3 d ago by v_1, until 2026-06-28`."""
        proof = self.proof
        if not proof.proven or proof.until is None:
            return f"not proven: {proof.why}"
        return f"proven {self.age} by {proof.verdict}, until {proof.until:%Y-%m-%d}"

    @property
    def text(self) -> str:
        """Names the spare with its proof, for people."""
        return f"{self.name}: {self.proof_text}"


def build_spare(
    target: str,
    name: str,
    place: int | None,
    proof: SpareProof,
    now: datetime,
) -> Spare:
    """Builds a spare, with its age at `now`."""
    age = format_age(proof.decided_at, now) if proof.decided_at else ""
    return Spare(target, name, place, proof, age)
