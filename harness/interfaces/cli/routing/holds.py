"""What people set over routes for a time: freezes, break-glass and `swapgate switch`."""

from datetime import datetime, timedelta
from typing import Final

import click

from harness.frame.errors import InputError
from harness.frame.pagination import PageRequest
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import PAGE, REASON, Reads, arg, command, opt
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.operations import queries
from harness.proposals import break_glass as broken
from harness.providers.force import SwitchRecord, SwitchSource, parse_force
from harness.routes import freezes, kill_switch


def _read_moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InputError(f"{text!r} is no time with its zone: write 2026-12-24T16:00+01:00")
    return moment


_MOMENT: Final = Reads("time", _read_moment)


@command()
def freeze(
    session: Session,
    name: str | None,
    *,
    everywhere: bool = opt("All routes.", "--all"),
    starts_at: datetime | None = opt("When it begins. [default: now]", "--from", type=_MOMENT),
    ends_at: datetime | None = opt(
        "When it ends, with its time zone.", "--until", type=_MOMENT
    ),
    lasts: timedelta | None = opt("Duration: 2h, 3d.", "--for"),
    reason: str = REASON,
) -> None:
    """Freeze a route: no canary opens, advances or is promoted.

    Evals, approvals and shadows go on; rollback, abort and kill switch work.
    """
    if (name is None) is not everywhere:
        raise InputError("name one route, or give --all")
    if ends_at is None and lasts is not None:
        ends_at = (starts_at or session.installation.clock.now()) + lasts
    elif ends_at is None or lasts is not None:
        raise InputError("give one of --until and --for")
    wanted = freezes.FreezeRequest(name, ends_at, reason, starts_at)
    made = session.decide(freezes.add_freeze, wanted)
    scope = "all routes are" if name is None else f"route {name} is"
    output.answer(
        made,
        made.id,
        advice=f"{scope} frozen from {timestamp(made.starts_at)} until "
        f"{timestamp(made.ends_at)} UTC: `swapgate route unfreeze {made.id}`",
    )


@command()
def unfreeze(session: Session, freeze_id: str = arg("ID"), *, reason: str = REASON) -> None:
    """End a freeze early. The proposer of a swap that it holds back cannot do this."""
    record = session.decide(freezes.lift_freeze, freeze_id, reason=reason)
    output.answer(record, f"lifted {freeze_id}")


@command(name="freezes")
def list_freezes(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List the freezes that people set, newest first.

    Weekly freezes of the file go to stderr.
    """
    found = session.context.store.lists.freezes(page_request)
    now = session.installation.clock.now()
    for window in () if session.json else session.context.freeze_windows:
        scope = ", ".join(sorted(window.routes)) or "all routes"
        output.note(f"every week, {window}: {scope} ({window.reason})")
    output.listing(
        found,
        lambda record: {
            "ID": record.id,
            "ROUTE": record.route or "all",
            "STATE": record.describe_state(now),
            "FROM": timestamp(record.starts_at),
            "UNTIL": timestamp(record.ends_at),
            "BY": record.actor,
            "REASON": record.reason,
        },
        empty="nobody has set a freeze yet",
    )


@click.group("break-glass")
def break_glass() -> None:
    """Serve a route without proof: two people, a reason and an expiry."""


@command(break_glass)
def propose(
    session: Session,
    name: str,
    target: str,
    *,
    lasts: timedelta = opt("Duration: 2h, at most 7d. Then the former model returns.", "--for"),
    reason: str = REASON,
    through_freeze: bool = opt("Also while the route is frozen; else refused."),
) -> None:
    """Ask that TARGET serve without proof. Nothing changes before a second person confirms."""
    wanted = broken.BreakGlassRequest(name, target, reason, lasts, through_freeze)
    made = broken.propose_break_glass(
        session.context_with_providers, session.deciding_actor, wanted
    )
    last = timestamp(made.confirm_by)
    output.answer(
        made,
        made.id,
        advice=f"a second person, an admin, confirms it before {last} UTC: `swapgate route "
        f"break-glass confirm {made.id}`",
    )


@command(break_glass)
def confirm(session: Session, id_: str = arg("ID")) -> None:
    """Let the target serve, as the second person. The person who asked for it cannot."""
    made = session.decide(broken.confirm_break_glass, id_)
    until = timestamp(made.expires_at)
    text = f"route {made.route} is served without proof until {until} UTC ({made.id})"
    output.answer(made, text)


@command(break_glass)
def end(session: Session, id_: str = arg("ID"), *, reason: str = REASON) -> None:
    """End it before its time: the former model returns at once. One person is enough."""
    made = session.decide(broken.end_break_glass, id_, reason=reason)
    output.answer(made, f"{made.id} has ended")


@command(break_glass, "list")
def list_break_glasses(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List those that were asked for, newest first."""
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
        empty="nobody asked for a break-glass yet",
    )


