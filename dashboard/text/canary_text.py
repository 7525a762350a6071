"""Writes the Canary page's texts: headline, verdict card, next step and its conditions,
guardrail rows, tiles, the plan of steps, and the history of what was done to the canary.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from dashboard.data.frames import latency_ms
from dashboard.data.queries import CanaryView
from dashboard.text import labels
from dashboard.text.html import Measure, Tile, VerdictCard, escape, strong
from harness.control.canary.status import CanaryStatus
from harness.domain.canary.rollout import Rollout, RolloutSignal, RolloutState
from harness.domain.formatting import format_estimate, format_harm, format_number
from harness.domain.operations.audit import AuditEvent
from harness.gate.online.rollout_action import RecordedEvidence
from harness.gate.text.explain import SOME_EVIDENCE, GuardrailRow, StepNeed
from harness.gate.text.warnings import HALF_DISTANCE

# From half of the rollback level on, the page says that the candidate may do harm.
HARM_SHOWS = HALF_DISTANCE
BAKING = labels.Label("◐", "promoted, baking", labels.Tone.BETTER)
HARM = labels.Label("✕", "harm is shown", labels.Tone.WORSE, "it is rolled back")
GUARDRAILS_NOTE = (
    "The candidate's figures against the incumbent's. Bar: how close this guardrail's evidence "
    "alone is to a rollback. Mark: the closest that it has been."
)


def title(status: CanaryStatus) -> str:
    """Writes the first line of a canary's page, as HTML."""
    name, share = (
        strong(status.candidate.name),
        labels.weight(status.rollout.current.weight_bps),
    )
    match status.rollout.state:
        case RolloutState.PROMOTED if status.rollout.baking:
            return f"{name} is promoted and baking"
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


def verdict_card(view: CanaryView, status: CanaryStatus) -> VerdictCard:
    rollout, action = status.rollout, status.action
    label = labels.ROLLOUT_LABELS[rollout.state]
    if action.signal is RolloutSignal.HARM:
        return VerdictCard(label=HARM, lead=action.reason, next_step=next_step(status))
    if rollout.baking:
        return _bake_card(view, status)
    if not rollout.live:
        ended = labels.date_time(rollout.updated_at)
        return VerdictCard(
            label=label,
            lead=rollout.ended_because or action.reason,
            foot=f"ended {ended}, {labels.age(rollout.updated_at, view.now)}",
        )
    if not status.blocks:
        waits = f"{labels.count(rollout.current.min_exposures)} canary {units(rollout)}"
        lead = f"No canary traffic has been counted yet; this step needs {waits}."
        return VerdictCard(label=label, lead=lead, next_step=next_step(status))
    return VerdictCard(label=label, lead=action.reason, next_step=next_step(status))


def _bake_card(view: CanaryView, status: CanaryStatus) -> VerdictCard:
    """The card after the promotion: when the bake ends, who is held back, what shows so far."""
    rollout, old, ends = status.rollout, status.incumbent.name, status.rollout.bake_ends_at
    kept = f"{labels.weight(rollout.policy.bake_bps)} of the callers still get {old}"
    when = f"{labels.date_time(ends)}, {labels.left(ends, view.now)}" if ends else "unknown"
    return VerdictCard(
        label=BAKING,
        lead=f"{status.candidate.name} serves the route. It is still compared with {old}, "
        "because harm may show late.",
        bullets=(
            ("Ends", when),
            ("Held back", f"{kept}, as a control"),
            ("Evidence of harm", harm_line(status)),
        ),
        next_step=f"it ends automatically; if harm shows, {old} serves everybody again.",
    )


def next_step(status: CanaryStatus) -> str:
    """What raises the canary's share and when, and what rolls it back."""
    explanation = status.explanation
    if status.action.signal is RolloutSignal.HARM:
        return f"to {explanation.goes_to} {explanation.eta}: {explanation.goes_back}"
    back = "evidence of harm at 100 % of the rollback level rolls it back at once"
    if status.rollout.state is RolloutState.PAUSED:
        return f"a person resumes or aborts; {back}."
    waits = " and ".join(need.words for need in explanation.needs if not need.done)
    return (
        f"to {explanation.goes_to} {explanation.eta}{f' ({waits})' if waits else ''}; {back}."
    )


def needs(status: CanaryStatus) -> Sequence[tuple[labels.Label, str]]:
    """Lists each condition of the next step, and when it will be met."""
    return [(_need_label(need), _when(need)) for need in status.explanation.needs]


