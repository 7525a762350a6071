"""Reports drift to people: where each watched suite stands (`list_drift_status`), which items
changed since its baseline, with scores and answers (`list_drift_reports`), and title and text
of the monitor's alerts (`describe_drift`, `describe_other_model`). Reads only.

Lets people measure a route's watched suites for drift at once (`start_checks`), or accept
the model as it answers now, which measures a new baseline (`accept_baseline`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from harness.control.context import Context
from harness.control.drift import watches
from harness.control.drift.watches import WatchedPair
from harness.control.routing import routes
from harness.domain.drift import (
    DriftCheck,
    DriftCheckState,
    DriftWatch,
    DriftWatchState,
    counted_checks,
    next_check_due,
)
from harness.domain.errors import Conflict, InputError, NotFound
from harness.domain.evals.pins import Sighting
from harness.domain.evals.run import Sample
from harness.domain.formatting import format_points, format_points_interval, format_score
from harness.domain.operations.access import Actor, Role
from harness.store.transaction import Transaction

EXAMPLES: Final = 3
ANSWER_WIDTH: Final = 120
CLEAR: Final = 1e-9


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item in the baseline and in the newest run. served_*: as the provider named it."""

    item: str
    score_before: float
    score_now: float
    answer_before: str
    answer_now: str
    served_before: str
    served_now: str


def alert_subject(routes: Sequence[str], suite: str) -> str:
    return f"{'route' if len(routes) == 1 else 'routes'} {', '.join(routes)}, suite {suite}"


def describe_comparison(times: int) -> str:
    """How often the baseline was compared."""
    return {0: "not yet", 1: "once"}.get(times, f"{times} times")


def describe_watch(tx: Transaction, watch: DriftWatch) -> str:
    """Returns the name of the watched target, such as `openai/gpt-4o-mini`."""
    return tx.routing.targets()[watch.target].name


def list_item_changes(tx: Transaction, checks: Sequence[DriftCheck]) -> list[ItemChange]:
    """Items that score otherwise in the newest counted run than in the baseline; the largest
    losses first.
    """
    measured = counted_checks(checks)
    if len(measured) < 2:
        return []
    before, now = measured[0], measured[-1]
    old, new = _first_answers(tx, before.run), _first_answers(tx, now.run)
    scores = dict(now.scores)
    found = []
    for item, score in before.scores:
        present = scores.get(item)
        if score is None or present is None or abs(present - score) < CLEAR:
            continue
        a, b = old[item], new[item]
        found.append(
            ItemChange(item, score, present, a.answer, b.answer, a.served_model, b.served_model)
        )
    return sorted(
        found, key=lambda change: (change.score_now - change.score_before, change.item)
    )


def _first_answers(tx: Transaction, run: str) -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    for sample in tx.runs.samples(run):
        found.setdefault(sample.item, sample)
    return found


def describe_drift(
    tx: Transaction, routes: Sequence[str], watch: DriftWatch, checks: Sequence[DriftCheck]
) -> tuple[str, str]:
    """Writes title and text of the alert about drift."""
    evidence = checks[-1].evidence
    assert evidence is not None  # noqa: S101 - only a comparison finds drift
    by = f"{format_score(abs(evidence.delta))} points {evidence.direction}"
    which = "run" if evidence.window == 1 else f"{evidence.window} runs"
    ends = format_points_interval(evidence.ci_low, evidence.ci_high, missing="")
    interval = f" (95 % interval {ends})" if ends else ""
    title = f"{describe_watch(tx, watch)} answers {watch.suite} otherwise than it did: {by}"
    said = [
        (
            f"The newest {which} against those before: {format_points(evidence.delta)} "
            f"points{interval} over {evidence.items} items; {evidence.worse} worse, "
            f"{evidence.same} the "
            f"same, {evidence.better} better."
        ),
        f"It serves {alert_subject(routes, watch.suite)}. {_served(checks)}",
    ]
    listed = list_item_changes(tx, checks)
    shown = listed if evidence.direction == "worse" else list(reversed(listed))
    said += [
        f"Item {change.item}: {change.score_before:g} before, {change.score_now:g} now. "
        f"Before: “{_short(change.answer_before)}” Now: “{_short(change.answer_now)}”"
        for change in shown[:EXAMPLES]
    ]
    return title, "\n".join(said)


def describe_other_model(
    tx: Transaction,
    routes: Sequence[str],
    watch: DriftWatch,
    checks: Sequence[DriftCheck],
    sighting: Sighting,
) -> tuple[str, str]:
    """Writes title and text of the notice that the provider names another model."""
    before = sorted({name for check in counted_checks(checks) for name in check.served})
    title = (
        f"the provider of {describe_watch(tx, watch)} serves another model: "
        f"{sighting.served.model}"
    )
    text = (
        f"First seen {sighting.first_at:%Y-%m-%d %H:%M} UTC; the runs so far met "
        f"{', '.join(before)}. Whether it answers as well is measured by the next run: "
        f"`swapgate drift run {routes[0]}` starts it now."
    )
    return title, text


def _served(checks: Sequence[DriftCheck]) -> str:
    before = sorted({name for check in counted_checks(checks[:-1]) for name in check.served})
    now = list(checks[-1].served)
    if not now:
        return "The provider does not say which model answers."
    if now == before:
        return f"The provider names the same model as before: {', '.join(now)}."
    return f"The provider named {', '.join(before) or 'none'} before, {', '.join(now)} now."


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= ANSWER_WIDTH else f"{flat[: ANSWER_WIDTH - 1]}…"


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """Says where one watched suite of one incumbent stands."""

    routes: tuple[str, ...]
    suite: str
    model: str
    state: str  # starting | baseline | watching | drifted
    watch: DriftWatch | None  # None until its first turn
    comparisons: int  # with the baseline
    running: str | None
    last: DriftCheck | None
    next_at: datetime | None  # None while a run is on, and while drift waits for a person


