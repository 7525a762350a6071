"""`swapgate route freeze` and `unfreeze` set and lift a freeze, `freezes` lists them with those
that the configuration file sets every week.
"""

from datetime import datetime, timedelta
from typing import Final

import click

from harness.cli.frame import output
from harness.cli.frame.command import PAGE, REASON, SHOWN_REASON, arg, command, opt
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session
from harness.control.routing import freezes
from harness.domain.errors import InputError
from harness.domain.pagination import PageRequest


class _Moment(click.ParamType[datetime]):
    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(
                f"{value!r} is no time with its zone: write 2026-12-24T16:00+01:00", param, ctx
            )
        return moment


_MOMENT: Final = _Moment()


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
    reason: str = SHOWN_REASON,
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
    """End a freeze early. Whoever proposed a swap that it holds back cannot do this."""
    record = session.decide(freezes.lift_freeze, freeze_id, reason=reason)
    output.answer(record, f"lifted {freeze_id}")


@command(name="freezes")
def list_freezes(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List the freezes that people set, newest first.

    The weekly freezes of the configuration file are shown on stderr.
    """
    found = session.context.store.lists.freezes(page_request)
    now = session.installation.clock.now()
    for window in () if session.json else session.context.freeze_windows:
        scope = ", ".join(sorted(window.routes)) or "all routes"
        output.note(f"every week, {window}: {scope} ({window.reason})")
    output.listing(
        found,
        lambda record: {
            "ID": record.freeze.id,
            "ROUTE": record.freeze.route or "all",
            "STATE": record.describe_state(now),
            "FROM": timestamp(record.freeze.starts_at),
            "UNTIL": timestamp(record.freeze.ends_at),
            "BY": record.freeze.actor,
            "REASON": record.freeze.reason,
        },
        empty="nobody has set a freeze yet",
    )
