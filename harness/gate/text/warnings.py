"""Warnings are what the data say against advancing a canary by hand."""

import math
from collections.abc import Mapping
from typing import Any, Final

from harness.gate.online.assignment import ALARM_LOG_E

# log e (statistics.md §0): strong evidence, not enough to act.
STRONG_EVIDENCE: Final = math.log(10.0)
# Of the way to a rollback by itself.
HALF_DISTANCE: Final = 0.5


def is_warning(told: Mapping[str, Any]) -> bool:
    """Whether a guardrail's figures are strong evidence of harm, or half of what trips it."""
    if not told["canary"]:
        return False
    return bool(told["distance_to_trip"] >= HALF_DISTANCE or told["log_e"] > STRONG_EVIDENCE)


def list_warnings(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each thing that warns; empty when nothing does.

    figures: of the Action that `policy.decide` gave.
    """
    found = []
    if figures["log_srm"] >= ALARM_LOG_E:
        found.append(
            "The canary's share of callers is not the planned one: look at routing first."
        )
    for told in figures["guardrails"].values():
        if is_warning(told):
            share = told["distance_to_trip"] * 100
            found.append(
                f"The canary {told['words']}; by itself that is {share:.0f} % of the evidence "
                "that takes it back."
            )
    return tuple(found)
