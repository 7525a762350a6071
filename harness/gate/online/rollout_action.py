"""A rollout's decision is an action (`RolloutAction`: hold, advance, pause, promote, roll back)
with every figure behind it (`RolloutFigures`), as the audit log stores them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Final, Self

from harness.frame.plain_data import ShownAsJson
from harness.gate.online.guardrail_report import GuardrailEvidence
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.rollout import ActionKind, RolloutSignal
from harness.gate.online.segment_harm import SegmentHarm, find_segment

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RolloutFigures(ShownAsJson):
    """The figures behind a decision. E-values are not logarithms here."""

    at: datetime = _NEVER  # when it was decided
    last_block: int = 0  # number of the newest block
    alpha: float = 0.0
    rho: float = 1.0
    rho_ni: float = 1.0
    p0: float = 0.0
    log_e_max: float = 0.0  # maximum evidence of harm in the current period
    rollback_at: float = 0.0  # log e at which the canary is rolled back
    period: int = 1
    tripped: Guardrail | None = None  # the guardrail that rolled it back
    guardrails: Mapping[Guardrail, GuardrailEvidence] = field(default_factory=dict)
    certificate: float = 0.0
    certificate_odds: float = 0.0
    certificate_rate: float = 0.0
    certificate_at: float = 0.0  # level that grants the certificate
    log_srm: float = 0.0  # evidence that callers are not split as planned
    blocks: int = 0
    canary_units: int = 0
    canary_failures: int = 0
    control_units: int = 0
    control_failures: int = 0
    missing: int = 0
    min_exposures: int = 0
    seconds_left: float = 0.0  # of the step's time
    # Whether the evidence comes from never-seen callers, over all periods.
    carried: bool = False
    unproven: str = ""  # why the stored scores no longer give the verdict
    local_abort: str = ""  # the alert of the router guard that stopped the canary
    warnings: tuple[str, ...] = ()  # reasons against an advance by hand

    @property
    def segment(self) -> SegmentHarm | None:
        """The segment of the traffic with the harm of errors; None without a clear one."""
        errors = self.guardrails.get(Guardrail.ERRORS)
        return errors.segment if errors else None

    def with_segment(self, blocks: Sequence[ObservationBlock]) -> Self:
        """Returns the figures with the segment of the errors, for a rollout that something
        other than its evidence stopped.
        """
        errors = self.guardrails.get(Guardrail.ERRORS)
        if errors is None or errors.segment:
            return self
        named = replace(errors, segment=find_segment(blocks))
        return replace(self, guardrails={**self.guardrails, Guardrail.ERRORS: named})

    def as_json(self) -> dict[str, object]:
        """Writes the figures as the audit log keeps them; the last four only if set."""
        figures: dict[str, object] = {name: getattr(self, name) for name in _PLAIN}
        figures["at"] = self.at.isoformat()
        figures["tripped"] = self.tripped and self.tripped.value
        figures["guardrails"] = {
            guardrail.value: evidence.as_json()
            for guardrail, evidence in self.guardrails.items()
        }
        if self.carried:
            figures["carried"] = True
        if self.unproven:
            figures["evidence_mismatch"] = self.unproven
        if self.local_abort:
            figures["local_abort"] = self.local_abort
        if self.warnings:
            figures["warnings"] = list(self.warnings)
        return figures


_CONVERTED = {"at", "tripped", "guardrails", "carried", "unproven", "local_abort", "warnings"}
_PLAIN = tuple(f.name for f in fields(RolloutFigures) if f.name not in _CONVERTED)


@dataclass(frozen=True)
class RolloutAction:
    """An action that the data ask for, and every figure behind it."""

    kind: ActionKind
    signal: RolloutSignal | None  # the transition to take; None for no transition
    reason: str
    log_e: float
    distance_to_trip: float
    exposures: int
    step_exposures: int
    log_certificate: float
    block: int | None = None  # number of the block that tripped
    figures: RolloutFigures = field(default_factory=RolloutFigures)
