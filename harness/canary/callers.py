"""Tells which arm of a canary a caller has, since when, and why.

It asks `harness.routing.table.place_caller`, as routers do, for each stored version of the
route. Whether the canary has counted the caller, the rollout's ledger tells by a hash. No
content of a request is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from harness.canary import decision
from harness.frame.errors import NotFound
from harness.frame.formatting import format_bps
from harness.frame.people.access import Actor, ApiKey, OptOut, Role
from harness.frame.people.audience import AudienceRule, CallerClaims, CallerSource
from harness.frame.people.records import ApiKeys
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.online.observation import fingerprint
from harness.gate.online.rollout import Rollout, name_first_callers
from harness.proposals.context import ProposalsContext
from harness.providers.records import Targets
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.table import (
    Arm,
    CallerPlace,
    Canary,
    Route,
    RouteRecord,
    hash_bucket,
    place_caller,
)

# How a request may name its caller. The name's way is a part of the sticky key, so one user may
# have a different arm by each way.
_USUAL_WAY: Final = "user"
_HEADER_WAY: Final = "header"
_CONVERSATION: Final = "conversation"
_WAYS: Final = (_USUAL_WAY, "safety_identifier", _HEADER_WAY, _CONVERSATION)


@dataclass(frozen=True, slots=True)
class CallerArm:
    """A caller's arm in a route's canary.

    sent_as: how a request names the caller: `user`, `header` and others, or `key` for a client
    key. arm, model: None if the share draws each caller of the client key. since: when the
    caller got this model in this rollout; until: when the rollout ended, None if it is live.
    is_counted: whether the rollout has counted the caller; None if it is not recorded.
    depends_on: further rules, which depend on what the request says.
    """

    route: str
    rollout: str
    sent_as: str
    arm: Arm | None
    model: str | None
    since: datetime
    until: datetime | None
    because: str
    is_counted: bool | None
    depends_on: str = ""


@dataclass(frozen=True, slots=True)
class CanaryCaller:
    """A caller that a canary's candidate served. caller: a keyed hash of its sticky key.

    assigned_by: `share`, or `first` for a rule of the audience. days: on which it counted.
    """

    caller: str
    assigned_by: str
    days: int
    newest_at: datetime


# The most callers of one list.
MOST_CALLERS: Final = 10_000


def list_callers(ctx: ProposalsContext, actor: Actor, route: str) -> Sequence[CanaryCaller]:
    """Lists the callers that the candidate of the route's newest canary served, the newest
    first, at most MOST_CALLERS. The audit log records the reading.

    Leaves out callers at shares above 50 % and in the bake, and requests that the canary did
    not count. Empty for a route without a canary. Raises NotFound for an unknown route.
    """
    actor.require(Role.APPROVER)
    with ctx.store.write() as tx:
        routes.require_route(tx, route)
        rollout = next(iter(Rollouts(tx).list(route=route, limit=1)), None)
        if rollout is None:
            return []
        first = name_first_callers(rollout.id)
        rows = Observations(tx).canary_callers({rollout.id, first}, MOST_CALLERS)
        details = {"rollout": rollout.id, "callers": len(rows)}
        AuditLog(tx).append(actor, "canary.callers", f"route {route}", details)
    return [
        CanaryCaller(
            row.caller,
            "first" if row.rollout == first else "share",
            row.days,
            row.newest_at,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class _Caller:
    """A caller as a request names it. sticky: its key for the draw; empty for a client key."""

    sent_as: str
    claims: CallerClaims
    sticky: str
    is_opted_out: bool = False


def find_arm(
    ctx: ProposalsContext, user: str, *, route: str | None = None
) -> Sequence[CallerArm]:
    """Tells which arm a caller has in live canaries and bakes; with `route`, in that route's
    newest canary, live or not.

    Args:
        user: a user's id as the client sends it, or a client key's name or id.

    Raises NotFound for an unknown route, and for a route without a canary.
    """
    with ctx.store.read() as tx:
        rollouts = [*Rollouts(tx).live(), *Rollouts(tx).baking()]
        if route is not None:
            routes.require_route(tx, route)
            rollouts = list(Rollouts(tx).list(route=route, limit=1))
            if not rollouts:
                raise NotFound(f"route {route!r} has had no canary yet: propose a swap first")
        keys = _find_keys(tx, user)
        return [arm for rollout in rollouts for arm in _find_arms(tx, rollout, user, keys)]


def _find_keys(tx: Transaction, name: str) -> Sequence[ApiKey]:
    """Finds the client keys with this name or id that are not revoked."""
    records = ApiKeys(tx)
    found = [id_ for id_, own in records.data_key_names().items() if name in (own, id_)]
    return [key for id_ in found if (key := records.find(id_)) is not None]


def _find_arms(
    tx: Transaction, rollout: Rollout, user: str, keys: Sequence[ApiKey]
) -> Iterator[CallerArm]:
    history = [
        record
        for record in reversed(Routing(tx).history(rollout.route))
        if (trial := record.route.experiment) and trial.rollout == rollout.id
    ]
    if not history:
        return
    for key in keys:
        opted_out = OptOut.CANARY in key.opt_outs
        yield _describe(
            tx, rollout, history, _Caller("key", CallerClaims(key.name), "", opted_out)
        )
    callers = [
        # A conversation is no user, so no rule about users holds for it.
        _Caller(way, CallerClaims("", () if way == _CONVERSATION else (user,)), sticky)
        for way, sticky in _list_names(user)
    ]
    arms = [_describe(tx, rollout, history, caller) for caller in callers]
    counted = [arm for arm in arms if arm.is_counted]
    # A user may have the name of a client key.
    yield from counted or ([] if keys else [_compare_ways(arms)])


def _compare_ways(arms: Sequence[CallerArm]) -> CallerArm:
    """Returns the answer for the usual way, with the user's other ways that give another model.
    Until the canary has counted the caller, its way is unknown.
    """
    [usual] = [arm for arm in arms if arm.sent_as == _USUAL_WAY]
    other_arms = [
        arm for arm in arms if arm.model != usual.model and arm.sent_as != _CONVERSATION
    ]
    if not other_arms:
        return usual
    others = dict.fromkeys(arm.sent_as for arm in other_arms)
    other = other_arms[0].model  # a canary has two models
    ways = " or ".join(others)
    because = f"{usual.because}; a request that names it by {ways} gets {other}"
    return replace(usual, because=because)


def _list_names(user: str) -> Iterator[tuple[str, str]]:
    """Yields each way with the sticky key of a request that names the user so.

    A router reads headers as Latin-1, and most clients send UTF-8.
    """
    for way in _WAYS:
        yield way, f"{way}:{user}"
        if way == _HEADER_WAY and not user.isascii():
            yield way, f"{way}:{user.encode('utf-8', 'surrogatepass').decode('latin-1')}"


def _describe(
    tx: Transaction, rollout: Rollout, history: Sequence[RouteRecord], caller: _Caller
) -> CallerArm:
    """Describes a caller's arm by the rollout's versions of the route, oldest first."""
    places = [(record, _place(record.route, caller)) for record in history]
    newest, place = places[-1]
    since = newest.at
    for record, earlier in reversed(places):
        if _target_of(record.route, earlier) != _target_of(newest.route, place):
            break
        since = record.at
    is_live = rollout.live or rollout.baking
    target = _target_of(newest.route, place)
    model = Targets(tx).all()[target].name if target is not None else None
    return CallerArm(
        route=rollout.route,
        rollout=rollout.id,
        sent_as=caller.sent_as,
        arm=place.arm if place is not None else None,
        model=model,
        since=since,
        until=None if is_live else rollout.updated_at,
        because=_explain(tx, newest.route, caller, place),
        is_counted=_is_counted(tx, rollout, newest.route, caller, place) if is_live else None,
        depends_on=_list_dependencies(newest.route, caller, place),
    )


def _place(route: Route, caller: _Caller) -> CallerPlace | None:
    """Places the caller; None if the share draws each caller of a client key."""
    if caller.is_opted_out:
        return CallerPlace(Arm.INCUMBENT)
    place = place_caller(route, caller.claims, caller.sticky)
    return place if caller.sticky or place.rule is not None else None


def _target_of(route: Route, place: CallerPlace | None) -> str | None:
    if place is None or route.experiment is None:
        return None
    is_other_arm = place.arm in (Arm.CANARY, Arm.HOLDBACK)
    return route.experiment.target if is_other_arm else route.incumbent


def _explain(tx: Transaction, route: Route, caller: _Caller, place: CallerPlace | None) -> str:
    trial = route.experiment
    if caller.is_opted_out:
        return "the client key takes part in no canary"
    if trial is None or place is None:
        return "no rule names the client key: the share draws each of its callers"
    if place.callers is not None:
        listed = "puts it first" if place.rule is AudienceRule.FIRST else "never puts it in"
        word = "" if place.callers.is_trusted else ", which is the client's word"
        return f"the audience {listed}: {place.callers.text}{word}"
    reasons = [_explain_draw(trial, caller.sticky)]
    handover = trial.handover
    if handover is not None and handover.until_s > tx.now().timestamp():
        reasons.append("a conversation that began before this step keeps its model for a while")
    if shared := decision.describe_shared_key(tx, route.name):
        reasons.append(
            f"if this name is an application's, each conversation is drawn: {shared}"
        )
    return "; ".join(reasons)


def _explain_draw(trial: Canary, sticky: str) -> str:
    bucket = hash_bucket(sticky, salt=trial.salt)
    return (
        f"the share draws it: bucket {bucket:,} of 10,000, and the candidate has "
        f"{format_bps(trial.candidate_bps)}, the buckets below {trial.candidate_bps:,}"
    )


def _is_counted(
    tx: Transaction,
    rollout: Rollout,
    route: Route,
    caller: _Caller,
    place: CallerPlace | None,
) -> bool | None:
    trial = route.experiment
    is_recorded = place is not None and place.rule is not AudienceRule.NEVER
    if (
        trial is None
        or not caller.sticky
        or not is_recorded
        or not trial.unit_rule.keeps_ledger
    ):
        return None
    is_first = place is not None and place.rule is AudienceRule.FIRST
    ledger = name_first_callers(rollout.id) if is_first else rollout.id
    print_ = fingerprint(trial.unit_rule.ledger_salt, caller.sticky)
    return Observations(tx).last_period(ledger, print_) is not None


def _list_dependencies(route: Route, caller: _Caller, place: CallerPlace | None) -> str:
    """Lists the sets that can change the answer, and depend on the request."""
    audience = route.experiment.audience if route.experiment is not None else None
    if audience is None or (place is not None and place.rule is AudienceRule.NEVER):
        return ""
    known = CallerSource.USER if caller.sticky else CallerSource.KEY
    is_first = place is not None and place.rule is AudienceRule.FIRST
    sets = audience.never if is_first else audience.sets
    return ", ".join(callers.text for callers in sets if callers.by is not known)
