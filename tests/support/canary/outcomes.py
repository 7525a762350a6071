"""Outcomes of exposures, for tests that only need answered or failed."""

from harness.gate.online.outcome import (
    ANSWERED,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
)


def outcome_of(*, failed: bool, why: str = "") -> ExposureOutcome:
    """Returns an answer, or a failure of the provider.

    Args:
        why: the failure's name.
    """
    if not failed:
        return ANSWERED
    return ExposureOutcome(OutcomeKind.FAILED, OutcomeReason.PROVIDER, why)
