"""Temporary interventions on routes: break-glass and `swapproof switch`."""

from datetime import datetime, timedelta
from typing import Final

from harness.frame.errors import InputError
from harness.frame.pagination import PageRequest
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    PAGE,
    REASON,
    Reads,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.operation_command import add_commands, operation_group
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.operations.operations import BREAK_GLASS_LISTS
from harness.proposals.operations import BREAK_GLASSES
from harness.providers.force import SwitchSource, parse_force
from harness.routing.control import freezes
from harness.routing.control.operations import SWITCHES


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


_MOMENT_TYPE: Final = Reads("time", _read_moment)


break_glass = operation_group(BREAK_GLASSES)
add_commands(break_glass, BREAK_GLASS_LISTS)


switch = operation_group(SWITCHES)


@command(
    switch, example='swapproof switch throw avoid:provider:openai --for 2h --reason "an outage"'
)
def throw(
    session: Session,
    force: str = arg("[avoid:]provider:NAME|target:ID|freeze"),
    *,
    starts_at: datetime | None = opt(
        "When a freeze begins. [default: now]", "--from", type=_MOMENT_TYPE
    ),
    ends_at: datetime | None = opt(
        "When it ends, with its time zone.", "--until", type=_MOMENT_TYPE
    ),
    route: str | None = opt("Only this route. [default: all routes]", metavar="ROUTE"),
    duration: timedelta | None = opt(
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
        if duration is not None:
            raise InputError("give either --until or --for")
        now = session.installation.clock.now()
        duration = ends_at - max(starts_at or now, now)
    request = freezes.SwitchRequest(parse_force(force), reason, route, duration, starts_at)
    new_switch = session.decide(freezes.set_switch, request, source=SwitchSource.CLI)
    scope = "all routes" if route is None else f"route {route}"
    until = (
        f"until {timestamp(new_switch.expires_at)} UTC"
        if new_switch.expires_at
        else "until it is lifted"
    )
    begins = f"from {timestamp(new_switch.starts_at)} UTC " if new_switch.starts_at else ""
    lift = f"swapproof switch lift {new_switch.id} --reason …"
    advice = f"{new_switch.force.text} for {scope} {begins}{until}. To lift it: `{lift}`"
    output.answer(new_switch, new_switch.id, advice=advice)
    if new_switch.force.freezes:
        return
    preview = freezes.preview_switch(session.context, new_switch.force, new_switch.route)
    unaffected = () if session.json else preview.unaffected
    if unaffected:
        names = ", ".join(unaffected)
        cause = "have no other target" if new_switch.force.avoids else "cannot use it"
        output.note(f"these routes {cause}, so they keep their plans: {names}")


@command(switch, "list", example="swapproof switch list")
def list_switches(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List the switches that people threw, newest first.

    Prints switches and freezes of the file, and switches of SWAPPROOF_FORCE, on stderr.
    """
    switches = session.context.store.lists.switches(page_request)
    now = session.installation.clock.now()
    if not session.json:
        for standing_switch in session.installation.standing_switches:
            scope = _name_scope(standing_switch.route)
            output.note(f"{standing_switch.reason}: {standing_switch.force} for {scope}")
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
            "ROUTE": _name_scope(record.switch.route),
            "STATE": record.describe_state(now),
            "UNTIL": timestamp(record.switch.expires_at),
            "BY": record.switch.actor,
            "SINCE": timestamp(record.switch.created_at),
            "REASON": record.switch.reason,
        },
        empty="no switch has been thrown yet: every route follows its plan",
    )


def _name_scope(route: str | None) -> str:
    return "all" if route is None else route
