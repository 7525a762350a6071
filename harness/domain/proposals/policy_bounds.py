"""Policy bounds clamp the numbers of a stored canary policy to what the arithmetic can handle.

The file's ranges (config/ranges.py) are narrower, so no policy that loads today is changed. A
policy that was stored before there were any must not keep a canary from being rolled back, nor
certify what is none.
"""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from harness.domain.canary.guardrails import Guardrails
from harness.domain.proposals.policy import CanaryPolicy, PeakHours

# Of seconds: 317 years.
_LONG_S: Final = 1e10
_MANY: Final = 10**12
_RATIO: Final = (1e-3, 100.0)
_CANARY: Final[Mapping[str, tuple[float, float]]] = {
    "alpha": (1e-12, 0.5),
    "local_alpha": (0.0, 0.5),
    "rho": _RATIO,
    "rho_ni": _RATIO,
    "p0": (1e-12, 0.5),
    # An e-value of 1 is no evidence at all.
    "certificate": (2.0, 1e12),
    "block_size": (1, 100_000),
    "session_requests": (1, _MANY),
    "session_s": (0.0, _LONG_S),
    "missing_s": (0.0, _LONG_S),
    "bake_s": (0.0, _LONG_S),
    "bake_bps": (1, 5_000),
    "warm_up": (0, 30),
    "carried_share": (0.0, 0.99),
    "segment_share": (0.0, 0.5),
}
_STEP: Final[Mapping[str, tuple[float, float]]] = {
    "weight_bps": (1, 9_999),
    "min_exposures": (0, _MANY),
    "deadline_s": (0.0, _LONG_S),
    "min_s": (0.0, _LONG_S),
    "min_peak_s": (0.0, _LONG_S),
}
# As wide as the file's own: a judge's money has no other bound.
_JUDGE: Final = {
    "max_usd": (0.0, 1e9),
    "share_bps": (1, 10_000),
    "timeout_s": (0.001, 86_400.0),
}
_HOUR: Final = {"start_h": (0, 24), "end_h": (0, 24)}
# Numbers of which more means a sooner rollback, a later step or promotion, or more evidence. In
# place of one that is none (NaN) their upper bound holds, and the lower one of all others.
_MORE_IS_SAFER: Final = frozenset(
    {
        "alpha",
        "local_alpha",
        "certificate",
        "block_size",
        "bake_s",
        "bake_bps",
        "min_exposures",
        "min_s",
        "min_peak_s",
    }
)


def clamp_policy(policy: CanaryPolicy) -> CanaryPolicy:
    """The policy with its numbers within bounds; the same object where all of them are."""
    steps = tuple(_clamped(step, _STEP) for step in policy.steps)
    ratios = _ratios(policy.guardrails)
    peak: PeakHours = _clamped(policy.peak, _HOUR)
    judge = policy.judge and _clamped(policy.judge, _JUDGE)
    held: CanaryPolicy = _clamped(policy, _CANARY)
    parts = (policy.steps, policy.guardrails, policy.peak, policy.judge)
    if (steps, ratios, peak, judge) == parts:
        return held
    return replace(held, steps=steps, guardrails=ratios, peak=peak, judge=judge)


def _ratios(guardrails: Guardrails) -> Guardrails:
    on = {field.name: _RATIO for field in fields(guardrails)}
    off = {name for name in on if getattr(guardrails, name) is False}
    found: Guardrails = _clamped(guardrails, {n: b for n, b in on.items() if n not in off})
    return found


def _clamped(of: Any, bounds: Mapping[str, tuple[float, float]]) -> Any:
    """Returns a dataclass with its fields clamped to their bounds."""
    changed = {
        name: _safe(name, low, high) if math.isnan(value) else min(max(value, low), high)
        for name, (low, high) in bounds.items()
        if not low <= (value := getattr(of, name)) <= high
    }
    return replace(of, **changed) if changed else of


def _safe(name: str, low: float, high: float) -> float:
    return high if name in _MORE_IS_SAFER else low
