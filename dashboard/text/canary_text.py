"""Writes the Canary page's texts: headline and verdict card, the next step's conditions,
guardrail rows, tiles, the check of the split, the plan of steps, and what was done to it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from dashboard.data.queries import CanaryView
from dashboard.text import html, labels
from dashboard.text.html import Measure, Tile, VerdictCard, escape, strong
from harness.control.canary.status import CanaryStatus
from harness.domain.canary.rollout import CanaryEnd, Rollout, RolloutState, find_end
from harness.domain.formatting import (
    format_estimate,
    format_harm,
    format_number,
    format_percent,
)
from harness.domain.operations.audit import AuditEvent
from harness.domain.reliability.latency import merge_histograms, quantile_ms
from harness.gate.online.fisher import ALARM_LOG_E
from harness.gate.online.rollout_action import RecordedEvidence
from harness.gate.text.canary_state import CanaryStateKind
from harness.gate.text.explain import SOME_EVIDENCE, GuardrailRow, StepNeed
from harness.gate.text.warnings import HALF_DISTANCE

TIMELINE_NOTE: Final = (
    "Times are UTC. A failure counts for the model that a caller was assigned to, even if a "
    "fallback answered. Shaded: 95 % intervals."
)
GUARDRAILS_NOTE = (
    "The candidate's figures against the incumbent's. Bar: how close this guardrail's evidence "
    "alone is to a rollback. Mark: the closest that it has been."
)


def headline(view: CanaryView, status: CanaryStatus) -> str:
    """Writes what the top of a canary's page says: state, reason and next step, as HTML."""
    rollout, state = status.rollout, status.state
    note = (
        f"Route {strong(rollout.route)} · beside {strong(status.incumbent.name)} · started "
        f"{escape(labels.age(rollout.started_at, view.now))}"
    )
    heading = html.title(f"{strong(status.candidate.name)} {escape(state.predicate)}", note)
    stale = "" if view.quiet_since is None else html.banner("STALE.", _quiet(view.quiet_since))
    card = html.verdict(verdict_card(view, status), stale=bool(stale) and is_calm(status))
    return f'<div class="sg-top">{heading}{stale}{card}</div>'


def is_calm(status: CanaryStatus) -> bool:
    """Tells whether nothing about a canary needs a person."""
    return status.state.kind in (CanaryStateKind.HEALTHY, CanaryStateKind.EMPTY)


def _quiet(since: datetime) -> str:
    return (
        f"No request has arrived since {labels.date_time(since)}. Check that clients call the "
        "route and that the router runs: `swapgate doctor`."
    )


def verdict_card(view: CanaryView, status: CanaryStatus) -> VerdictCard:
    rollout, state = status.rollout, status.state
    ended = not rollout.live and not rollout.baking
    at = status.changed_at
    when = f"{labels.date_time(at)}, {labels.age(at, view.now)}"
    return VerdictCard(
        label=replace(labels.canary_label(state), words=""),
        lead=state.reason,
        bullets=_bake_bullets(view, status) if rollout.baking else (),
        next_step=state.next_step,
        foot=f"ended {when}" if ended else "",
    )


def _bake_bullets(view: CanaryView, status: CanaryStatus) -> Sequence[tuple[str, str]]:
    """After the promotion: when the bake ends, and who is held back."""
    rollout, ends = status.rollout, status.rollout.bake_ends_at
    kept = f"{labels.weight(rollout.policy.bake_bps)} of the callers still get "
    when = f"{labels.date_time(ends)}, {labels.left(ends, view.now)}" if ends else "unknown"
    return (("Ends", when), ("Held back", f"{kept}{status.incumbent.name}, as a control"))


def needs(status: CanaryStatus) -> Sequence[tuple[labels.Label, str]]:
    """Lists each condition of the next step, and when it will be met, with the check of the
    split; empty when there is no next step.
    """
    explanation = status.explanation
    if not explanation.needs:
        return ()
    # The check of the split says the sample ratio with its figures.
    needs = [need for need in explanation.needs if need.what != "sample ratio"]
    return [*((_need_label(need), _when(need)) for need in needs), split_check(status)]


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


