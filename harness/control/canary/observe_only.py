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


def describe_refusal(ctx: Context, action: str) -> str:
    """Says why the installation refuses an act; empty where it may send users to a candidate.

    action: what is refused, such as "no canary opens".
    """
    if not ctx.observe_only:
        return ""
    return (
        f"{OBSERVE_ONLY}: {action}. Verdicts, books and shadows go on; take the setting "
        "out of the file and restart control, and swaps are possible again"
    )


def require_swaps(ctx: Context, action: str) -> None:
    """Checks that the installation may send users to a candidate. Raises NotAllowed where it
    only observes.
    """
    if refusal := describe_refusal(ctx, action):
        raise NotAllowed(refusal)


def list_refused_signals(ctx: Context) -> frozenset[RolloutSignal]:
    """Lists the moves of a rollout that the installation refuses."""
    return _ONWARD if ctx.observe_only else frozenset()


def check_signal(ctx: Context, signal: RolloutSignal) -> None:
    """Checks a move of a rollout. Raises NotAllowed for one that goes on."""
    if signal in _ONWARD:
        require_swaps(ctx, f"a canary does not go on ({signal.value})")
