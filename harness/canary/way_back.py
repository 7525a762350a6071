"""Checks the target that a rollback would restore, because a rollback to a model that is gone
leaves all users without answers.

`check_rollout` checks before a promotion, `WayBackWatch` every ten minutes of a bake, and
`check_rollback` before a rollback by hand. The checks call providers, so they run before a
transaction. No automatic rollback and no abort waits for them, and they block no promotion.
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
from harness.frame.errors import NotFound, ProofRefused, SwapgateError
from harness.frame.records.transaction import Transaction
from harness.gate.online.rollout import Rollout, RolloutState
from harness.proposals.context import ProposalsContext
from harness.providers.registry.target_life import CHECK_S, LifeState, TargetLife, check_life
from harness.routing.records.proposals import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.route_changes import standing_incumbents
from harness.routing.table import RouteRecord

EVERY_S: Final = 600.0
SOON_S: Final = 20.0
WATCH_S: Final = 5.0  # the interval of the watch, which mostly reads known facts
# How long the alert of a promotion stays after its bake, or after a promotion without one.
KEPT: Final = timedelta(days=1)
# A check of other former incumbents gets at least this time after the first answer.
_LEAST_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class FormerIncumbent:
    """A target that a rollback can restore, with the newest version that it served."""

    target: str  # its id
    version: int


def check_rollout(ctx: ProposalsContext, rollout: Rollout) -> TargetLife:
    """Checks the incumbent that a rollback of this rollout would restore."""
    return _check(ctx, rollout.incumbent)


def _check(ctx: ProposalsContext, target: str) -> TargetLife:
    """Checks a target; an error of the check itself is a doubt, and blocks nothing."""
    try:
        return check_life(ctx, [target], timeout_s=CHECK_S)[target]
    except SwapgateError as error:
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

    A call asks a target if the last time is EVERY_S ago. If the routers' reports contradict
    the alert, it asks after SOON_S already. A check without a clear answer changes no alert.
    The alert of a promotion ends with its rollback, or after KEPT.
    """

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}  # by rollout: the last time, in monotonic seconds

    def __call__(self, ctx: ProposalsContext) -> None:
        open_ = {about for _, about in alerts.list_open(ctx, AlertKind.WAY_BACK_GONE)}
        watched = _list_watched(ctx, open_)
        self._asked = {r.id: at for r in watched if (at := self._asked.get(r.id)) is not None}
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
        """Lists the rollouts whose incumbent must be asked now, and notes the time."""
        if not watched:
            return ()
        # Without a probe, the check reads only known facts, such as the routers' alerts.
        known = check_life(replace(ctx, probe=None), {r.incumbent for r in watched})
        now = ctx.clock.monotonic()
        due = []
        for rollout in watched:
            contradicts = known[rollout.incumbent].is_gone is not (rollout.id in open_)
            pause_s = SOON_S if contradicts else EVERY_S
            if now - self._asked.get(rollout.id, -math.inf) >= pause_s:
                self._asked[rollout.id] = now
                due.append(rollout)
        return due


def _list_watched(ctx: ProposalsContext, open_: Collection[str]) -> Sequence[Rollout]:
    """Lists the bakes, and the latest promotions that have an open alert."""
    with ctx.store.read() as tx:
        baking = list(Rollouts(tx).baking())
        over = [_find(tx, about) for about in sorted({*open_} - {known.id for known in baking})]
    since = ctx.clock.now() - KEPT
    recent = (
        rollout
        for rollout in over
        if rollout is not None
        and rollout.state is RolloutState.PROMOTED
        and rollout.updated_at > since
    )
    return [*baking, *recent]


def _find(tx: Transaction, id_: str) -> Rollout | None:
    try:
        return Rollouts(tx).get(id_)
    except NotFound:
        return None


def list_former(history: Sequence[RouteRecord], apart: str) -> Sequence[FormerIncumbent]:
    """Lists the former incumbents whose promotion stands, newest first.

    history: newest first. apart: a target id to leave out. Pure.
    """
    versions: dict[str, int] = {}
    for record in history:
        versions.setdefault(record.route.incumbent, record.route.version)
    former = dict.fromkeys(reversed(standing_incumbents(history)[:-1]))
    present = history[0].route.incumbent if history else ""
    return [
        FormerIncumbent(target, versions[target])
        for target in former
        if target not in (apart, present)
    ]


def check_rollback(
    ctx: ProposalsContext,
    route: str,
    target: str,
    *,
    force: bool,
) -> TargetLife:
    """Checks the target that a person wants to restore, in at most CHECK_S seconds.

    target: its id. force: accept a target that is gone. Returns its life. Raises ProofRefused
    for a target that is gone; the error names the next former incumbent that can serve.
    """
    ends = monotonic() + CHECK_S
    life = _check(ctx, target)
    if not life.is_gone or force:
        return life
    with ctx.store.read() as tx:
        former = list_former(Routing(tx).history(route), apart=target)
    left_s = max(_LEAST_S, ends - monotonic())
    lives = check_life(ctx, [other.target for other in former], timeout_s=left_s)
    raise ProofRefused(describe_refusal(route, life, former, lives))


def describe_refusal(
    route: str,
    life: TargetLife,
    former: Sequence[FormerIncumbent],
    lives: Mapping[str, TargetLife],
) -> str:
    """Describes why a rollback is refused, and the next former incumbent that can serve.

    former: newest first. lives: by target id. An incumbent without a clear answer is named only
    if no other one is alive. Pure.
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
            sure = "answers" if state is LifeState.ALIVE else f"may answer ({other.reason})"
            command = f"swapgate route rollback {route} --to-version {found.version} --reason …"
            return f"{why} The former incumbent {other.name} {sure}: `{command}`. {force}"
    return (
        f"{why} No other former incumbent of the route can serve: propose another model with "
        f"`swapgate proposal create {route} MODEL`. {force}"
    )


def list_warnings(life: TargetLife) -> tuple[str, ...]:
    """Lists the warnings about a target that is restored without a clear answer."""
    if life.state is LifeState.ALIVE:
        return ()
    sure = "cannot serve" if life.is_gone else "may not answer"
    return (f"{life.name} {sure}: {life.reason}",)