def furthest(status: CanaryStatus) -> float:
    """Computes the most evidence of harm so far, as a share of the rollback level."""
    figures = status.action.figures
    return max(0.0, figures.log_e_max / figures.rollback_at) if figures.rollback_at else 0.0


def plan(status: CanaryStatus) -> tuple[Sequence[tuple[str, str]], int | None, str]:
    """The steps with the condition to leave each, the one that it stands or ended at, and the
    words for that.
    """
    rollout = status.rollout
    steps = [
        (
            labels.weight(step.weight_bps),
            f"{step.min_exposures:,} callers{', certified' if step.certify else ''}",
        )
        for step in rollout.policy.steps
    ]
    if rollout.baking:
        kept = labels.weight(rollout.policy.bake_bps)
        return [*steps, ("100 %", f"baking; {kept} held back")], len(steps), "now"
    promoted = rollout.state is RolloutState.PROMOTED
    at = len(steps) if promoted else rollout.step
    last = "promoted, then taken back" if status.rollback else "promoted"
    return [*steps, ("100 %", last)], at, "now" if rollout.live else "ended here"


def harm_line(status: CanaryStatus) -> str:
    """Describes the evidence of harm: `66 % of the rollback level`."""
    share = format_harm(status.action.distance_to_trip)
    if not status.rollout.live and not status.rollout.baking:
        return f"{share} when it ended."
    return f"{share}. At 100 % the candidate is rolled back at once, automatically."


def harm_tone(status: CanaryStatus) -> labels.Tone:
    if status.action.distance_to_trip >= 1:
        return labels.Tone.WORSE
    shows = status.action.distance_to_trip >= HALF_DISTANCE
    return labels.Tone.UNDECIDED if shows else labels.Tone.BETTER


def tiles(view: CanaryView, status: CanaryStatus) -> Sequence[Tile]:
    rollout, figures = status.rollout, status.action.figures
    canary, control = figures.canary_units, figures.control_units
    failed, control_failed = figures.canary_failures, figures.control_failures
    left = f", {labels.span(figures.seconds_left)} left" if rollout.live else ""
    return (
        Tile(
            "Failed with the candidate" if rollout.baking else "Failed in the canary",
            _failed_share(failed, canary),
            below=f"{failed:,} of {canary:,} callers",
        ),
        Tile(
            "Failed with the former model" if rollout.baking else "Failed with the incumbent",
            _failed_share(control_failed, control),
            below=f"{control_failed:,} of {control:,} callers",
        ),
        _bake_tile(view, rollout)
        if rollout.baking
        else Tile(
            "Exposures at this step" if rollout.live else "Exposures at its last step",
            f"{status.action.step_exposures:,}",
            below=f"of {rollout.current.min_exposures:,} needed{left}",
        ),
        Tile(
            "Latency, p95",
            _p95(view, "canary"),
            below=f"{'former model' if rollout.baking else 'incumbent'} "
            f"{_p95(view, 'incumbent')}",
        ),
    )


def _bake_tile(view: CanaryView, rollout: Rollout) -> Tile:
    ends = rollout.bake_ends_at
    left = labels.left(ends, view.now).removesuffix(" left") if ends else "unknown"
    return Tile("The bake ends in", left, below=labels.date_time(ends) if ends else "")