def _need_label(need: StepNeed) -> labels.Label:
    if need.done:
        return labels.Label("✓", need.words, labels.Tone.BETTER)
    if need.eta_s is None:
        return labels.Label("?", need.words, labels.Tone.UNDECIDED)
    return labels.Label("◷", need.words, labels.Tone.NEUTRAL)


def _when(need: StepNeed) -> str:
    if need.done:
        return ""
    if need.eta_s is None:
        return "" if need.what == "person" else "no estimate yet"
    return f"about {format_estimate(need.eta_s)}"


def guardrails(status: CanaryStatus) -> Sequence[Measure]:
    """Builds one row for each guardrail with data, the one closest to a rollback first."""
    seen = [row for row in status.explanation.guardrails if row.exposures]
    rows = sorted(seen, key=lambda row: -row.distance)
    return [
        Measure(
            name=row.name,
            before=row.incumbent,
            after=row.candidate,
            limit=f"allowed: {row.allowed}",
            label=_evidence_label(row),
            share=row.distance,
            furthest=row.furthest,
            notes=row.classes,
        )
        for row in rows
    ]


def without_data(status: CanaryStatus) -> str:
    """The guardrails without data, by what is missing; empty when all have data."""
    missing: dict[str, list[str]] = {}
    for row in status.explanation.guardrails:
        if not row.exposures:
            missing.setdefault(row.says, []).append(row.name)
    return " ".join(
        f"{says.capitalize()}: {', '.join(names)}." for says, names in missing.items()
    )


def _evidence_label(row: GuardrailRow) -> labels.Label:
    if row.distance >= 1:
        return labels.Label("✕", row.says, labels.Tone.WORSE)
    if row.warns:
        return labels.Label("▲", row.says, labels.Tone.UNDECIDED)
    if row.log_e > SOME_EVIDENCE:
        return labels.Label("?", row.says, labels.Tone.UNDECIDED)
    if row.log_e <= 0:
        return labels.Label("✓", row.says, labels.Tone.BETTER)
    return labels.Label("=", row.says, labels.Tone.NEUTRAL)


def rules_line(status: CanaryStatus) -> str:
    """Says by which rules the canary is judged."""
    return f"This canary {status.explanation.judged_by}."


def furthest(status: CanaryStatus) -> float:
    """Computes the most evidence of harm so far, as a share of the rollback level."""
    figures = status.action.figures
    return max(0.0, figures.log_e_max / figures.rollback_at) if figures.rollback_at else 0.0


def units(rollout: Rollout) -> str:
    return rollout.policy.unit.plural


def plan(rollout: Rollout) -> tuple[Sequence[tuple[str, str]], int | None]:
    """The steps with the condition to leave each, and the current one (None: it has ended)."""
    steps = [
        (
            labels.weight(step.weight_bps),
            f"{step.min_exposures:,} {units(rollout)}{', certified' if step.certify else ''}",
        )
        for step in rollout.policy.steps
    ]
    if rollout.baking:
        kept = labels.weight(rollout.policy.bake_bps)
        return [*steps, ("100 %", f"baking; {kept} held back")], len(steps)
    return [*steps, ("100 %", "promoted")], rollout.step if rollout.live else None


def harm_line(status: CanaryStatus) -> str:
    """Describes the evidence of harm: `66 % of the rollback level`."""
    share = format_harm(status.action.distance_to_trip)
    return f"{share}. At 100 % the candidate is rolled back at once, automatically."


def harm_tone(status: CanaryStatus) -> labels.Tone:
    if status.action.distance_to_trip >= 1:
        return labels.Tone.WORSE
    shows = status.action.distance_to_trip >= HARM_SHOWS
    return labels.Tone.UNDECIDED if shows else labels.Tone.BETTER


