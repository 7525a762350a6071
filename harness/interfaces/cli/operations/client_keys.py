"""`swapgate key` and `swapgate person`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal

import click

from harness.frame.errors import InputError
from harness.frame.formatting import format_spent_usd, format_usd
from harness.frame.pagination import PageRequest
from harness.frame.people.access import LINK_LASTS, ApiKey, OptOut, Role, sign_in_url
from harness.frame.people.limits import KeyLimits
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    PAGE,
    REASON,
    FiniteRange,
    Reads,
    arg,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.operations import dashboard_sessions, keys, people, queries
from harness.operations.keys import KeySummary

ROLES = [role.name.lower() for role in Role]
NONE: Final = "none"
Limit = float | Literal["none"] | None


def _read_limit(text: str) -> Limit:
    if text == NONE:
        return NONE
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{text!r} is neither a number nor `none`") from None


LIMIT: Final = Reads("limit", _read_limit)


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Holds the limits that were given: None for those that were not."""

    warn_share: float | None = opt(
        "Share of a budget at which a warning is raised. [default: 0.8]",
        "--warn-at",
        type=FiniteRange(0, 1, min_open=True),
        metavar="SHARE",
    )
    requests_per_min: Limit = opt(
        "Requests per minute, over all workers.", type=LIMIT, metavar="N"
    )
    tokens_per_min: Limit = opt(
        "Tokens per minute, of input and output.", type=LIMIT, metavar="N"
    )
    budget_day_usd: Limit = opt(
        "US dollars per day (UTC).", "--budget-day", type=LIMIT, metavar="USD"
    )
    budget_month_usd: Limit = opt(
        "US dollars per month (UTC).", "--budget-month", type=LIMIT, metavar="USD"
    )

    @property
    def given(self) -> Mapping[str, Any]:
        limits = {name: limit for name, limit in vars(self).items() if limit is not None}
        return {name: None if limit == NONE else limit for name, limit in limits.items()}


@click.group()
def key() -> None:
    """Keys of Swapgate's own, for clients and for people."""


@command(key)
def create(
    session: Session,
    name: str,
    *,
    role: str | None = opt(
        "A management key with this role; without it a data key for the router.",
        type=click.Choice(ROLES),
    ),
    routes: tuple[str, ...] = opt(
        "A route that the data key opens; may be repeated. [default: all]",
        "--route",
        metavar="ROUTE",
    ),
    principal: str | None = opt(
        "Whose management key it is. [default: a new person named like the key]", metavar="NAME"
    ),
    service: bool = opt("The new principal is a service, not a person."),
    opt_outs: tuple[OptOut, ...] = opt(
        "Features that leave out the data key's requests; may be repeated.", "--opt-out"
    ),
    limits: LimitOptions = taken_from(LimitOptions),
) -> None:
    """Create a key and print it, this once.

    A second key of the same person takes --principal.
    """
    if role and routes:
        raise click.UsageError("a management key has a role, not routes: leave --route out")
    made, text = session.decide(
        keys.create_key,
        name,
        secret=session.installation.secret,
        role=Role[role.upper()] if role else None,
        routes=routes,
        limits=replace(KeyLimits(), **limits.given),
        opt_outs=opt_outs,
        principal=principal,
        service=service,
    )
    output.answer(
        {"key": made, "text": text},
        text,
        advice=f"{made.id}, {_kind(made)} key of {name!r}. It is not shown again: keep it now",
    )


