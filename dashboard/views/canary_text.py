"""Loads a canary for its page, and writes the page's texts.

Functions from `headline` on are pure: they turn a status into words, tiles and HTML. The
decision itself, and its reasons, come from `harness.canary`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from dashboard import labels, markup, page_frame
from dashboard.markup import VerdictCard, escape, noted, rich, strong
from dashboard.serving import outage_banner, serving_line
from harness.canary.callers import CallerArm
from harness.canary.status import CanaryStatus, list_canaries, list_rollouts
from harness.frame.formatting import (
    format_estimate,
    format_harm,
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
from harness.operations.route_queries import load_serving
from harness.operations.route_status import RouteStatus
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
    serving: RouteStatus | None = None  # None for a deleted route

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
        return CanaryView(None, (), ctx.clock.now(), load_serving(ctx, route))
    first_minute = canaries[0].rollout.started_at.replace(second=0, microsecond=0)
    with ctx.store.read() as tx:
        traffic = Observations(tx).traffic(since=first_minute, route=route)
    rollout = canaries[0].rollout
    if not rollout.live and not rollout.baking:
        # Requests after the end took no part in the decision that the page shows.
        traffic = [minute for minute in traffic if minute.minute <= rollout.updated_at]
    return CanaryView(canaries[0], traffic, ctx.clock.now(), load_serving(ctx, route))


def list_canary_routes(ctx: Context) -> Sequence[str]:
    """Lists the routes: with a live canary first, then with an ended one, then without."""
    order = {rollout.route: 0 if rollout.live else 1 for rollout in list_rollouts(ctx)}
    return sorted(
        page_frame.route_names(ctx),
        key=lambda name: (order.get(name, 2), name),
    )


TIMELINE_NOTE: Final = (
    "A failure counts for the model that a caller was assigned to, even if a fallback "
    "answered. Shaded: 95 % intervals."
)
OUTCOMES_NOTE: Final = (
    "Each assigned request ends in one outcome; for each model they sum to the last row."
)


def headline(view: CanaryView, status: CanaryStatus) -> str:
    """Renders the state of the canary, the next step, and a warning if no requests arrive."""
    rollout = status.rollout
    state = status.state
    quiet_since = view.quiet_since
    note = (
        f"Route {strong(rollout.route)} · {serving_line(view.serving)} · "
        f"started {escape(labels.age(rollout.started_at, view.now))}"
    )
    banners = outage_banner(view.serving)
    if quiet_since is not None:
        text = (
            f"No request has arrived since {labels.date_time(quiet_since)}. Check that clients "
            "call the route and that the router runs: `swapproof doctor`."
        )
        banners += markup.banner("STALE.", text)
    heading = markup.title(f"{strong(status.candidate.name)} {escape(state.predicate)}", note)
    card = markup.verdict(
        _build_card(view, status), stale=quiet_since is not None and is_calm(status)
    )
    return f'<div class="sg-top">{heading}{banners}{card}</div>'


def no_canary(view: CanaryView, route: str) -> str:
    """Renders the title of a route that never had a canary."""
    heading = f"No canary on {strong(route)}"
    return markup.title(heading, serving_line(view.serving)) + outage_banner(view.serving)


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
    is_healthy = rollout.live and state.kind is CanaryStateKind.HEALTHY
    return VerdictCard(
        label=replace(labels.canary_label(state), words=""),
        # The bar of the steps and the guardrails show a healthy canary's figures.
        lead="" if is_healthy else state.reason,
        bullets=bullets,
        next_step=state.next_step,
        foot="" if rollout.live or rollout.baking else ended_text,
    )


def needs(status: CanaryStatus) -> Sequence[tuple[labels.Label, str]]:
    """Lists the conditions for the next step with their states; empty without a next step."""
    explanation = status.explanation
    if not explanation.needs:
        return ()
    # The bar of the steps shows the callers, and `split_check` the sample ratio.
    shown_elsewhere = ("sample ratio", "exposures")
    rows = [_label_need(need) for need in explanation.needs if need.what not in shown_elsewhere]
    return [*rows, split_check(status)]


def _label_need(need: StepNeed) -> tuple[labels.Label, str]:
    if need.done:
        return labels.Label("✓", need.words, labels.Tone.BETTER), ""
    if need.eta_s is None:
        estimate = "" if need.what == "person" else "no estimate yet"
        return labels.Label("?", need.words, labels.Tone.UNDECIDED), estimate
    estimate = f"about {format_estimate(need.eta_s)}"
    return labels.Label("◷", need.words, labels.Tone.NEUTRAL), estimate


def guardrails(view: CanaryView, status: CanaryStatus, *, stale: bool) -> str:
    """Renders the table of the guardrails that have counted something, the most harmful first,
    after their common evidence.
    """
    rows_with_data = [row for row in status.explanation.guardrails if row.exposures]
    rows = [_build_common_row(view, status)]
    rows += map(_build_guardrail_row, sorted(rows_with_data, key=lambda row: -row.distance))
    return markup.block(
        markup.table(rows, stacked=True),
        kind="sg-measures sg-stale" if stale else "sg-measures",
    )


def _build_common_row(view: CanaryView, status: CanaryStatus) -> markup.Row:
    """Builds the row of the evidence of all guardrails together, with the arms' latency."""
    meter = markup.meter(
        "Evidence of harm",
        status.action.distance_to_trip,
        harm_tone(status),
        furthest=find_highest_evidence(status),
    )
    return {
        "Guardrail": strong("All together"),
        "Candidate": escape(f"p95 {_format_p95(view, 'canary')}"),
        "Incumbent": escape(f"p95 {_format_p95(view, 'incumbent')}"),
        "Evidence of harm": f"<div>{meter}{markup.faint(harm_line(status))}</div>",
    }


