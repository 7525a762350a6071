"""`swapgate switch` forces all requests to one provider or target, on every route or one
(`throw`), ends that (`lift`), and lists the kill switches.
"""

from datetime import datetime, timedelta

import click

from harness.cli.frame import output
from harness.cli.frame.command import PAGE, REASON, SHOWN_REASON, arg, command, opt
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session
from harness.control.routing import kill_switch
from harness.domain.pagination import PageRequest
from harness.domain.routing.kill_switch import SwitchRecord, SwitchSource, parse_force


@click.group()
def switch() -> None:
    """The kill switch: force a provider or a target."""


@command(switch)
def throw(
    session: Session,
    force: str = arg("provider:NAME|target:ID"),
    *,
    route: str | None = opt("Only this route. [default: all routes]", metavar="ROUTE"),
    lasts: timedelta | None = opt(
        "Duration: 90s, 30m, 2h, 1d. [default: until it is lifted]", "--for"
    ),
    reason: str = SHOWN_REASON,
) -> None:
    """Send all requests to one provider, or to one target (by id or provider/model).

    Takes effect on every router within two seconds. A route that does not have the provider or
    target among its targets keeps its plan: a switch never adds a target without evidence.
    """
    wanted = kill_switch.SwitchRequest(parse_force(force), reason, route, lasts)
    made = session.decide(kill_switch.throw_switch, wanted, source=SwitchSource.CLI)
    scope = "all routes" if route is None else f"route {route}"
    until = f"until {timestamp(made.expires_at)}" if made.expires_at else "until it is lifted"
    said = f"{made.force} is forced for {scope} {until}: `swapgate switch lift {made.id}`"
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

    What stands in the configuration file, and in SWAPGATE_FORCE where this command runs, is
    said on stderr: routers read both when they start.
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
