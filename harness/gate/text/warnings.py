"""Warnings are what the data say against advancing a canary by hand: a wrong share of callers,
a guardrail with strong evidence of harm, or a cold prompt cache.
"""

import math
from typing import Final

from harness.domain.formatting import format_percent
from harness.gate.online.fisher import ALARM_LOG_E
from harness.gate.online.guardrail_report import GuardrailEvidence
from harness.gate.online.rollout_action import RolloutFigures

# log e (statistics.md §0): strong evidence, not enough to act.
STRONG_EVIDENCE: Final = math.log(10.0)
# Of the way to a rollback by itself.
HALF_DISTANCE: Final = 0.5


def is_warning(evidence: GuardrailEvidence) -> bool:
    """Whether a guardrail's figures are strong evidence of harm, or half of what trips it."""
    if not evidence.canary:
        return False
    return evidence.distance_to_trip >= HALF_DISTANCE or evidence.log_e > STRONG_EVIDENCE


def list_warnings(figures: RolloutFigures) -> tuple[str, ...]:
    """Returns a sentence for each thing that warns; empty when nothing does."""
    warnings = []
    if figures.log_srm >= ALARM_LOG_E:
        warnings.append(
            "The canary's share of callers is not the planned one: look at routing first."
        )
    warnings += [
        f"The canary {evidence.text}; by itself that is "
        f"{format_percent(evidence.distance_to_trip, 0)} of the evidence that takes it back."
        for evidence in figures.guardrails.values()
        if is_warning(evidence)
    ]
    warnings += [
        f"{evidence.cache_text[:1].upper()}{evidence.cache_text[1:]}. No evidence counts the "
        "cache's part: it stays if the candidate's cache stays cold at full traffic."
        for evidence in figures.guardrails.values()
        if evidence.is_cold
    ]
    return tuple(warnings)