def tiles(view: CanaryView, status: CanaryStatus) -> Sequence[Tile]:
    rollout, figures = status.rollout, status.action.figures
    canary, control = figures.canary_units, figures.control_units
    failed, control_failed = figures.canary_failures, figures.control_failures
    left = f", {labels.span(figures.seconds_left)} left" if rollout.live else ""
    return (
        Tile(
            "Failed with the candidate" if rollout.baking else "Failed in the canary",
            labels.percent(_share(failed, canary)),
            below=f"{failed:,} of {canary:,} {units(rollout)}",
        ),
        Tile(
            "Failed in the control",
            labels.percent(_share(control_failed, control)),
            below=f"{control_failed:,} of {control:,} {units(rollout)}",
        ),
        _bake_tile(view, rollout)
        if rollout.baking
        else Tile(
            "Exposures at this step",
            f"{status.action.step_exposures:,}",
            below=f"of {rollout.current.min_exposures:,} needed{left}",
        ),
        Tile("Latency, p95", _p95(view, "canary"), below=f"control {_p95(view, 'incumbent')}"),
    )


def _bake_tile(view: CanaryView, rollout: Rollout) -> Tile:
    ends = rollout.bake_ends_at
    left = labels.left(ends, view.now).removesuffix(" left") if ends else "unknown"
    return Tile("The bake ends in", left, below=labels.date_time(ends) if ends else "")


def share_line(status: CanaryStatus) -> str:
    """Describes the canary's measured share of callers against the planned one."""
    now = status.rollout.current.weight_bps
    if status.rollout.baking:
        kept = labels.weight(status.rollout.policy.bake_bps)
        return f"{kept} of the callers stay with {status.incumbent.name}, as the control."
    step = [b for b in status.blocks if b.weight_bps == now]
    seen = _share(sum(b.canary_units for b in step), sum(b.units for b in step))
    measured = labels.percent(seen, 2) if seen is not None else "not measured yet"
    return (
        f"Share of callers at this step: {measured}, planned {labels.weight(now)}. "
        "The same caller always gets the same model."
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _p95(view: CanaryView, arm: str) -> str:
    bound = latency_ms(view.traffic, arm, 0.95)
    if bound is None:
        return "unknown"
    return "beyond the scale" if bound < 0 else f"≤ {labels.seconds(bound / 1000)}"


HISTORY_HEADS: Final = ("When", "What", "Why", "Evidence at that time")
HISTORY_NOTE: Final = (
    "The audit log keeps each action with its evidence; "
    "swapgate replay EVENT decides it again from the stored blocks."
)
_WORDS: Final[Mapping[str, str]] = {
    "canary.enough": "enough exposures",
    "canary.promote": "promoted",
    "canary.proven": "promoted",
    "canary.harm": "rolled back",
    "canary.baked": "the bake ended",
    "canary.base_changed": "ended: the route was changed",
    "canary.stale": "ended: the candidate has become another model",
    "canary.silent": "paused: too few exposures",
    "canary.undecided": "paused: not enough evidence",
}
_UPWARD: Final = frozenset({"canary.step_done", "canary.advance"})


def history_rows(rollout: Rollout, moves: Iterable[AuditEvent]) -> Sequence[Sequence[str]]:
    """Table rows with cells of HTML, in the order of `moves`."""
    return [
        (
            f"{escape(labels.date_time(move.at))}<br>event {move.number}",
            f"{strong(_what(rollout, move))}<br>by {escape(move.actor)}",
            escape(move.details.get("reason", "")),
            "<br>".join(
                map(escape, _evidence_lines(RecordedEvidence.from_details(move.details)))
            ),
        )
        for move in moves
    ]


def _what(rollout: Rollout, event: AuditEvent) -> str:
    if event.action in _UPWARD:
        before = _step(event.details)
        steps = rollout.policy.steps
        if before is not None and before + 1 < len(steps):
            old, new = (labels.weight(step.weight_bps) for step in steps[before : before + 2])
            return f"{old} to {new}"
    plain = event.action.removeprefix("canary.").replace("_", " ")
    return _WORDS.get(event.action, plain)


def _step(details: Mapping[str, Any]) -> int | None:
    """The step that the rollout was at before."""
    inputs = details.get("inputs")
    found = inputs.get("step") if isinstance(inputs, Mapping) else None
    return found if isinstance(found, int) else None


def _evidence_lines(evidence: RecordedEvidence | None) -> Sequence[str]:
    """The evidence in figures."""
    if evidence is None:
        return ()
    known = format_number(evidence.certificate)
    wanted = format_number(evidence.certificate_at)
    return (
        f"candidate: {evidence.canary_failures:,} of {evidence.canary_units:,} failed",
        f"incumbent: {evidence.control_failures:,} of {evidence.control_units:,}",
        f"evidence of harm at most {format_harm(evidence.harm_share)}",
        f"certificate of no harm {known} of {wanted}",
    )
