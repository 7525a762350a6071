"""Loads a canary for its page, and writes the page's texts.

Functions from `headline` on are pure: they turn a status into words, tiles and HTML. The
decision itself, and its reasons, come from `harness.canary`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from dashboard import labels, markup, page_frame
from dashboard.markup import Tile, VerdictCard, escape, strong
from harness.canary.status import CanaryStatus, list_canaries, list_rollouts
from harness.frame.formatting import (
    format_estimate,
    format_harm,
    format_percent,
)
from harness.frame.signing.audit import AuditEvent
from harness.gate.canary_sentences import CanaryStateKind, end_words
from harness.gate.explain import StepNeed
from harness.gate.guardrail_rows import (
    HALF_DISTANCE,
    SOME_EVIDENCE,
    GuardrailRow,
)
from harness.gate.online.fisher import ALARM_LOG_E
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.rollout import (
    CanaryEnd,
    Rollout,
    RolloutSignal,
    RolloutState,
    name_end,
)
from harness.operations.context import Context
from harness.routing.records.observations import Observations
from harness.routing.reliability.latency import merge_histograms, quantile_ms

# After this time without a request, a live canary's figures are stale.
QUIET = timedelta(minutes=3)


@dataclass(frozen=True)
class CanaryView:
    """A route's newest canary as the page shows it."""

    status: CanaryStatus | None  # None for a route that never had a canary
    traffic: Sequence[TrafficMinute]  # since the canary started, until its end
    now: datetime

    @property
    def quiet_since(self) -> datetime | None:
        """Returns the time of a live canary's last request; None if that is within `QUIET`."""
        minutes = [minute.minute for minute in self.traffic if minute.requests]
        if self.status is None or not self.status.rollout.live or not minutes:
            return None
        last_request_at = max(minutes) + timedelta(minutes=1)
        return last_request_at if self.now - last_request_at > QUIET else None


def load_canary(ctx: Context, route: str) -> CanaryView:
    """Loads the newest canary of a route, with its traffic by the minute."""
    canaries = list_canaries(ctx, route=route)
    if not canaries:
        return CanaryView(None, (), ctx.clock.now())
    first_minute = canaries[0].rollout.started_at.replace(second=0, microsecond=0)
    with ctx.store.read() as tx:
        traffic = Observations(tx).traffic(since=first_minute, route=route)
    rollout = canaries[0].rollout
    if not rollout.live and not rollout.baking:
        # Requests after the end took no part in the decision that the page shows.
        traffic = [minute for minute in traffic if minute.minute <= rollout.updated_at]
    return CanaryView(canaries[0], traffic, ctx.clock.now())


def list_canary_routes(ctx: Context) -> Sequence[str]:
    """Lists the routes: with a live canary first, then with an ended one, then without."""
    order = {rollout.route: 0 if rollout.live else 1 for rollout in list_rollouts(ctx)}
    return sorted(
        page_frame.route_names(ctx),
        key=lambda name: (order.get(name, 2), name),
    )


TIMELINE_NOTE: Final = (
    "Times are UTC. A failure counts for the model that a caller was assigned to, even if a "
    "fallback answered. Shaded: 95 % intervals."
)
OUTCOMES_NOTE: Final = (
    "Each assigned request ends in one outcome; for each model they sum to the last row."
)
GUARDRAILS_NOTE = (
    "The candidate's figures and the incumbent's. Bar: the evidence of this guardrail alone, "
    "as a share of the rollback level. Mark: its maximum so far."
)


def headline(view: CanaryView, status: CanaryStatus) -> str:
    """Renders the state of the canary, the next step, and a warning if no requests arrive."""
    rollout = status.rollout
    state = status.state
    quiet_since = view.quiet_since
    note = (
        f"Route {strong(rollout.route)} · incumbent {strong(status.incumbent.name)} · started "
        f"{escape(labels.age(rollout.started_at, view.now))}"
    )
    stale_banner = ""
    if quiet_since is not None:
        text = (
            f"No request has arrived since {labels.date_time(quiet_since)}. Check that clients "
            "call the route and that the router runs: `swapgate doctor`."
        )
        stale_banner = markup.banner("STALE.", text)
    heading = markup.title(f"{strong(status.candidate.name)} {escape(state.predicate)}", note)
    card = markup.verdict(
        _build_card(view, status), stale=bool(stale_banner) and is_calm(status)
    )
    return f'<div class="sg-top">{heading}{stale_banner}{card}</div>'


def is_calm(status: CanaryStatus) -> bool:
    """Tells whether the canary needs no person. Only then may the page grey old figures."""
    return status.state.kind in (
        CanaryStateKind.HEALTHY,
        CanaryStateKind.EMPTY,
    )


