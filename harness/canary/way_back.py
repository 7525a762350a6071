"""Checks the target that a rollback would restore, because a rollback to a model that is gone
leaves all callers without answers.

`check_rollout` checks before a promotion, `WayBackWatch` every ten minutes of a bake, and
`check_rollback` before a rollback by hand. The checks call providers, so they run before a
transaction. They block no promotion, and automatic rollbacks and aborts do not wait for them.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from time import monotonic
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.alerts import AlertNotice
from harness.frame.alerts.records import Alerts
from harness.frame.errors import NotFound, ProofRefused, SwapproofError
from harness.frame.records.transaction import Transaction
from harness.gate.online.rollout import Rollout, RolloutState
from harness.proposals.context import ProposalsContext
from harness.providers.registry.target_life import CHECK_S, LifeState, TargetLife, check_life
from harness.routing.records.proposals import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.route_changes import standing_incumbents
from harness.routing.table import RouteRecord

CHECK_PAUSE_S: Final = 600.0
RECHECK_PAUSE_S: Final = 20.0
WATCH_S: Final = 5.0  # how often the watch runs; most runs only read stored facts
# How long the alert of a promotion stays after its bake, or after a promotion without one.
ALERT_KEPT: Final = timedelta(days=1)
# The check of the other former incumbents gets at least this time.
_LEAST_CHECK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class FormerIncumbent:
    """A target that a rollback can restore, with the newest version that it served."""

    target: str  # its id
    version: int


def check_rollout(ctx: ProposalsContext, rollout: Rollout) -> TargetLife:
    """Checks the incumbent that a rollback of this rollout would restore."""
    return _check(ctx, rollout.incumbent)


def _check(ctx: ProposalsContext, target: str) -> TargetLife:
    """Checks a target. If the check itself fails, the target's state is UNSURE, which blocks
    nothing.
    """
    try:
        return check_life(ctx, [target], timeout_s=CHECK_S)[target]
    except SwapproofError as error:
        now = ctx.clock.now()
        return TargetLife(target, target, LifeState.UNSURE, str(error), now)


def build_notice(rollout: Rollout, life: TargetLife) -> AlertNotice | None:
    """Builds the alert about a way back that is gone; None for any other way back."""
    if not life.is_gone:
        return None
    bake = " The bake compares nothing any more." if rollout.baking else ""
    return AlertNotice(
        f"route {rollout.route}",
        f"route {rollout.route} has no way back to {life.name}",
        f"A rollback would restore {life.name}, which cannot serve: {life.reason}.{bake} "
        "Callers would get errors.",
    )


def find_gone(tx: Transaction, rollout: Rollout) -> str:
    """Returns the text of the open alert about a rollout's way back; empty without one."""
    found = Alerts(tx).newest(f"{AlertKind.WAY_BACK_GONE.value}:{rollout.id}")
    return found.text if found is not None and found.open else ""


class WayBackWatch:
    """Checks the ways back of all bakes, and opens or ends their alerts.

    Each call checks the targets whose last check is CHECK_PAUSE_S ago, or RECHECK_PAUSE_S if
    the routers' reports contradict the alert. A check without a clear answer changes no alert.
    The alert of a promotion ends with its rollback, or after ALERT_KEPT.
    """

    def __init__(self) -> None:
        self._asked_at_s: dict[
            str, float
        ] = {}  # time of the last check by rollout, in monotonic seconds

    def __call__(self, ctx: ProposalsContext) -> None:
        open_ = {about for _, about in alerts.list_open(ctx, AlertKind.WAY_BACK_GONE)}
        watched = _list_watched(ctx, open_)
        self._asked_at_s = {
            r.id: at for r in watched if (at := self._asked_at_s.get(r.id)) is not None
        }
        for id_ in sorted(open_ - {rollout.id for rollout in watched}):
            alerts.update_alert(ctx, AlertKind.WAY_BACK_GONE, id_, None)
        due = self._list_due(ctx, watched, open_)
        lives = check_life(ctx, {rollout.incumbent for rollout in due}) if due else {}
        for rollout in due:
            life = lives[rollout.incumbent]
            if life.state is not LifeState.UNSURE:
                notice = build_notice(rollout, life)
                alerts.update_alert(ctx, AlertKind.WAY_BACK_GONE, rollout.id, notice)

    def _list_due(
        self,
        ctx: ProposalsContext,
        watched: Sequence[Rollout],
        open_: Collection[str],
    ) -> Sequence[Rollout]:
        """Lists the rollouts whose incumbent is due for a check, and notes the time."""
        if not watched:
            return ()
        # Without provider calls, the check reads only stored facts, such as the routers'
        # alerts.
        known = check_life(replace(ctx, probe=None), {r.incumbent for r in watched})
        now = ctx.clock.monotonic()
        due = []
        for rollout in watched:
            contradicts = known[rollout.incumbent].is_gone is not (rollout.id in open_)
            pause_s = RECHECK_PAUSE_S if contradicts else CHECK_PAUSE_S
            if now - self._asked_at_s.get(rollout.id, -math.inf) >= pause_s:
                self._asked_at_s[rollout.id] = now
                due.append(rollout)
        return due


