"""What an act on a canary does, with its shares and models: the dashboard's dialog and the
command line say it with these words before they act.
"""

from harness.domain.canary.rollout import Rollout, RolloutSignal, RolloutState
from harness.domain.formatting import format_bps


def describe_effect(rollout: Rollout, new: str, old: str, signal: RolloutSignal) -> str:
    """Describes what the signal does. new, old: names of the candidate and the incumbent."""
    share = format_bps(rollout.current.weight_bps)
    kept = format_bps(rollout.policy.bake_bps)
    bake = f" {old} keeps {kept} during the bake." if rollout.policy.bake_s else ""
    back = (
        f"From 100 % to 0 % for {new}: {old} serves everybody again."
        if rollout.baking
        else f"From {share} to 0 %: all traffic goes back to {old}, and {new} needs a new "
        "proposal."
    )
    effects = {
        RolloutSignal.PAUSE: f"{share} of the traffic stays with {new}; it does not rise until "
        "somebody resumes it.",
        RolloutSignal.RESUME: f"The step at {share} for {new} starts over, with its full time."
        if rollout.state is RolloutState.PAUSED
        else "You acknowledge the routers' faults: the canary continues, at the same step and "
        "time.",
        RolloutSignal.ADVANCE: f"From {share} to {_next(rollout)} for {new}, even though "
        "evidence is still missing.",
        RolloutSignal.PROMOTE: f"From {share} to 100 % for {new}, skipping the other "
        f"steps.{bake}",
        RolloutSignal.FINISH: f"From {kept} to 0 % for {old}: {new} serves everybody, and "
        "harm that shows later is no longer detected.",
        RolloutSignal.ABORT: back,
    }
    return effects[signal]


def _next(rollout: Rollout) -> str:
    if rollout.last_step:
        return "the promotion"
    return format_bps(rollout.policy.steps[rollout.step + 1].weight_bps)