def _build_card(view: CanaryView, status: CanaryStatus) -> VerdictCard:
    """Builds the card of a canary's state. In a bake, the card has the bake's end and the
    control's share.
    """
    rollout = status.rollout
    state = status.state
    changed_at = status.changed_at
    bullets: Sequence[tuple[str, str]] = ()
    if rollout.baking:
        bake_ends_at = rollout.bake_ends_at
        end_text = (
            f"{labels.date_time(bake_ends_at)}, {labels.left(bake_ends_at, view.now)}"
            if bake_ends_at
            else "unknown"
        )
        control_text = f"{labels.weight(rollout.policy.bake_bps)} of the callers still get "
        bullets = (
            ("Ends", end_text),
            ("Held back", f"{control_text}{status.incumbent.name}, as a control"),
        )
    ended_text = f"ended {labels.date_time(changed_at)}, {labels.age(changed_at, view.now)}"
    return VerdictCard(
        label=replace(labels.canary_label(state), words=""),
        lead=state.reason,
        bullets=bullets,
        next_step=state.next_step,
        foot="" if rollout.live or rollout.baking else ended_text,
    )


def needs(status: CanaryStatus) -> Sequence[tuple[labels.Label, str]]:
    """Lists the conditions for the next step with their states; empty without a next step."""
    explanation = status.explanation
    if not explanation.needs:
        return ()
    # `split_check` shows the sample ratio with its figures.
    rows = [_label_need(need) for need in explanation.needs if need.what != "sample ratio"]
    return [*rows, split_check(status)]


def _label_need(need: StepNeed) -> tuple[labels.Label, str]:
    if need.done:
        return labels.Label("✓", need.words, labels.Tone.BETTER), ""
    if need.eta_s is None:
        estimate = "" if need.what == "person" else "no estimate yet"
        return labels.Label("?", need.words, labels.Tone.UNDECIDED), estimate
    estimate = f"about {format_estimate(need.eta_s)}"
    return labels.Label("◷", need.words, labels.Tone.NEUTRAL), estimate


def guardrails(status: CanaryStatus, *, stale: bool) -> str:
    """Renders the guardrails that have counted something, the most harmful first."""
    rows_with_data = [row for row in status.explanation.guardrails if row.exposures]
    parts = map(_render_guardrail, sorted(rows_with_data, key=lambda row: -row.distance))
    return markup.block(
        "".join(parts),
        kind="sg-measures sg-stale" if stale else "sg-measures",
    )


def _render_guardrail(row: GuardrailRow) -> str:
    label = evidence_label(row)
    figures = ""
    if row.candidate:
        figures = f"{escape(row.candidate)} <span>against {escape(row.incumbent)}</span>"
    return (
        f'<div class="row"><div class="name">{strong(row.name)}'
        f"<span>{escape(f'allowed: {row.allowed}')}</span></div>"
        f'<div class="figures">{figures}</div>'
        f'<div class="state">{markup.state(label)}'
        f"<span>{format_harm(row.distance)}</span></div>"
        f"{markup.meter(row.name, row.distance, label.tone, row.furthest)}</div>"
    )


def outcome_rows(status: CanaryStatus) -> Sequence[markup.Row]:
    """Builds a row for each outcome of the requests of both models."""
    explanation = status.explanation
    return [
        {
            "Outcome": escape(row.name),
            "Candidate": escape(row.candidate_text),
            "Incumbent": escape(row.incumbent_text),
        }
        for row in (
            *explanation.outcomes,
            *explanation.uncounted,
            *explanation.served,
        )
    ]


def how_it_decides(status: CanaryStatus) -> str:
    """Renders each guardrail's comparison, and the rules of the decision."""
    rows = [
        (row.name, "<br>".join(map(escape, row.classes)))
        for row in status.explanation.guardrails
        if row.exposures and row.classes
    ]
    rows.append(("Rules", escape(f"This canary {status.explanation.judged_by}.")))
    if missing_text := _describe_missing_data(status):
        rows.append(("Not counted", escape(missing_text)))
    return markup.facts(rows)


def _describe_missing_data(status: CanaryStatus) -> str:
    """Lists the guardrails without data by the reason."""
    missing: dict[str, list[str]] = {}
    for row in status.explanation.guardrails:
        if not row.exposures:
            missing.setdefault(row.says, []).append(row.name)
    return " ".join(
        f"{says.capitalize()}: {', '.join(names)}." for says, names in missing.items()
    )


