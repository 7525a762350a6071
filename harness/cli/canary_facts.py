"""Describes a canary in pairs of name and value (`rollout_facts`; `brief_facts` beside its
proposal) and as JSON (`as_json`), for `canary` and `proposal`.
"""

from harness.cli.frame.output import harm_text
from harness.control.canary.status import CanaryStatus
from harness.control.serialize import to_plain
from harness.domain.canary.rollout import Rollout
from harness.domain.formatting import format_bps


def brief_facts(status: CanaryStatus) -> list[tuple[str, object]]:
    """Returns what a proposal says of its canary, and the command that says the rest."""
    state = status.state
    return [
        ("canary", state.words),
        ("why", state.reason),
        ("next", state.next_step),
        ("harm", harm_text(status.action.distance_to_trip)),
        ("more", f"`swapgate canary status {status.rollout.route}`"),
    ]


def rollout_facts(status: CanaryStatus) -> list[tuple[str, object]]:
    """Returns pairs of name and value that describe a canary."""
    rollout, action = status.rollout, status.action
    step, state = rollout.current, status.state
    needs = f"{action.step_exposures:,} of {step.min_exposures:,} exposures at this share"
    ends = "promotion" if rollout.last_step else format_bps(_next_weight(status))
    return [
        ("route", rollout.route),
        ("rollout", f"{rollout.id}, of proposal {rollout.proposal}"),
        ("candidate", f"{status.candidate.name} against {status.incumbent.name}"),
        ("state", state.words),
        ("why", state.reason),
        ("next", state.next_step),
        ("share", _share(rollout) if rollout.live or rollout.baking else None),
        ("step", f"{rollout.step + 1} of {len(rollout.policy.steps)}"),
        ("exposures", f"{action.exposures:,}"),
        ("callers", status.callers or None),
        ("one key", status.shared_key or None),
        ("harm", harm_text(action.distance_to_trip)),
        (
            f"for {ends}",
            (needs + (", and the certificate of no harm" if step.certify else ""))
            if rollout.live
            else None,
        ),
    ]


def _share(rollout: Rollout) -> str:
    if rollout.baking:
        return f"100 %, and {format_bps(rollout.policy.bake_bps)} kept back as a control"
    return format_bps(rollout.current.weight_bps)


def as_json(status: CanaryStatus) -> object:
    rollout = status.rollout
    return {
        "rollout": to_plain(rollout),
        "weight_bps": rollout.current.weight_bps if rollout.live else 0,
        "incumbent": to_plain(status.incumbent),
        "candidate": to_plain(status.candidate),
        "action": to_plain(status.action),
        "explanation": to_plain(status.explanation),
        "state": to_plain(status.state),
        "moved": status.moved,
        "held": status.held,
        "faults": status.faults,
        "callers": status.callers,
        "shared_key": status.shared_key,
        "blocks": len(status.blocks),
    }


def _next_weight(status: CanaryStatus) -> int:
    return status.rollout.policy.steps[status.rollout.step + 1].weight_bps