@command(key, "list")
def list_keys(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List the keys, the oldest first; a key's text is never shown again."""
    found = queries.list_keys(session.context, page_request)
    output.listing(
        found,
        lambda row: {
            "ID": row.id,
            "NAME": row.name,
            "PRINCIPAL": row.principal_name,
            "KIND": _kind(row),
            "ENDS IN": row.hint,
            "ROUTES": ", ".join(sorted(row.routes)) or "all",
            "LIMITS": _limits(row.limits),
            "OPTED OUT OF": ", ".join(sorted(row.opt_outs)),
            "TODAY": _spent(row, row.spent.day_usd),
            "THIS MONTH": _spent(row, row.spent.month_usd),
            "CREATED": timestamp(row.created_at),
            "REVOKED": timestamp(row.revoked_at),
        },
        empty="no keys yet: `swapgate key create NAME` makes one",
    )


@command(key, "limits")
def change_limits(
    session: Session,
    key_id: str = arg("ID"),
    *,
    limits: LimitOptions = taken_from(LimitOptions),
) -> None:
    """Change a data key's limits; `none` lifts one. In force within two seconds."""
    if not limits.given:
        raise click.UsageError("nothing to change: give a limit, or `none` to lift one")
    changed = session.decide(
        keys.set_limits, key_id, lambda before: replace(before, **limits.given)
    )
    output.answer(changed, f"{key_id}: {_limits(changed.limits) or 'no limits'}")


@command(key, "opt-outs")
def change_opt_outs(
    session: Session,
    key_id: str = arg("ID"),
    opt_outs: tuple[str, ...] = arg(
        type=click.Choice([*(one.value for one in OptOut), NONE]), required=True
    ),
) -> None:
    """Set what a data key opts out of; `none` lifts all. In force within two seconds.

    canary: its requests go to the route's own model first. shadow: they are mirrored to no
    candidate. capture: no copy is kept. shadow and capture keep judges away, too.
    """
    if NONE in opt_outs and len(set(opt_outs)) > 1:
        raise click.UsageError("`none` stands alone: leave it out, or the others")
    chosen = [OptOut(name) for name in opt_outs if name != NONE]
    changed = session.decide(keys.set_opt_outs, key_id, chosen)
    left = ", ".join(sorted(changed.opt_outs))
    output.answer(changed, f"{key_id}: {left or 'no opt-outs'}")


@command(key)
def revoke(session: Session, key_id: str = arg("ID")) -> None:
    """Revoke a key; routers stop taking it within two seconds."""
    session.decide(keys.revoke_key, key_id)
    output.answer({"revoked": key_id}, f"revoked {key_id}")


@command(key, "sign-in-link")
def print_sign_in_link(
    session: Session,
    key_id: str | None = arg("[ID]"),
    *,
    minutes: int = opt(
        "How long the link waits to be opened.",
        type=click.IntRange(1, 24 * 60),
        default=int(LINK_LASTS.total_seconds()) // 60,
    ),
) -> None:
    """Print a link that signs in to the dashboard, once.

    Without ID it signs in the operator of this machine, or the owner of the key in --key-file.
    With ID it signs in the owner of that management key, which you must have created. The first
    person who opens the link is signed in.
    """
    made, text = session.decide(
        dashboard_sessions.create_link,
        key_id,
        secret=session.installation.secret,
        lasts=timedelta(minutes=minutes),
    )
    url = sign_in_url(session.settings.ui.url, text)
    output.answer(
        {"url": url, "session": made.id, "expires_at": made.link_expires_at},
        url,
        advice=f"It signs in once, until {timestamp(made.link_expires_at)}.",
    )


def _limits(limits: KeyLimits | None) -> str:
    if limits is None:
        return ""
    parts = (
        (limits.requests_per_min, "{:.15g}".format, "requests/min"),
        (limits.tokens_per_min, "{:.15g}".format, "tokens/min"),
        (limits.budget_day_usd, format_usd, "a day"),
        (limits.budget_month_usd, format_usd, "a month"),
    )
    return ", ".join(
        f"{write(value)} {per}" for value, write, per in parts if value is not None
    )


def _spent(key: KeySummary, usd: float) -> str:
    return "" if key.role is not None else format_spent_usd(usd, key.spent.unpriced)


def _kind(key: ApiKey) -> str:
    return key.role.name.lower() if key.role else "data"


@click.group()
def person() -> None:
    """People: who of the principals is one person, and who is signed in."""


@command(person, "list")
def list_people(session: Session) -> None:
    """List the principals: who acts with a key, by single sign-on, or on this machine.

    With a key below the admin role, it lists those of the key's holder.
    """
    found = people.list_people(session.context, session.actor)
    output.listing(
        found,
        lambda view: {
            "NAME": view.name,
            "KIND": view.kind.value,
            "SIGNS IN AT": view.issuer or "",
            "IS": view.person,
            "DECLARED BY": view.declared_by,
            "REASON": view.reason,
            "SINCE": timestamp(view.created_at),
        },
        empty="nobody yet",
    )


@command(person)
def link(
    session: Session, name: str, person_name: str = arg("PERSON"), *, reason: str = REASON
) -> None:
    """Declare that NAME is the same person as PERSON.

    Neither approves what the other proposed from then on.
    """
    made = session.decide(people.link, name, person_name, reason)
    output.answer(made, f"{name} and {person_name} are one person")


@command(person)
def separate(session: Session, name: str, *, reason: str = REASON) -> None:
    """Declare that NAME is no other person here.

    A person of single sign-on needs this, or a `link`, to approve a proposal that was made with
    a key, and the other way. Neither of the two may declare it.
    """
    made = session.decide(people.separate, name, reason)
    output.answer(made, f"{name} is no other person here")


@command(person)
def sessions(session: Session) -> None:
    """List who is signed in to the dashboard, the last one first.

    With a key below the admin role, it lists the holder's own sessions.
    """
    found = dashboard_sessions.list_open(session.context, session.actor)
    output.listing(
        found,
        lambda view: {
            "SESSION": view.id,
            "NAME": view.name,
            "BY": view.by,
            "SINCE": timestamp(view.opened_at),
            "UNTIL": timestamp(view.expires_at),
        },
        empty="nobody is signed in",
    )


@command(person, "sign-out")
def sign_out(
    session: Session, session_id: str = arg("SESSION"), *, reason: str = REASON
) -> None:
    """End somebody's session in the dashboard, at once."""
    ended = session.decide(dashboard_sessions.end_another, session_id, reason)
    output.answer(ended, f"{ended.name} is signed out of {ended.id}")
