"""Watches the callers that a canary's audience puts first (statistics.md §2.22).

They have no counterpart in the other arm, so the comparison leaves them out. Their first
requests of a day have a ledger of their own. If they fail more often than the incumbent usually
does, the canary pauses: without a counterpart, this is a doubt and no proof of harm. A person
who resumes the canary accepts the doubt for the rest of the rollout.

`harness.canary.decision` asks for the pause. The evidence against the usual rate is computed in
`harness.gate.online.evidence_paths`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.frame.formatting import format_number, format_percent
from harness.frame.records.transaction import Transaction
from harness.gate.online.evidence_paths import error_tally, usual_path
from harness.gate.online.guardrails import FailureTally, Guardrail
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import Rollout, name_first_callers
from harness.gate.online.usual_rate import MIN_DAYS, MIN_FAILURES
from harness.routing.records.observations import Observations

# The chance that callers with the incumbent's usual failure rate ever pause a canary.
FIRST_ALPHA: Final = 0.005
# What `Rollout.acknowledged` has after a person resumed such a pause.
ACKNOWLEDGED: Final = "first_callers"


@dataclass(frozen=True, slots=True)
class FirstCallers:
    """The callers of a rollout that the audience put first, and their failures.

    log_e: of the evidence that they fail more often than usual. watched: whether the
    incumbent's usual rate is known; without it, no evidence exists.
    """

    callers: int = 0
    failures: int = 0
    log_e: float = 0.0
    watched: bool = False

    @property
    def is_harmed(self) -> bool:
        return self.log_e >= -math.log(FIRST_ALPHA)

    @property
    def text(self) -> str:
        """Describes the counts and the evidence; empty without such callers."""
        if not self.callers:
            return ""
        share = format_percent(self.failures / self.callers, significant=2)
        counts = f"{self.failures:,} of {self.callers:,} callers of `first` failed ({share})"
        if not self.watched:
            return (
                f"{counts}. Their failures pause nothing: the incumbent's usual failure rate "
                f"is unknown, because it needs {MIN_DAYS} days and {MIN_FAILURES} failures "
                "before the canary. Watch these callers yourself"
            )
        value = format_number(math.exp(min(self.log_e, 700.0)), 2)
        return (
            f"{counts}. Evidence that they fail more than the incumbent usually does: {value} "
            f"of {format_number(1.0 / FIRST_ALPHA)}"
        )

    @property
    def pause_text(self) -> str:
        return (
            f"{self.text}. The comparison does not count them, because they have no "
            "counterpart. Find the cause, then resume or abort the canary"
        )


NO_FIRST_CALLERS: Final = FirstCallers()


def measure_first_callers(
    first: Sequence[ObservationBlock],
    measured: Sequence[ObservationBlock],
    tolerated: float,
) -> FirstCallers:
    """Measures the callers that are first, by the blocks of their ledger.

    Args:
        measured: the rollout's own blocks, whose control may lower the usual rate.
        tolerated: the policy's rho.

    A missing outcome is no failure.
    """
    own = [block.set_missing(against=False) for block in first]
    tallies = [error_tally(block) for block in own]
    callers = sum(tally.canary for tally in tallies)
    if not callers:
        return NO_FIRST_CALLERS
    watched = any(block.usual_rates.get(Guardrail.ERRORS) for block in own)
    controls = [(block, _control_of(error_tally(block))) for block in measured]
    ordered = sorted(
        [*controls, *zip(own, tallies, strict=True)], key=lambda one: one[0].closed_at
    )
    path = usual_path(
        [tally for _, tally in ordered],
        [block.usual_rates.get(Guardrail.ERRORS, 0.0) for block, _ in ordered],
        tolerated,
    )
    failures = sum(tally.canary_failures for tally in tallies)
    return FirstCallers(callers, failures, float(path[-1]) if watched else 0.0, watched)


def _control_of(tally: FailureTally) -> FailureTally:
    return replace(
        tally,
        units=tally.units - tally.canary,
        canary=0,
        failures=tally.failures - tally.canary_failures,
        canary_failures=0,
    )


def read_first_callers(tx: Transaction, rollout: Rollout) -> FirstCallers:
    """Measures a rollout's callers that are first, from the stored blocks."""
    if not rollout.policy.audiences:
        return NO_FIRST_CALLERS
    blocks = Observations(tx)
    return measure_first_callers(
        blocks.blocks(name_first_callers(rollout.id)),
        blocks.blocks(rollout.id),
        max(1.0, rollout.policy.rho),
    )