def split_check(status: CanaryStatus) -> tuple[labels.Label, str]:
    """Says whether callers are split as planned and stay with their model: the check, and the
    figures that it rests on.
    """
    rollout = status.rollout
    if rollout.baking:
        kept = labels.weight(rollout.policy.bake_bps)
        words = f"{kept} of the callers stay with {status.incumbent.name}, as the control"
        return labels.Label("=", words, labels.Tone.NEUTRAL), ""
    now = rollout.current.weight_bps
    step = [block for block in status.blocks if block.weight_bps == now]
    seen = _share(sum(b.canary_units for b in step), sum(b.units for b in step))
    figures = f"planned {labels.weight(now)} of the callers, "
    figures += (
        f"measured {labels.percent(seen, 2)}" if seen is not None else "none measured yet"
    )
    if status.action.figures.log_srm >= ALARM_LOG_E:
        words = "callers are not split as planned: check their sticky keys and the routing"
        return labels.Label("▲", words, labels.Tone.WORSE), figures
    if seen is None:
        return labels.Label(
            "◷", "nothing to check the split with yet", labels.Tone.NEUTRAL
        ), figures
    words = "callers are split as planned, and each keeps its model"
    return labels.Label("✓", words, labels.Tone.BETTER), figures


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _failed_share(failed: int, all_: int) -> str:
    """Rounds as the guardrails' rows do."""
    return format_percent(_share(failed, all_), significant=2)


def _p95(view: CanaryView, arm: str) -> str:
    """The arm's p95 by the recorded histogram, as the Routes page reckons a route's."""
    minutes = (minute.latency_ms for minute in view.traffic if minute.arm == arm)
    found = quantile_ms(merge_histograms(minutes), 0.95)
    return "unknown" if found is None else f"about {labels.seconds(found / 1000)}"


HISTORY_NOTE: Final = (
    "The audit log keeps each action with its evidence; "
    "`swapgate gate replay EVENT` decides it again from the stored blocks."
)
_WORDS: Final[Mapping[str, str]] = {
    "canary.enough": "enough exposures",
    "canary.promote": "promoted",
    "canary.proven": "promoted",
    "canary.harm": CanaryEnd.ROLLED_BACK.value,
    "canary.baked": "the bake ended",
    "canary.base_changed": "ended: the route was changed",
    "canary.stale": "ended: the candidate has become another model",
    "canary.silent": "paused: too few exposures",
    "canary.undecided": "paused: not enough evidence",
}
_UPWARD: Final = frozenset({"canary.step_done", "canary.advance"})


def history_rows(rollout: Rollout, moves: Iterable[AuditEvent]) -> Sequence[html.Row]:
    """Renders what was done, in the order of `moves`."""
    return [
        {
            "When": f"<span>{escape(labels.date_time(move.at))}<br>event {move.number}</span>",
            "What": f"<span>{strong(_what(rollout, move))}<br>by {escape(move.actor)}</span>",
            "Why": escape(move.details.get("reason", "")),
            "Evidence at that time": (
                f"<span>{'<br>'.join(map(escape, _evidence_lines(move)))}</span>"
            ),
        }
        for move in moves
    ]


def _what(rollout: Rollout, event: AuditEvent) -> str:
    if event.action in _UPWARD:
        before = _step(event.details)
        steps = rollout.policy.steps
        if before is not None and before + 1 < len(steps):
            old, new = (labels.weight(step.weight_bps) for step in steps[before : before + 2])
            return f"{old} to {new}"
    if event.action == "canary.abort":
        return find_end(str(event.details.get("reason", ""))).value
    plain = event.action.removeprefix("canary.").replace("_", " ")
    return _WORDS.get(event.action, plain)


def _step(details: Mapping[str, Any]) -> int | None:
    """The step that the rollout was at before."""
    inputs = details.get("inputs")
    found = inputs.get("step") if isinstance(inputs, Mapping) else None
    return found if isinstance(found, int) else None


def _evidence_lines(move: AuditEvent) -> Sequence[str]:
    """The evidence in figures."""
    evidence = RecordedEvidence.from_details(move.details)
    if evidence is None:
        return ()
    wanted, known = format_number(evidence.certificate_at), format_number(evidence.certificate)
    reached = evidence.certificate >= evidence.certificate_at
    certificate = f"reached ({wanted})" if reached else f"at {known}, needs {wanted}"
    return (
        f"candidate: {evidence.canary_failures:,} of {evidence.canary_units:,} failed",
        f"incumbent: {evidence.control_failures:,} of {evidence.control_units:,}",
        f"evidence of harm at most {format_harm(min(1.0, evidence.harm_share))}",
        f"certificate of no harm {certificate}",
    )
