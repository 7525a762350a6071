"""Break-glass: a target serves a route without proof, and two people take responsibility for
it.

One person requests it, and an admin confirms it within an hour. The module requests, confirms,
ends and supervises break-glasses, and describes them for people. It writes routes only by
`ServeByWaiver` and `RestoreIncumbent`, and never decides whether a target is good enough.
`harness.routing.evidence` has the record and its limits; docs/how-to/break-glass.md explains
it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from harness.evals.proof_validity import route_time
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import Alert, AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import (
    Conflict,
    InputError,
    NotAllowed,
    ProofRefused,
    RouteBusy,
    SignatureInvalid,
    StaleWrite,
)
from harness.frame.formatting import format_date_time
from harness.frame.people import four_eyes
from harness.frame.people.access import (
    LOCAL_PRINCIPAL,
    SYSTEM,
    Actor,
    PrincipalKind,
    Role,
)
from harness.frame.people.records import ApiKeys, PersonLinks, Principals
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import require_reason
from harness.frame.signing.audit_log import AuditLog
from harness.proposals.context import ProposalsContext
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models
from harness.providers.registry.end_facts import load_facts
from harness.providers.registry.target_life import check_life
from harness.routing.control import data_class_checks, freezes, routes, vector_checks
from harness.routing.evidence import (
    CONFIRM_WITHIN,
    MAX_DURATION,
    BreakGlass,
    Waiver,
)
from harness.routing.records.evidence import Waivers
from harness.routing.records.interventions import BreakGlasses
from harness.routing.records.routes import Routing
from harness.routing.route_changes import RestoreIncumbent, ServeByWaiver
from harness.routing.table import Route

# How often Swapproof checks whether a former incumbent can return at the end of a break-glass.
RECHECK_EVERY: Final = timedelta(minutes=10)
# In the details of an alert: the former model could not serve at the last check.
_FORMER_GONE: Final = "former_gone"


def propose_break_glass(
    ctx: ProposalsContext,
    actor: Actor,
    route: str,
    target: str,
    *,
    lasts: timedelta,
    reason: str,
    through_freeze: bool = False,
) -> BreakGlass:
    """Requests that a target serve without proof. A second person must confirm it within an
    hour.

    Needs an approver who is a person, because a service cannot take responsibility.

    Args:
        target: an id or `provider/model`.
        lasts: the duration from the request, not from the confirmation.
        through_freeze: whether the route may change during a freeze. It does not pass
            `control.observe_only`.

    Raises InputError without a reason, for a duration of more than 7 days, and for the target
    that serves already.
    Raises NotFound for an unknown route or target.
    Raises NotAllowed for a service, and if the target may not see the route's data class.
    Raises RouteBusy if the route has a canary, a bake or another break-glass.
    Raises Conflict during a freeze that the request does not pass.
    """
    actor.require(Role.APPROVER)
    require_reason(reason, "a break-glass")
    if not timedelta(0) < lasts <= MAX_DURATION:
        raise InputError(
            f"a break-glass must last more than 0 and up to {MAX_DURATION.days} days"
        )
    with ctx.store.write() as tx:
        current = routes.require_route(tx, route)
        _require_person(tx, actor)
        proposed = named_models.register_model(ctx, tx, actor, target)
        if proposed.id == current.incumbent:
            raise InputError(f"{proposed.name} serves route {route!r} already")
        _require_free(tx, current)
        data_class_checks.check_targets(ctx, current.settings, [proposed], route=route)
        (primary,) = routes.known_targets(tx, [current.incumbent])
        vector_checks.check_vectors(ctx, tx, route, current.settings, primary, [proposed])
        _require_unfrozen(ctx, tx, route, through_freeze=through_freeze)
        now = route_time(tx, route)
        record = BreakGlass(
            id=ctx.chance.token("bg_"),
            route=route,
            incumbent=current.incumbent,
            target=proposed.id,
            reason=reason,
            through_freeze=through_freeze,
            proposer=actor.name,
            proposer_principal=actor.principal,
            proposer_key=actor.key,
            created_at=now,
            confirm_by=now + min(CONFIRM_WITHIN, lasts),
            expires_at=now + lasts,
        )
        BreakGlasses(tx).add(record)
        details = {"expires_at": record.expires_at.isoformat()}
        _audit(tx, actor, "break_glass.propose", record, details)
    return record


def confirm_break_glass(
    ctx: ProposalsContext,
    actor: Actor,
    id_: str,
) -> BreakGlass:
    """Lets the target serve after a second person, an admin, confirms.

    Raises NotFound and RouteBusy. Raises NotAllowed for the proposer, under any name, and for a
    service. Raises Conflict if it was confirmed or has ended, and StaleWrite if another target
    serves now.
    """
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        record = BreakGlasses(tx).get(id_)
        _require_person(tx, actor)
        four_eyes.check_four_eyes(tx, actor, record, "confirm")
        route = routes.require_route(tx, record.route)
        now = route_time(tx, record.route)
        if record.ended_at is not None or record.confirmed:
            raise Conflict(f"{record.id} is not open any more: {_describe_state(record)}")
        if record.confirm_by <= now:
            raise Conflict(f"{record.id} waited too long for a second person: request it again")
        if route.incumbent != record.incumbent:
            raise StaleWrite(f"another target serves {route.name!r} by now: request it again")
        _require_free(tx, route, ignored_id=record.id)
        target = Targets(tx).all()[record.target]
        data_class_checks.check_targets(ctx, route.settings, [target], route=route.name)
        _require_unfrozen(ctx, tx, route.name, through_freeze=record.through_freeze)
        waiver = Waiver(
            id=ctx.chance.token("w_"),
            route=record.route,
            target=record.target,
            reason=record.reason,
            author=f"{record.proposer} and {actor.name}",
            expires_at=record.expires_at,
        )
        Waivers(tx).add(waiver)
        confirmed = replace(
            record,
            confirmer=actor.name,
            confirmer_principal=actor.principal,
            confirmer_key=actor.key,
            confirmed_at=now,
            waiver=waiver.id,
        )
        BreakGlasses(tx).save(confirmed)
        revision = Routing(tx).commit(
            ServeByWaiver(record.route, waiver, record.id),
            expected_version=route.version,
            actor=actor.name,
            reason=f"break-glass {record.id}: {record.reason}",
            now=now,
        )
        details = {
            "revision": revision,
            "proposer": record.proposer,
            "waiver": waiver.id,
        }
        remarks = _list_remarks(tx, confirmed)
        _audit(
            tx,
            actor,
            "break_glass.confirm",
            confirmed,
            {**details, "remarks": remarks},
        )
        until = format_date_time(confirmed.expires_at)
        title = f"route {confirmed.route} is served without proof until {until}"
        summary = f"{target.name}: {confirmed.reason} ({_describe_state(confirmed)})."
        remark_sentences = (f"{remark[:1].upper()}{remark[1:]}." for remark in remarks)
        _raise_alert(tx, confirmed, title, " ".join((summary, *remark_sentences)))
    return confirmed


def end_break_glass(
    ctx: ProposalsContext,
    actor: Actor,
    id_: str,
    *,
    reason: str,
) -> BreakGlass:
    """Ends a break-glass early, which needs only one person. First checks the former
    incumbent's provider, in at most 5 seconds. Raises NotFound, InputError without a reason,
    Conflict if it is over, ProofRefused if the former incumbent cannot serve.
    """
    actor.require(Role.APPROVER)
    because = require_reason(reason, "to end a break-glass")
    with ctx.store.read() as tx:
        record = BreakGlasses(tx).get(id_)
    # The check waits for a provider, so it must not run in the transaction.
    life = check_life(ctx, [record.incumbent])[record.incumbent] if record.confirmed else None
    with ctx.store.write() as tx:
        record = BreakGlasses(tx).get(id_)
        if record.ended_at is not None:
            raise Conflict(f"{record.id} is over: {record.ended_because}")
        if record.confirmed and (hindrance := _find_hindrance(ctx, tx, record)):
            raise ProofRefused(f"the former incumbent cannot return: {hindrance}")
        if life is not None and life.is_gone and _serves(tx, record):
            raise ProofRefused(
                f"the former incumbent {life.name} cannot serve: {life.reason}. Restore "
                f"another former model with `swapproof route rollback {record.route} "
                "--to-version N --reason …`, which ends the break-glass; `--force` restores "
                "even a model that cannot serve"
            )
        return _end(tx, actor, record, f"ended by {actor.name}: {because}")


def list_open_break_glasses(ctx: ProposalsContext) -> Sequence[BreakGlass]:
    """Lists break-glasses in force or waiting for a second person, oldest first."""
    with ctx.store.read() as tx:
        return [*BreakGlasses(tx).open()]


def count_unconfirmed(ctx: ProposalsContext) -> int:
    """Counts the break-glasses that wait for a second person.

    Returns 0 if a stored row has an invalid signature: a forged row must not hide the rest of
    the status page, and `list_open_break_glasses` still raises SignatureInvalid.
    """
    try:
        return sum(not record.confirmed for record in list_open_break_glasses(ctx))
    except SignatureInvalid:
        return 0


def list_notices(ctx: ProposalsContext) -> Sequence[tuple[str, str]]:
    """Lists a notice for each open break-glass, as pairs of heading and text for people.

    A notice says whether the break-glass should end but cannot, because the former incumbent
    cannot return.
    """
    with ctx.store.read() as tx:
        names = {id_: known.name for id_, known in Targets(tx).all().items()}
        return [
            _write_notice(record, names.get(record.target, record.target), standstill)
            for record in BreakGlasses(tx).open()
            for standstill in [_find_standstill(ctx, tx, record)]
        ]


def run_once(ctx: ProposalsContext) -> list[str]:
    """Ends each break-glass that has expired or has lost its conditions.

    The reconcile loop calls it on each turn, before it drives proposals: a break-glass changes
    the incumbent that a proposal compares with. Returns a log line for each ended break-glass.
    """
    return [
        line
        for record in list_open_break_glasses(ctx)
        if (line := _end_if_over(ctx, record.id))
    ]


def _end_if_over(ctx: ProposalsContext, id_: str) -> str:
    """Ends one break-glass if it must end, in a transaction of its own.

    If the former incumbent cannot return, the break-glass stays in force, so that the route
    keeps a model, and an alert opens. Returns a log line; empty if the break-glass did not end.
    """
    with ctx.store.read() as tx:
        record = BreakGlasses(tx).get(id_)
        must_return = record.confirmed and _serves(tx, record) and _find_end(tx, record)
        is_waiting = must_return and _is_known_gone(ctx, tx, record)
    if is_waiting:
        return ""
    # The check waits for a provider, so it must not run in the transaction.
    life = check_life(ctx, [record.incumbent])[record.incumbent] if must_return else None
    with ctx.store.write() as tx:
        record = BreakGlasses(tx).get(id_)
        if record.ended_at is not None:
            return ""  # another process ended it
        end_reason = _find_end(tx, record)
        if not end_reason:
            return ""
        hindrance = _find_hindrance(ctx, tx, record) if record.confirmed else ""
        if hindrance:
            title = f"route {record.route} is served without proof, and no model can take over"
            text = f"{record.id}: {_find_standstill(ctx, tx, record)}"
            _raise_alert(tx, record, title, text)
            return ""
        if life is not None and life.is_gone:
            title = (
                f"route {record.route} is served without proof, and its former model cannot "
                "serve"
            )
            text = f"{record.id}: {end_reason}. {life.name} cannot serve: {life.reason}."
            _raise_alert(tx, record, title, text, former_gone=True)
            return ""
        _end(tx, SYSTEM, record, end_reason)
    return f"{record.id}: {end_reason}"


def _is_known_gone(
    ctx: ProposalsContext,
    tx: Transaction,
    record: BreakGlass,
) -> bool:
    """Tells whether a check within RECHECK_EVERY found that the former model is gone."""
    alert = Alerts(tx).newest(f"{AlertKind.BREAK_GLASS.value}:{record.id}")
    if alert is None or not alert.open or not alert.details.get(_FORMER_GONE):
        return False
    return ctx.clock.now() - alert.last_seen < RECHECK_EVERY


def _find_end(tx: Transaction, record: BreakGlass) -> str:
    """Returns the reason why a break-glass must end now; empty while it may continue.

    It ends when it expires, when another version of the route takes its place, and when no
    second person confirms it in time. It also ends if an admin declares the two people to be
    one person, or revokes one of their keys: then two people no longer take responsibility.
    """
    route = Routing(tx).route(record.route)
    now = route_time(tx, record.route)
    if route is None or route.break_glass != (record.id if record.confirmed else None):
        return "another version of the route took its place"
    if not record.confirmed:
        if route.incumbent != record.incumbent:
            return "somebody changed the route's incumbent"
        return "no second person confirmed it in time" if record.confirm_by <= now else ""
    people = PersonLinks(tx).people()
    first_person = people.person(record.proposer_principal)
    if first_person == people.person(record.confirmer_principal or ""):
        return "an admin has since declared its two people to be one person"
    for key in (record.proposer_key, record.confirmer_key):
        stored = ApiKeys(tx).find(key) if key is not None else None
        if stored is not None and stored.revoked_at is not None:
            return f"the key {key} of one of its two people has since been revoked"
    return "its time is over" if record.expires_at <= now else ""


def _find_standstill(
    ctx: ProposalsContext,
    tx: Transaction,
    record: BreakGlass,
) -> str:
    """Returns a sentence if a break-glass should end and cannot; else empty."""
    end_reason = _find_end(tx, record) if record.confirmed else ""
    hindrance = _find_hindrance(ctx, tx, record) if end_reason else ""
    if not hindrance:
        return ""
    return f"{end_reason}, and the former incumbent cannot return: {hindrance}"


def _serves(tx: Transaction, record: BreakGlass) -> bool:
    route = Routing(tx).route(record.route)
    return route is not None and route.break_glass == record.id


def _find_hindrance(
    ctx: ProposalsContext,
    tx: Transaction,
    record: BreakGlass,
) -> str:
    """Returns the reason why the former incumbent cannot serve again; empty if it can.

    The reasons are a removed provider, a model that has ended, and a refused data class.
    """
    route = Routing(tx).route(record.route)
    if route is None or route.break_glass != record.id:
        return ""
    former = Targets(tx).all()[record.incumbent]
    provider = Providers(tx).all().get(former.provider)
    if provider is None:
        return f"the provider {former.provider!r} of {former.name} was removed"
    now = ctx.clock.now()
    end = load_facts(ctx, tx, [former]).report(former, now).end
    if end is not None and end.day <= now.date():
        return f"{former.name} ended on {end.day.isoformat()}, according to {end.source}"
    return data_class_checks.find_refusal(ctx, route.settings, former, route=route.name)


def _end(
    tx: Transaction,
    actor: Actor,
    record: BreakGlass,
    end_reason: str,
) -> BreakGlass:
    """Ends a break-glass, and restores the former incumbent if the break-glass still serves the
    route.

    If the route has another version by now, only the record changes.
    """
    route = Routing(tx).route(record.route)
    now = route_time(tx, record.route)
    details: dict[str, object] = {"because": end_reason}
    ended = replace(record, ended_at=now, ended_because=end_reason)
    BreakGlasses(tx).save(ended)
    if route is not None and record.confirmed and route.break_glass == record.id:
        details["revision"] = Routing(tx).commit(
            RestoreIncumbent(record.route, record.incumbent),
            expected_version=route.version,
            actor=actor.name,
            reason=f"break-glass {record.id}: {end_reason}",
            now=now,
        )
    _audit(tx, actor, "break_glass.end", ended, details)
    alerts.resolve_alert(tx, AlertKind.BREAK_GLASS, record.id)
    return ended


def _require_person(tx: Transaction, actor: Actor) -> None:
    """Raises NotAllowed unless the actor is a person or the local operator."""
    principal = Principals(tx).among([actor.principal]).get(actor.principal)
    is_local = actor.principal == LOCAL_PRINCIPAL.id
    if not is_local and (principal is None or principal.kind is not PrincipalKind.PERSON):
        raise NotAllowed(
            f"{actor.name} is not a person: two people take responsibility for a break-glass, "
            "and a service cannot"
        )


def _require_free(
    tx: Transaction,
    route: Route,
    *,
    ignored_id: str = "",
) -> None:
    """Raises RouteBusy if the route has another open break-glass, a canary or a bake.

    Args:
        ignored_id: id of a break-glass that does not count, because it is being confirmed.
    """
    for other in BreakGlasses(tx).open():
        if other.route == route.name and other.id != ignored_id:
            raise RouteBusy(
                f"route {route.name!r} has the break-glass {other.id} ({other.state}): "
                f"`swapproof route break-glass end {other.id} --reason …` ends it"
            )
    if route.experiment is not None:
        raise RouteBusy(
            f"route {route.name!r} has a canary or a bake: `swapproof canary abort "
            f"{route.name} --reason …` ends it; a baking promotion is then rolled back"
        )


def _require_unfrozen(
    ctx: ProposalsContext,
    tx: Transaction,
    route: str,
    *,
    through_freeze: bool,
) -> None:
    """Raises Conflict during a freeze, unless the request passes freezes.

    `control.observe_only` always refuses, because such an installation changes no route.
    """
    refusals = freezes.list_refusals_of_step(ctx, tx, route)
    if refusals and (ctx.observe_only or not through_freeze):
        raise Conflict(
            f"{refusals[0]}: no target serves it without proof. A request with "
            "`--through-freeze` passes each freeze except `control.observe_only`"
        )


def _describe_state(record: BreakGlass) -> str:
    if record.ended_at is not None:
        return record.ended_because
    if record.confirmed:
        return f"requested by {record.proposer}, confirmed by {record.confirmer}"
    return f"requested by {record.proposer}, and not yet confirmed"


def _write_notice(
    record: BreakGlass,
    target: str,
    standstill: str,
) -> tuple[str, str]:
    """Writes heading and text of a break-glass.

    Args:
        standstill: result of `_find_standstill`.
    """
    until = format_date_time(record.expires_at)
    description = f"{record.reason} ({_describe_state(record)}; {record.id})."
    if not record.confirmed:
        text = (
            f"{target} is to serve without proof until {until}: {description} A second person, "
            f"an admin, must confirm it before {record.confirm_by:%H:%M} UTC."
        )
        return f"Break-glass requested for route {record.route}.", text
    heading = f"Break-glass: route {record.route} is served without proof"
    if standstill:
        text = f"{target}: {description} It should end: {standstill}."
        return f"{heading}, and no model can take over.", text
    text = f"{target}: {description} Then its former model returns; until then no canary opens."
    return f"{heading} until {until}.", text


def _list_remarks(tx: Transaction, record: BreakGlass) -> list[str]:
    """Lists warnings about the two keys for everybody, such as a very new key."""
    at = record.confirmed_at or record.created_at
    new_for = four_eyes.NEW_FOR
    stored = (
        (key, ApiKeys(tx).find(key))
        for key in (record.proposer_key, record.confirmer_key)
        if key
    )
    return [
        f"the key {name} is newer than {new_for.days} days"
        for name, key in stored
        if key is not None and at - key.created_at < new_for
    ]


def _raise_alert(
    tx: Transaction,
    record: BreakGlass,
    title: str,
    text: str,
    *,
    former_gone: bool = False,
) -> None:
    kind = AlertKind.BREAK_GLASS
    subject = f"route {record.route}"
    key = f"{kind.value}:{record.id}"
    details = {_FORMER_GONE: True} if former_gone else {}
    alert = Alert(kind, subject, key, title, text, tx.now(), alerts.SOURCE, details=details)
    Alerts(tx).fold([alert])


def _audit(
    tx: Transaction,
    actor: Actor,
    action: str,
    record: BreakGlass,
    details: Mapping[str, object],
) -> None:
    common = {
        "break_glass": record.id,
        "target": record.target,
        "reason": record.reason,
    }
    AuditLog(tx).append(actor, action, f"route {record.route}", {**common, **details})