def evidence_label(row: GuardrailRow) -> labels.Label:
    """Returns the label of a guardrail, by its evidence of harm."""
    if row.distance >= 1:
        return labels.Label("✕", row.says, labels.Tone.WORSE)
    if row.warns:
        return labels.Label("▲", row.says, labels.Tone.UNDECIDED)
    if row.log_e > SOME_EVIDENCE:
        return labels.Label("?", row.says, labels.Tone.UNDECIDED)
    if row.log_e <= 0:
        return labels.Label("✓", row.says, labels.Tone.BETTER)
    return labels.Label("=", row.says, labels.Tone.NEUTRAL)


def find_highest_evidence(status: CanaryStatus) -> float:
    """Returns the highest evidence so far, as a share of the rollback level."""
    figures = status.action.figures
    return max(0.0, figures.log_e_max / figures.rollback_at) if figures.rollback_at else 0.0


def list_steps(status: CanaryStatus) -> tuple[Sequence[tuple[str, str]], int | None, str]:
    """Returns the canary's steps, the index of the present step, and the mark of that step."""
    rollout = status.rollout
    steps = [
        (
            labels.weight(step.weight_bps),
            f"{step.min_exposures:,} callers{', certified' if step.certify else ''}",
        )
        for step in rollout.policy.steps
    ]
    if rollout.baking:
        control_share = labels.weight(rollout.policy.bake_bps)
        return (
            [*steps, ("100 %", f"baking; {control_share} held back")],
            len(steps),
            "now",
        )
    is_promoted = rollout.state is RolloutState.PROMOTED
    index = len(steps) if is_promoted else rollout.step
    last_text = "promoted, then rolled back" if status.rollback else "promoted"
    return (
        [*steps, ("100 %", last_text)],
        index,
        "now" if rollout.live else "ended here",
    )


def harm_line(status: CanaryStatus) -> str:
    share = format_harm(status.action.distance_to_trip)
    if not status.rollout.live and not status.rollout.baking:
        return f"{share} when it ended."
    return f"{share}. At 100 % the candidate is rolled back at once, automatically."


def harm_tone(status: CanaryStatus) -> labels.Tone:
    if status.action.distance_to_trip >= 1:
        return labels.Tone.WORSE
    is_visible = status.action.distance_to_trip >= HALF_DISTANCE
    return labels.Tone.UNDECIDED if is_visible else labels.Tone.BETTER


def tiles(view: CanaryView, status: CanaryStatus) -> Sequence[Tile]:
    """Builds the four figures at the top. In a bake, the former model stands for the
    incumbent.
    """
    rollout = status.rollout
    figures = status.action.figures
    candidate_words = "in the canary"
    incumbent_words = "with the incumbent"
    incumbent_name = "incumbent"
    if rollout.baking:
        candidate_words = "with the candidate"
        incumbent_words = "with the former model"
        incumbent_name = "former model"
    candidate_tile = _build_failure_tile(
        candidate_words, figures.canary_failures, figures.canary_units
    )
    if figures.guard is not None and not figures.canary_units:
        guard_tile = _build_failure_tile(
            candidate_words, figures.guard.canary_failures, figures.guard.exposures
        )
        candidate_tile = replace(
            guard_tile, below=f"{guard_tile.below}, by a router's own guard"
        )
    return (
        candidate_tile,
        _build_failure_tile(incumbent_words, figures.control_failures, figures.control_units),
        _build_progress_tile(view, status),
        Tile(
            "Latency, p95",
            _format_p95(view, "canary"),
            below=f"{incumbent_name} {_format_p95(view, 'incumbent')}",
        ),
    )


def _build_progress_tile(view: CanaryView, status: CanaryStatus) -> Tile:
    """Builds the tile of the step's callers; in a bake, of the remaining time."""
    rollout = status.rollout
    figures = status.action.figures
    if rollout.baking:
        bake_ends_at = rollout.bake_ends_at
        left_s = (bake_ends_at - view.now).total_seconds() if bake_ends_at else None
        left_text = "unknown" if left_s is None else labels.span(max(0.0, left_s))
        return Tile(
            "The bake ends in",
            left_text,
            below=labels.date_time(bake_ends_at) if bake_ends_at else "",
        )
    decision = rollout.decided
    if decision is not None and decision.guard is not None:
        # The guard decided before the control plane had counted the step's callers.
        lasted_s = (decision.at - rollout.started_at).total_seconds()
        rolled_back_text = f"rolled back {labels.date_time(decision.at)}"
        return Tile("The canary lasted", labels.span(lasted_s), below=rolled_back_text)
    left_text = f", {labels.span(figures.seconds_left)} left" if rollout.live else ""
    return Tile(
        "Callers at this step" if rollout.live else "Callers at its last step",
        f"{status.action.step_exposures:,}",
        below=f"of {rollout.current.min_exposures:,} needed{left_text}",
    )


