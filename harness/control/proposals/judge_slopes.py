"""Calibrations of a suite's judge are read from the audit log once, when a proposal is
registered, and written into its plan: none that is measured later changes what the gate judges
by (statistics.md §1.17).
"""

from dataclasses import replace
from typing import Final

from harness.domain.errors import ProofRefused
from harness.domain.evals.judge_calibration import (
    CALIBRATED,
    EVER,
    JudgeCalibration,
    JudgeSlope,
)
from harness.domain.evals.suite_plan import SuitePin, SuitePlan
from harness.domain.operations.audit import AuditEvent
from harness.ports import Transaction

# The lowest one counts, so that nobody measures again until the judge looks good.
_MOST_CALIBRATIONS: Final = 8


def with_judge(tx: Transaction, pin: SuitePin, plan: SuitePlan) -> SuitePlan:
    """The plan with the lowest slope of the newest calibrations of this suite's judge with its
    rubric and its references; as it was where there are none.
    """
    if not pin.judged:
        return plan
    events = tx.audit.for_subject(pin.judge_subject, since=EVER, limit=_MOST_CALIBRATIONS)
    slopes = [_slope(pin, event) for event in events if event.action == CALIBRATED]
    return replace(plan, judge=min(slopes, key=lambda judge: judge.slope, default=None))


def _slope(pin: SuitePin, event: AuditEvent) -> JudgeSlope:
    try:
        return JudgeCalibration.from_json(event.details).slope
    except (LookupError, TypeError, ValueError):
        raise ProofRefused(
            f"suite {pin.name}: event {event.number} of the audit log is no calibration of its "
            "judge, so nothing can be planned by it: check the log with `swapgate audit verify`"
        ) from None
