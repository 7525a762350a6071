"""Temporary interventions on routes: break-glass and `swapgate switch`."""

from datetime import datetime, timedelta
from typing import Final

import click

from harness.frame.errors import InputError
from harness.frame.pagination import PageRequest
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    PAGE,
    REASON,
    ROUTE,
    Reads,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.operations import queries
from harness.proposals import break_glass as broken
from harness.providers.force import SwitchSource, parse_force
from harness.routing.control import freezes


def _read_moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InputError(
            f"{text!r} is not a time with a time zone: write 2026-12-24T16:00+01:00"
        )
    return moment


_MOMENT: Final = Reads("time", _read_moment)


@click.group("break-glass")
def break_glass() -> None:
    """Serve a route without proof: needs two people, a reason and an expiry."""


@command(break_glass)
def propose(
    session: Session,
    name: str = ROUTE,
    target: str = arg("TARGET"),
    *,
    lasts: timedelta = opt(
        "Duration: 2h, at most 7d. Then the previous model returns.", "--for"
    ),
    reason: str = REASON,
    through_freeze: bool = opt("Propose even if the route is frozen."),
) -> None:
    """Propose that TARGET serve without proof. A second person must confirm it."""
    request = broken.BreakGlassRequest(name, target, reason, lasts, through_freeze)
    proposed = broken.propose_break_glass(
        session.context_with_providers, session.deciding_actor, request
    )
    last = timestamp(proposed.confirm_by)
    output.answer(
        proposed,
        proposed.id,
        advice=f"another person, an admin, must confirm it before {last} UTC: `swapgate route "
        f"break-glass confirm {proposed.id}`",
    )


@command(break_glass)
def confirm(session: Session, id_: str = arg("ID")) -> None:
    """Confirm a break-glass, as the second person; then the target serves."""
    confirmed = session.decide(broken.confirm_break_glass, id_)
    until = timestamp(confirmed.expires_at)
    text = f"route {confirmed.route} is served without proof until {until} UTC ({confirmed.id})"
    output.answer(confirmed, text)


@command(break_glass)
def end(
    session: Session,
    id_: str = arg("ID"),
    *,
    reason: str = REASON,
) -> None:
    """End a break-glass early: the previous model returns at once. One person is enough."""
    ended = session.decide(broken.end_break_glass, id_, reason=reason)
    output.answer(ended, f"{ended.id} has ended")


@command(break_glass, "list")
def list_break_glasses(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List all break-glasses, newest first."""
    found = session.context.store.lists.break_glasses(page_request)
    names = queries.load_target_names(session.context, {record.target for record in found})
    output.listing(
        found,
        lambda record: {
            "ID": record.id,
            "ROUTE": record.route,
            "STATE": record.ended_because or record.state,
            "TARGET": names.get(record.target, record.target),
            "UNTIL": timestamp(record.expires_at),
            "BY": " and ".join(filter(None, (record.proposer, record.confirmer))),
            "REASON": record.reason,
        },
        empty="no break-glass has been proposed yet",
    )


@click.group()
def switch() -> None:
    """Switches: force or avoid a provider or a target, or freeze routes."""


@command(switch)
def throw(
    session: Session,
    force: str = arg("[avoid:]provider:NAME|target:ID|freeze"),
    *,
    starts_at: datetime | None = opt(
        "When a freeze begins. [default: now]", "--from", type=_MOMENT
    ),
    ends_at: datetime | None = opt(
        "When it ends, with its time zone.", "--until", type=_MOMENT
    ),
    route: str | None = opt("Only this route. [default: all routes]", metavar="ROUTE"),
    lasts: timedelta | None = opt(
        "Duration: 90s, 30m, 2h, 1d. [default: until `switch lift`]", "--for"
    ),
    reason: str = REASON,
) -> None:
    """Force one provider or one target (by id or provider/model), for all routes or for one.

    Routers apply the switch within two seconds. A route without the provider or target
    serves as before. With `avoid:provider:NAME` or `avoid:target:ID`, routes avoid it.

    With `freeze` no canary opens, advances or is promoted. Evals, approvals and shadows
    continue; rollback, abort and other switches work.
    """
    if ends_at is not None:
        if lasts is not None:
            raise InputError("give either --until or --for")
        now = session.installation.clock.now()
        lasts = ends_at - max(starts_at or now, now)
    request = freezes.SwitchRequest(parse_force(force), reason, route, lasts, starts_at)
    thrown = session.decide(freezes.throw_switch, request, source=SwitchSource.CLI)
    scope = "all routes" if route is None else f"route {route}"
    until = (
        f"until {timestamp(thrown.expires_at)} UTC"
        if thrown.expires_at
        else "until it is lifted"
    )
    begins = f"from {timestamp(thrown.starts_at)} UTC " if thrown.starts_at else ""
    lift = f"swapgate switch lift {thrown.id} --reason …"
    advice = f"{thrown.force.text} for {scope} {begins}{until}. To lift it: `{lift}`"
    output.answer(thrown, thrown.id, advice=advice)
    if thrown.force.freezes:
        return
    preview = freezes.preview_switch(session.context, thrown.force, thrown.route)
    kept = () if session.json else preview.unaffected
    if kept:
        names = ", ".join(kept)
        why = "have no other target" if thrown.force.avoids else "cannot use it"
        output.note(f"these routes {why}, so they keep their plans: {names}")


@command(switch)
def lift(
    session: Session,
    switch_id: str = arg("ID"),
    *,
    reason: str = REASON,
) -> None:
    """Lift a switch: routers stop following it within two seconds."""
    began = session.installation.clock.now()
    record = session.decide(freezes.lift_switch, switch_id, reason=reason)
    text = f"lifted {switch_id}"
    if record.lifted_at is not None and record.lifted_at < began:
        at = timestamp(record.lifted_at)
        text = f"{switch_id} was already lifted by {record.lifted_by}, at {at} UTC"
    output.answer(record, text)


@command(switch, "list")
def list_switches(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List the switches that people threw, newest first.

    Prints switches and freezes of the file, and switches of SWAPGATE_FORCE, on stderr.
    """
    switches = session.context.store.lists.switches(page_request)
    now = session.installation.clock.now()
    if not session.json:
        for standing in session.installation.standing_switches:
            output.note(f"{standing.reason}: {standing.force} for {_scope(standing.route)}")
        for window in session.context.freeze_windows:
            scope = ", ".join(sorted(window.routes)) or "all routes"
            output.note(f"every week, {window}: {scope} ({window.reason})")
        if session.context.observe_only:
            reason, setting = freezes.OBSERVE_ONLY
            output.note(f"{setting}: freeze for all routes ({reason})")
    output.listing(
        switches,
        lambda record: {
            "ID": record.switch.id,
            "FORCES": record.switch.force,
            "ROUTE": _scope(record.switch.route),
            "STATE": record.describe_state(now),
            "UNTIL": timestamp(record.switch.expires_at),
            "BY": record.switch.actor,
            "SINCE": timestamp(record.switch.created_at),
            "REASON": record.switch.reason,
        },
        empty="no switch has been thrown yet: every route follows its plan",
    )


def _scope(route: str | None) -> str:
    return "all" if route is None else route
