"""Observe-only installations measure, count and mirror, and send no user to a candidate:
`control.observe_only` of the configuration. What goes back to an incumbent is never refused.
"""

from typing import Final

from harness.control.context import Context
from harness.domain.canary.rollout import RolloutSignal
from harness.domain.errors import NotAllowed

OBSERVE_ONLY: Final = "this installation only observes (control.observe_only)"
# What would give a candidate users, or keep them with it.
_ONWARD: Final = frozenset(
    {
        *(RolloutSignal.STEP_DONE, RolloutSignal.ADVANCE, RolloutSignal.RESUME),
        *(RolloutSignal.PROVEN, RolloutSignal.PROMOTE),
    }
)


def require_swaps(ctx: Context, action: str) -> None:
    """Checks that the installation may send users to a candidate.

    action: what is refused, such as "no canary opens". Raises NotAllowed where it only
    observes.
    """
    if ctx.observe_only:
        raise NotAllowed(
            f"{OBSERVE_ONLY}: {action}. Verdicts, books and shadows go on; take the setting "
            "out of the file and restart control, and swaps are possible again"
        )


def check_signal(ctx: Context, signal: RolloutSignal) -> None:
    """Checks a move of a rollout. Raises NotAllowed for one that goes on."""
    if signal in _ONWARD:
        require_swaps(ctx, f"a canary does not go on ({signal.value})")
