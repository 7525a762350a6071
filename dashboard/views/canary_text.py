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
from harness.canary.canary_state import CanaryStateKind
from harness.canary.status import CanaryStatus, list_canaries, list_rollouts
from harness.frame.formatting import (
    format_estimate,
    format_harm,
    format_percent,
)
from harness.frame.signing.audit import AuditEvent
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
    RolloutState,
    find_end,
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
    traffic: Sequence[TrafficMinute]  # since the canary started
    now: datetime

    @property
    def quiet_since(self) -> datetime | None:
        """The time of a live canary's last request; None if it is more recent than QUIET."""
        minutes = [t.minute for t in self.traffic if t.requests]
        if self.status is None or not self.status.rollout.live or not minutes:
            return None
        last = max(minutes) + timedelta(minutes=1)
        return last if self.now - last > QUIET else None


def load_canary(ctx: Context, route: str) -> CanaryView:
    """Loads the newest canary of a route, with its traffic by the minute."""
    canaries = list_canaries(ctx, route=route)
    if not canaries:
        return CanaryView(None, (), ctx.clock.now())
    since = canaries[0].rollout.started_at.replace(second=0, microsecond=0)
    with ctx.store.read() as tx:
        traffic = Observations(tx).traffic(since=since, route=route)
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
    since = view.quiet_since
    note = (
        f"Route {strong(rollout.route)} · incumbent {strong(status.incumbent.name)} · started "
        f"{escape(labels.age(rollout.started_at, view.now))}"
    )
    stale = ""
    if since is not None:
        words = (
            f"No request has arrived since {labels.date_time(since)}. Check that clients call "
            "the route and that the router runs: `swapgate doctor`."
        )
        stale = markup.banner("STALE.", words)
    heading = markup.title(f"{strong(status.candidate.name)} {escape(state.predicate)}", note)
    card = markup.verdict(_card(view, status), stale=bool(stale) and is_calm(status))
    return f'<div class="sg-top">{heading}{stale}{card}</div>'


def is_calm(status: CanaryStatus) -> bool:
    """Tells whether the canary needs no person, so that its figures may be greyed when they are
    old.
    """
    return status.state.kind in (
        CanaryStateKind.HEALTHY,
        CanaryStateKind.EMPTY,
    )


def _card(view: CanaryView, status: CanaryStatus) -> VerdictCard:
    """Builds the card of a canary's state; in a bake, with its end and the share that is held
    back.
    """
    rollout = status.rollout
    state = status.state
    at = status.changed_at
    bullets: Sequence[tuple[str, str]] = ()
    if rollout.baking:
        ends = rollout.bake_ends_at
        when = f"{labels.date_time(ends)}, {labels.left(ends, view.now)}" if ends else "unknown"
        kept = f"{labels.weight(rollout.policy.bake_bps)} of the callers still get "
        bullets = (
            ("Ends", when),
            ("Held back", f"{kept}{status.incumbent.name}, as a control"),
        )
    ended = f"ended {labels.date_time(at)}, {labels.age(at, view.now)}"
    return VerdictCard(
        label=replace(labels.canary_label(state), words=""),
        lead=state.reason,
        bullets=bullets,
        next_step=state.next_step,
        foot="" if rollout.live or rollout.baking else ended,
    )


def needs(status: CanaryStatus) -> Sequence[tuple[labels.Label, str]]:
    """Lists the conditions for the next step with their state. Empty if there is no
    next step.
    """
    explanation = status.explanation
    if not explanation.needs:
        return ()
    # The check of the split shows the sample ratio with its figures.
    shown = [_need(need) for need in explanation.needs if need.what != "sample ratio"]
    return [*shown, split_check(status)]


def _need(need: StepNeed) -> tuple[labels.Label, str]:
    if need.done:
        return labels.Label("✓", need.words, labels.Tone.BETTER), ""
    if need.eta_s is None:
        when = "" if need.what == "person" else "no estimate yet"
        return labels.Label("?", need.words, labels.Tone.UNDECIDED), when
    when = f"about {format_estimate(need.eta_s)}"
    return labels.Label("◷", need.words, labels.Tone.NEUTRAL), when


def guardrails(status: CanaryStatus, *, stale: bool) -> str:
    """Renders the guardrails that have counted something, the most harmful first."""
    seen = [row for row in status.explanation.guardrails if row.exposures]
    rows = map(_guardrail, sorted(seen, key=lambda row: -row.distance))
    return markup.block(
        "".join(rows),
        kind="sg-measures sg-stale" if stale else "sg-measures",
    )


def _guardrail(row: GuardrailRow) -> str:
    label = evidence_label(row)
    figures = ""
    if row.candidate:
        figures = f"{escape(row.candidate)} <span>against {escape(row.incumbent)}</span>"
    figures += "".join(f"<span>{escape(note)}</span>" for note in row.classes)
    return (
        f'<div class="row"><div class="name">{strong(row.name)}'
        f"<span>{escape(f'allowed: {row.allowed}')}</span></div>"
        f'<div class="figures">{figures}</div>'
        f'<div class="state">{markup.state(label)}'
        f"<span>{format_harm(row.distance)}</span></div>"
        f"{markup.meter(row.name, row.distance, label.tone, row.furthest)}</div>"
    )


def outcome_rows(status: CanaryStatus) -> Sequence[markup.Row]:
    """Returns a row for each way in which the requests of both models ended."""
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