@click.group()
def switch() -> None:
    """The kill switch: force a provider or a target, or avoid it."""


@command(switch)
def throw(
    session: Session,
    force: str = arg("[avoid:]provider:NAME|target:ID"),
    *,
    route: str | None = opt("Only this route. [default: all routes]", metavar="ROUTE"),
    lasts: timedelta | None = opt(
        "Duration: 90s, 30m, 2h, 1d. [default: until it is lifted]", "--for"
    ),
    reason: str = REASON,
) -> None:
    """Send all requests to one provider, or to one target (by id or provider/model).

    In force within two seconds. A route without the provider or target keeps its plan.
    `avoid:provider:NAME` and `avoid:target:ID` take it out instead.
    """
    wanted = kill_switch.SwitchRequest(parse_force(force), reason, route, lasts)
    made = session.decide(kill_switch.throw_switch, wanted, source=SwitchSource.CLI)
    scope = "all routes" if route is None else f"route {route}"
    until = (
        f"until {timestamp(made.expires_at)} UTC" if made.expires_at else "until it is lifted"
    )
    lift_it = f"`swapgate switch lift {made.id}`"
    said = f"{made.force.text} for {scope} {until}: {lift_it}"
    output.answer(made, made.id, advice=said)
    preview = kill_switch.preview_switch(session.context, made.force, made.route)
    kept = () if session.json else preview.unaffected
    if kept:
        names = ", ".join(kept)
        output.note(f"these routes may use nothing of it and keep their plans: {names}")


@command(switch)
def lift(session: Session, switch_id: str = arg("ID"), *, reason: str = REASON) -> None:
    """End a switch: routers go back to their plans within two seconds."""
    record = session.decide(kill_switch.lift_switch, switch_id, reason=reason)
    output.answer(record, f"lifted {switch_id}")


@command(switch, "list")
def list_switches(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List the switches of command line and API, the newest first.

    Switches of the file and of SWAPGATE_FORCE go to stderr.
    """
    switches = session.context.store.lists.switches(page_request)
    now = session.installation.clock.now()
    if not session.json:
        for standing in session.installation.standing_switches:
            output.note(f"{standing.reason}: {standing.force} for {_scope(standing.route)}")
    output.listing(
        switches,
        lambda record: {
            "ID": record.switch.id,
            "FORCES": record.switch.force,
            "ROUTE": _scope(record.switch.route),
            "STATE": _state(record, now),
            "UNTIL": timestamp(record.switch.expires_at),
            "BY": record.switch.actor,
            "SINCE": timestamp(record.switch.created_at),
            "REASON": record.switch.reason,
        },
        empty="no switch was thrown yet: every route follows its plan",
    )


def _scope(route: str | None) -> str:
    return "all" if route is None else route


def _state(record: SwitchRecord, now: datetime) -> str:
    if record.lifted_at is not None:
        return f"lifted by {record.lifted_by}"
    expires_at = record.switch.expires_at
    return "expired" if expires_at is not None and expires_at <= now else "in force"
