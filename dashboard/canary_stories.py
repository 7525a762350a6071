"""What a canary's figures say, in sentences. Pure."""

from collections.abc import Mapping, Sequence

from dashboard import wording
from dashboard.cards import Tile, VerdictCard, strong
from dashboard.frames import latency_ms
from dashboard.queries import CanaryView
from harness.control.reports import CanaryStatus
from harness.domain.policy import Unit
from harness.domain.rollout import Rollout, RolloutState

# From half of the rollback level on, the page says that the candidate may do harm.
HARM_SHOWS = 0.5


def answer(status: CanaryStatus) -> str:
    """HTML: the page's first line."""
    name, share = (
        strong(status.candidate.name),
        wording.weight(status.rollout.current.weight_bps),
    )
    match status.rollout.state:
        case RolloutState.PROMOTED:
            return f"{name} was promoted"
        case RolloutState.ROLLED_BACK:
            return f"{name} was rolled back"
        case RolloutState.PAUSED:
            return f"{name} is paused at {share}"
        case _ if status.action.distance_to_trip >= HARM_SHOWS:
            return f"{name} may be hurting users, at {share}"
        case _:
            return f"{name} shows no harm so far, at {share}"


def card(view: CanaryView, status: CanaryStatus) -> VerdictCard:
    rollout, action = status.rollout, status.action
    label = wording.ROLLOUT_LABELS[rollout.state]
    if not rollout.live:
        ended = wording.moment(rollout.updated_at)
        return VerdictCard(
            label=label,
            lead=rollout.ended_because or action.reason,
            foot=f"ended {ended}, {wording.age(rollout.updated_at, view.now)}",
        )
    if not status.blocks:
        waits = f"{wording.count(rollout.current.min_exposures)} canary {units(rollout)}"
        lead = f"No canary traffic is counted yet; this step needs {waits}."
        return VerdictCard(label=label, lead=lead, next_step=what_moves_it(status))
    return VerdictCard(label=label, lead=action.reason, next_step=what_moves_it(status))


def what_moves_it(status: CanaryStatus) -> str:
    """What takes it up, and what takes it back."""
    rollout, action = status.rollout, status.action
    missing = max(0, rollout.current.min_exposures - action.step_exposures)
    up = "promotion" if rollout.last_step else wording.weight(_next_weight(rollout))
    back = "evidence of harm at 100 % of the rollback level takes it back at once"
    if rollout.state is RolloutState.PAUSED:
        return f"a person resumes or aborts; {back}."
    needs = [f"{wording.count(missing)} more canary {units(rollout)}"] if missing else []
    if rollout.current.certify:
        at = rollout.policy.certificate
        needs.append(f"a certificate of no harm of {at:g} or more")
    wait = " and ".join(needs) if needs else "the next look at the figures"
    return f"to {up}: {wait}; {back}."


def _next_weight(rollout: Rollout) -> int:
    return rollout.policy.steps[rollout.step + 1].weight_bps


def units(rollout: Rollout) -> str:
    return "sessions" if rollout.policy.unit is Unit.SESSION else "requests"


def plan(rollout: Rollout) -> tuple[Sequence[tuple[str, str]], int | None]:
    """The steps with what it takes to leave each, and where it stands (None: it has ended)."""
    steps = [
        (
            wording.weight(step.weight_bps),
            f"{step.min_exposures:,} {units(rollout)}{', certified' if step.certify else ''}",
        )
        for step in rollout.policy.steps
    ]
    return [*steps, ("100 %", "promoted")], rollout.step if rollout.live else None


def harm_line(status: CanaryStatus) -> str:
    """`66 % of the rollback level`."""
    share = f"{status.action.distance_to_trip * 100:.0f} % of the rollback level"
    return f"{share}. At 100 % the candidate is taken back at once, by itself."


def harm_tone(status: CanaryStatus) -> wording.Tone:
    if status.action.distance_to_trip >= 1:
        return wording.Tone.WORSE
    shows = status.action.distance_to_trip >= HARM_SHOWS
    return wording.Tone.UNDECIDED if shows else wording.Tone.BETTER


def tiles(view: CanaryView, status: CanaryStatus) -> Sequence[Tile]:
    rollout, figures = status.rollout, status.action.figures
    canary, control = _int(figures, "canary_units"), _int(figures, "control_units")
    failed, control_failed = _int(figures, "canary_failures"), _int(figures, "control_failures")
    left = f", {wording.span(_int(figures, 'seconds_left'))} left" if rollout.live else ""
    return (
        Tile(
            "Failed in the canary",
            wording.percent(_share(failed, canary)),
            below=f"{failed:,} of {canary:,} {units(rollout)}",
        ),
        Tile(
            "Failed in the control",
            wording.percent(_share(control_failed, control)),
            below=f"{control_failed:,} of {control:,} {units(rollout)}",
        ),
        Tile(
            "Exposures at this step",
            f"{status.action.step_exposures:,}",
            below=f"of {rollout.current.min_exposures:,} needed{left}",
        ),
        Tile("Latency, p95", _p95(view, "canary"), below=f"control {_p95(view, 'incumbent')}"),
    )


def share_line(status: CanaryStatus) -> str:
    """Whether the canary's share of callers is the planned one."""
    now = status.rollout.current.weight_bps
    step = [b for b in status.blocks if b.weight_bps == now]
    seen = _share(sum(b.canary_units for b in step), sum(b.units for b in step))
    measured = wording.percent(seen, 2) if seen is not None else "not measured yet"
    return (
        f"Share of callers at this step: {measured}, planned {wording.weight(now)}. "
        "A caller's key always meets the same model."
    )


def _int(figures: Mapping[str, object], name: str) -> int:
    value = figures.get(name, 0)
    return int(value) if isinstance(value, int | float) else 0


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _p95(view: CanaryView, arm: str) -> str:
    bound = latency_ms(view.traffic, arm, 0.95)
    if bound is None:
        return "unknown"
    return "beyond the scale" if bound < 0 else f"≤ {wording.seconds(bound / 1000)}"