@dataclass(frozen=True, slots=True)
class DriftReport:
    status: DriftStatus
    changes: tuple[ItemChange, ...]


def list_drift_status(ctx: Context, *, route: str = "") -> list[DriftStatus]:
    """Lists every watched pair of incumbent and suite. Raises NotFound for an unknown route."""
    with ctx.store.read() as tx:
        if route:
            watched = routes.require_route(tx, route).settings.suites
            if not any(suite.suite in ctx.drift for suite in watched):
                return []
        pairs = [
            pair for pair in watches.list_watched_pairs(ctx, tx) if route in ("", *pair.routes)
        ]
        open_ = {
            (drift_watch.target, drift_watch.suite): drift_watch
            for drift_watch in tx.drift.open_watches()
        }
        targets = tx.routing.targets()
        found = []
        for pair in pairs:
            watch = open_.get((pair.target, pair.suite))
            checks = tx.drift.checks(watch.id) if watch else ()
            found.append(_status(ctx, pair, targets[pair.target].name, watch, checks))
    return found


def _status(
    ctx: Context,
    pair: watches.WatchedPair,
    model: str,
    watch: DriftWatch | None,
    checks: Sequence[DriftCheck],
) -> DriftStatus:
    measured = counted_checks(checks)
    ended = [check for check in checks if check.state is not DriftCheckState.RUNNING]
    running = checks[-1].run if len(ended) < len(checks) else None
    drifted = watch is not None and watch.state is DriftWatchState.DRIFTED
    due = next_check_due(ended, pair.policy.every_s, ctx.clock.now())
    return DriftStatus(
        routes=pair.routes,
        suite=pair.suite,
        model=model,
        state=_state(watch, measured),
        watch=watch,
        comparisons=max(len(measured) - 1, 0),
        running=running,
        last=ended[-1] if ended else None,
        next_at=None if running or drifted or watch is None else due,
    )


def _state(watch: DriftWatch | None, measured: Sequence[DriftCheck]) -> str:
    if watch is None:
        return "starting"
    if watch.state is DriftWatchState.WATCHING and not measured:
        return "baseline"
    return watch.state.value


def list_drift_reports(ctx: Context, route: str, *, suite: str = "") -> list[DriftReport]:
    """Reports each watched suite of the route with the items that changed since its
    baseline.
    """
    statuses = [
        status for status in list_drift_status(ctx, route=route) if suite in ("", status.suite)
    ]
    with ctx.store.read() as tx:
        return [
            DriftReport(
                status,
                tuple(list_item_changes(tx, tx.drift.checks(status.watch.id)))
                if status.watch
                else (),
            )
            for status in statuses
        ]


def start_checks(
    ctx: Context, actor: Actor, route: str, *, suite: str = ""
) -> list[DriftCheck]:
    """Ask again at once, whatever the schedule says. What runs already is given as it is.

    Raises NotFound where nothing is watched, Conflict while found drift waits for a person.
    """
    actor.require(Role.PROPOSER)
    started = []
    with ctx.store.write() as tx:
        for pair in _of_route(ctx, tx, route, suite):
            watch = watches.find_open_watch(tx, pair)
            if watch is not None and watch.state is DriftWatchState.DRIFTED:
                raise Conflict(
                    f"suite {pair.suite} has found drift on route {route}: see `swapgate drift "
                    f"status {route}`, then `swapgate drift accept {route} --reason …`"
                )
            if watch is None:
                watch = watches.begin_watch(
                    ctx, tx, actor, pair, watches.plan_watch(ctx, pair), "asked for by hand"
                )
            else:
                watches.start_check(ctx, tx, pair, watch)
            if watch is not None:
                started.append(tx.drift.checks(watch.id)[-1])
                watches.record_watch_event(
                    ctx, tx, actor, "drift.run", watch, {"run": started[-1].run}
                )
    return started


def accept_baseline(
    ctx: Context, actor: Actor, route: str, *, reason: str, suite: str = ""
) -> list[DriftWatch]:
    """Take the model as it answers now for the one to compare with: a new baseline is measured.

    The run that raised the alarm is not it: a baseline chosen for its scores is biased.
    Raises NotFound where nothing is watched, InputError without a reason, NotAllowed.
    """
    actor.require(Role.APPROVER)
    if not reason.strip():
        raise InputError("a new baseline needs a reason: the audit log keeps it")
    opened = []
    with ctx.store.write() as tx:
        for pair in _of_route(ctx, tx, route, suite):
            before = watches.find_open_watch(tx, pair)
            if before is not None:
                watches.close_watch(ctx, tx, before)
            watch = watches.begin_watch(
                ctx, tx, actor, pair, watches.plan_watch(ctx, pair), reason
            )
            if watch is not None:
                opened.append(watch)
    return opened


def _of_route(ctx: Context, tx: Transaction, route: str, suite: str) -> list[WatchedPair]:
    routes.require_route(tx, route)
    pairs = [
        pair
        for pair in watches.list_watched_pairs(ctx, tx)
        if route in pair.routes and suite in ("", pair.suite)
    ]
    if not pairs:
        which = f"suite {suite!r}" if suite else "no suite"
        raise NotFound(
            f"{which} watches route {route!r}: give a suite of the route a `drift` section in "
            "the configuration (`swapgate docs open explanation/drift`)"
        )
    return pairs