def _build_failure_tile(
    arm: str,
    failures: int,
    callers: int,
) -> Tile:
    # The guardrails' rows round in the same way.
    share = format_percent(_divide(failures, callers), significant=2)
    return Tile(f"Failed {arm}", share, below=f"{failures:,} of {callers:,} callers")


def split_check(status: CanaryStatus) -> tuple[labels.Label, str]:
    """Describes whether callers are split as planned. Any other split makes every comparison
    unsound.
    """
    rollout = status.rollout
    if rollout.baking:
        control_share = labels.weight(rollout.policy.bake_bps)
        words = (
            f"{control_share} of the callers stay with {status.incumbent.name}, as the control"
        )
        return labels.Label("=", words, labels.Tone.NEUTRAL), ""
    planned_bps = rollout.current.weight_bps
    step_blocks = [block for block in status.blocks if block.weight_bps == planned_bps]
    measured_share = _divide(
        sum(block.canary_units for block in step_blocks),
        sum(block.units for block in step_blocks),
    )
    figures = f"planned {labels.weight(planned_bps)} of the callers, "
    figures += (
        f"measured {labels.percent(measured_share, 2)}"
        if measured_share is not None
        else "none measured yet"
    )
    words = "callers are split as planned, and each keeps its model"
    label = labels.Label("✓", words, labels.Tone.BETTER)
    if status.action.figures.log_srm >= ALARM_LOG_E:
        words = "callers are not split as planned: check their sticky keys and the routing"
        label = labels.Label("▲", words, labels.Tone.WORSE)
    elif measured_share is None:
        words = "no request yet to check the split with"
        label = labels.Label("◷", words, labels.Tone.NEUTRAL)
    return label, figures


def _divide(part: int, total: int) -> float | None:
    return part / total if total else None


def _format_p95(view: CanaryView, arm: str) -> str:
    """Formats the arm's 95th percentile of latency, which is approximate, as it comes from
    histograms.
    """
    minutes = (minute.latency_ms for minute in view.traffic if minute.arm == arm)
    p95_ms = quantile_ms(merge_histograms(minutes), 0.95)
    return "unknown" if p95_ms is None else f"about {labels.seconds(p95_ms / 1000)}"


HISTORY_NOTE: Final = (
    "The audit log keeps each action with its evidence; "
    "`swapgate gate replay EVENT` recomputes the decision from the stored blocks."
)
_WORDS: Final[Mapping[str, str]] = {
    "canary.enough": "enough callers",
    "canary.promote": "promoted",
    "canary.proven": "promoted",
    "canary.harm": end_words(CanaryEnd.ROLLED_BACK),
    "canary.baked": "the bake ended",
    "canary.base_changed": "ended: the route was changed",
    "canary.stale": "ended: the candidate has become another model",
    "canary.silent": "paused: too few callers",
    "canary.undecided": "paused: not enough evidence",
}
_UPWARD: Final = frozenset({"canary.step_done", "canary.advance"})


def history_rows(rollout: Rollout, moves: Iterable[AuditEvent]) -> Sequence[markup.Row]:
    """Builds the table of a canary's actions. moves: its events of the audit log."""
    return [
        {
            "When": f"<span>{escape(labels.date_time(move.at))}<br>event {move.number}</span>",
            "What": f"<span>{strong(_name_event(rollout, move))}<br>"
            f"by {escape(move.actor)}</span>",
            "Why": escape(move.details.get("reason", "")),
        }
        for move in moves
    ]


def _name_event(rollout: Rollout, event: AuditEvent) -> str:
    """Names an event. A rise has both shares as its name, an abort the end that it caused, and
    other events their action.
    """
    if event.action in _UPWARD:
        # The event's inputs contain the step before the rise.
        inputs = event.details.get("inputs")
        former_step = inputs.get("step") if isinstance(inputs, Mapping) else None
        steps = rollout.policy.steps
        if isinstance(former_step, int) and former_step + 1 < len(steps):
            old_share, new_share = (
                labels.weight(step.weight_bps) for step in steps[former_step : former_step + 2]
            )
            return f"{old_share} to {new_share}"
    if event.action == "canary.abort":
        inputs = event.details.get("inputs")
        state = inputs.get("state") if isinstance(inputs, Mapping) else None
        baking = state == RolloutState.PROMOTED.value
        return end_words(name_end(RolloutSignal.ABORT, baking=baking))
    action_words = event.action.removeprefix("canary.").replace("_", " ")
    return _WORDS.get(event.action, action_words)