def without_data(status: CanaryStatus) -> str:
    """Names the guardrails that have counted nothing, by reason."""
    missing: dict[str, list[str]] = {}
    for row in status.explanation.guardrails:
        if not row.exposures:
            missing.setdefault(row.says, []).append(row.name)
    return " ".join(
        f"{says.capitalize()}: {', '.join(names)}." for says, names in missing.items()
    )


def evidence_label(row: GuardrailRow) -> labels.Label:
    """Returns the label of a guardrail: from no evidence of harm to the level of a rollback."""
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
    """Returns the highest evidence so far, as a share of the rollback level."""
    figures = status.action.figures
    return max(0.0, figures.log_e_max / figures.rollback_at) if figures.rollback_at else 0.0


def plan(status: CanaryStatus) -> tuple[Sequence[tuple[str, str]], int | None, str]:
    """Returns the steps of the canary, the index of the present step, and its words."""
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
        return (
            [*steps, ("100 %", f"baking; {kept} held back")],
            len(steps),
            "now",
        )
    promoted = rollout.state is RolloutState.PROMOTED
    at = len(steps) if promoted else rollout.step
    last = "promoted, then taken back" if status.rollback else "promoted"
    return (
        [*steps, ("100 %", last)],
        at,
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
    shows = status.action.distance_to_trip >= HALF_DISTANCE
    return labels.Tone.UNDECIDED if shows else labels.Tone.BETTER


def tiles(view: CanaryView, status: CanaryStatus) -> Sequence[Tile]:
    """Builds the four figures at the top. In a bake, the former model takes the incumbent's
    place.
    """
    rollout = status.rollout
    figures = status.action.figures
    new = "in the canary"
    old = "with the incumbent"
    beside = "incumbent"
    left = f", {labels.span(figures.seconds_left)} left" if rollout.live else ""
    third = Tile(
        "Exposures at this step" if rollout.live else "Exposures at its last step",
        f"{status.action.step_exposures:,}",
        below=f"of {rollout.current.min_exposures:,} needed{left}",
    )
    if rollout.baking:
        new = "with the candidate"
        old = "with the former model"
        beside = "former model"
        ends = rollout.bake_ends_at
        left = labels.left(ends, view.now).removesuffix(" left") if ends else "unknown"
        third = Tile(
            "The bake ends in",
            left,
            below=labels.date_time(ends) if ends else "",
        )
    failed = _failed(new, figures.canary_failures, figures.canary_units)
    if figures.guard is not None and not figures.canary_units:
        guarded = _failed(new, figures.guard.canary_failures, figures.guard.exposures)
        failed = replace(guarded, below=f"{guarded.below}, by a router's own guard")
    return (
        failed,
        _failed(old, figures.control_failures, figures.control_units),
        third,
        Tile(
            "Latency, p95",
            _p95(view, "canary"),
            below=f"{beside} {_p95(view, 'incumbent')}",
        ),
    )


def _failed(
    arm: str,
    failed: int,
    callers: int,
) -> Tile:
    # The guardrails' rows round in the same way.
    share = format_percent(_share(failed, callers), significant=2)
    return Tile(f"Failed {arm}", share, below=f"{failed:,} of {callers:,} callers")


def split_check(status: CanaryStatus) -> tuple[labels.Label, str]:
    """Tells whether callers are split as planned. A split that is not makes every comparison
    unsound.
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
    words = "callers are split as planned, and each keeps its model"
    label = labels.Label("✓", words, labels.Tone.BETTER)
    if status.action.figures.log_srm >= ALARM_LOG_E:
        words = "callers are not split as planned: check their sticky keys and the routing"
        label = labels.Label("▲", words, labels.Tone.WORSE)
    elif seen is None:
        words = "no request yet to check the split with"
        label = labels.Label("◷", words, labels.Tone.NEUTRAL)
    return label, figures


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _p95(view: CanaryView, arm: str) -> str:
    """Returns the arm's 95th percentile of latency, from histograms; so it is approximate."""
    minutes = (minute.latency_ms for minute in view.traffic if minute.arm == arm)
    found = quantile_ms(merge_histograms(minutes), 0.95)
    return "unknown" if found is None else f"about {labels.seconds(found / 1000)}"


HISTORY_NOTE: Final = (
    "The audit log keeps each action with its evidence; "
    "`swapgate gate replay EVENT` recomputes the decision from the stored blocks."
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


def history_rows(rollout: Rollout, moves: Iterable[AuditEvent]) -> Sequence[markup.Row]:
    """Builds the table of a canary's actions. moves: its events, as the audit log has them."""
    return [
        {
            "When": f"<span>{escape(labels.date_time(move.at))}<br>event {move.number}</span>",
            "What": f"<span>{strong(_what(rollout, move))}<br>by {escape(move.actor)}</span>",
            "Why": escape(move.details.get("reason", "")),
        }
        for move in moves
    ]


def _what(rollout: Rollout, event: AuditEvent) -> str:
    """Names an event: a rise by its shares, an end by how it ended, else by its action."""
    if event.action in _UPWARD:
        # The event's inputs hold the step before the move.
        inputs = event.details.get("inputs")
        before = inputs.get("step") if isinstance(inputs, Mapping) else None
        steps = rollout.policy.steps
        if isinstance(before, int) and before + 1 < len(steps):
            old, new = (labels.weight(step.weight_bps) for step in steps[before : before + 2])
            return f"{old} to {new}"
    if event.action == "canary.abort":
        return find_end(str(event.details.get("reason", ""))).value
    plain = event.action.removeprefix("canary.").replace("_", " ")
    return _WORDS.get(event.action, plain)