def _build_guardrail_row(row: GuardrailRow) -> markup.Row:
    label = evidence_label(row)
    meter = markup.meter(row.name, row.distance, label.tone, row.furthest)
    return {
        "Guardrail": noted(strong(row.name), f"allowed: {row.allowed}"),
        "Candidate": escape(row.candidate),
        "Incumbent": escape(row.incumbent),
        "Evidence of harm": f"<div>{meter}{markup.state(label)}</div>",
    }


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


def list_steps(
    view: CanaryView, status: CanaryStatus
) -> tuple[Sequence[tuple[str, str]], int, str, float]:
    """Returns the canary's steps with their texts, the index of the present step, its mark, and
    the part of it that is done.
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
        text, progress = _describe_bake(view, status)
        return [*steps, ("100 %", text)], len(steps), "now", progress
    is_promoted = rollout.state is RolloutState.PROMOTED
    last_text = "promoted, then rolled back" if status.rollback else "promoted"
    plan = [*steps, ("100 %", last_text)]
    if is_promoted:
        return plan, len(steps), "ended here", 1.0
    counted, progress = _count_callers(status)
    share, wanted = steps[rollout.step]
    left_s = status.action.figures.seconds_left
    left_text = f", {labels.span(left_s)} left" if rollout.live else ""
    plan[rollout.step] = share, f"{counted} of {wanted}{left_text}"
    return plan, rollout.step, "now" if rollout.live else "ended here", progress


def _count_callers(status: CanaryStatus) -> tuple[str, float]:
    """Returns the callers of the present step as text, and as a part of the callers that it
    needs. A router's own guard may decide before the control plane has counted any.
    """
    figures = status.action.figures
    callers = status.action.step_exposures
    progress = callers / status.rollout.current.min_exposures
    guard = figures.guard
    if guard is not None and not figures.canary_units:
        text = (
            f"{guard.canary_failures:,} of {guard.exposures:,} failed, by a router's own guard"
        )
        return f"{text}; {callers:,}", progress
    return f"{callers:,}", progress


def _describe_bake(view: CanaryView, status: CanaryStatus) -> tuple[str, float]:
    """Returns the text of a bake with its end, and the part of it that is over."""
    rollout = status.rollout
    control_share = labels.weight(rollout.policy.bake_bps)
    ends_at = rollout.bake_ends_at
    if ends_at is None:
        return f"baking; {control_share} held back; its end is unknown", 0.0
    left_s = max(0.0, (ends_at - view.now).total_seconds())
    whole_s = (ends_at - rollout.step_started_at).total_seconds()
    text = f"baking; {control_share} held back; ends in {labels.span(left_s)}"
    return text, 1.0 - left_s / whole_s if whole_s > 0 else 1.0


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
    "`swapproof gate replay EVENT` recomputes the decision from the stored blocks."
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


_COUNTED: Final[Mapping[bool | None, str]] = {
    True: " The canary has counted it.",
    False: " The canary has not counted it yet.",
    None: "",
}


def caller_answer(user: str, arms: Sequence[CallerArm]) -> str:
    """Writes which model a caller gets, since when, and why."""
    parts = []
    for arm in arms:
        since = f"since {arm.since:%Y-%m-%d %H:%M} UTC"
        until = f" until {arm.until:%Y-%m-%d %H:%M} UTC" if arm.until else ""
        model = strong(arm.model) if arm.model else "the model that the share draws for it"
        other = f" The request also decides, by: {arm.depends_on}." if arm.depends_on else ""
        parts.append(
            f"{strong(user)}, sent as {escape(arm.sent_as)}, gets {model} {since}{until}: "
            f"{escape(arm.because)}.{_COUNTED[arm.is_counted]}{escape(other)}"
        )
    return markup.block("".join(f"<p>{part}</p>" for part in parts))


def history_rows(rollout: Rollout, moves: Iterable[AuditEvent]) -> Sequence[markup.Row]:
    """Builds the table of a canary's actions.

    Args:
        moves: its events of the audit log.
    """
    return [
        {
            "When": f"<span>{rich(labels.date_time(move.at))}<br>event {move.number}</span>",
            "What": f"<span>{strong(_name_event(rollout, move))}<br>"
            f"by {escape(move.actor)}</span>",
            "Why": rich(move.details.get("reason", "")),
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