def _list_watched(ctx: ProposalsContext, open_: Collection[str]) -> Sequence[Rollout]:
    """Lists the bakes, and the latest promotions that have an open alert."""
    with ctx.store.read() as tx:
        baking = list(Rollouts(tx).baking())
        over = [
            _find_rollout(tx, about)
            for about in sorted({*open_} - {known.id for known in baking})
        ]
    since = ctx.clock.now() - ALERT_KEPT
    recent = (
        rollout
        for rollout in over
        if rollout is not None
        and rollout.state is RolloutState.PROMOTED
        and rollout.updated_at > since
    )
    return [*baking, *recent]


def _find_rollout(tx: Transaction, id_: str) -> Rollout | None:
    try:
        return Rollouts(tx).get(id_)
    except NotFound:
        return None


def list_former(history: Sequence[RouteRecord], excluded: str) -> Sequence[FormerIncumbent]:
    """Lists the former incumbents that a rollback can restore, newest first.

    Args:
        history: newest first.
        excluded: a target id to leave out.

    Pure.
    """
    versions: dict[str, int] = {}
    for record in history:
        versions.setdefault(record.route.incumbent, record.route.version)
    former = dict.fromkeys(reversed(standing_incumbents(history)[:-1]))
    present = history[0].route.incumbent if history else ""
    return [
        FormerIncumbent(target, versions[target])
        for target in former
        if target not in (excluded, present)
    ]


def check_rollback(
    ctx: ProposalsContext,
    route: str,
    target: str,
    *,
    force: bool,
) -> TargetLife:
    """Checks the target that a person wants to restore, in at most CHECK_S seconds.

    Args:
        target: its id.
        force: accept a target that is gone.

    Returns the check's result. Raises ProofRefused for a target that is gone; the error names
    the next former incumbent that can serve.
    """
    ends = monotonic() + CHECK_S
    life = _check(ctx, target)
    if not life.is_gone or force:
        return life
    with ctx.store.read() as tx:
        former = list_former(Routing(tx).history(route), excluded=target)
    left_s = max(_LEAST_CHECK_S, ends - monotonic())
    lives = check_life(ctx, [other.target for other in former], timeout_s=left_s)
    raise ProofRefused(describe_refusal(route, life, former, lives))


def describe_refusal(
    route: str,
    life: TargetLife,
    former: Sequence[FormerIncumbent],
    lives: Mapping[str, TargetLife],
) -> str:
    """Describes why a rollback is refused, and the next former incumbent that can serve.

    Args:
        former: newest first.
        lives: by target id.

    Names an incumbent without a clear answer only if no other incumbent is alive. Pure.
    """
    why = (
        f"{life.name} cannot serve: {life.reason}. A rollback to it would leave the callers of "
        f"route {route!r} without answers."
    )
    force = "`--force` restores it anyway."
    for state in (LifeState.ALIVE, LifeState.UNSURE):
        found = next((one for one in former if lives[one.target].state is state), None)
        if found is not None:
            other = lives[found.target]
            answer_text = (
                "answers" if state is LifeState.ALIVE else f"may answer ({other.reason})"
            )
            command = (
                f"swapproof route rollback {route} --to-version {found.version} --reason …"
            )
            return (
                f"{why} The former incumbent {other.name} {answer_text}: `{command}`. {force}"
            )
    return (
        f"{why} No other former incumbent of the route can serve: propose another model with "
        f"`swapproof proposal create {route} MODEL`. {force}"
    )


def list_warnings(life: TargetLife) -> tuple[str, ...]:
    """Lists the warnings about a target that is restored without a clear answer."""
    if life.state is LifeState.ALIVE:
        return ()
    problem = "cannot serve" if life.is_gone else "may not answer"
    return (f"{life.name} {problem}: {life.reason}",)
