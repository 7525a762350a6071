"""`swapgate key` and `swapgate person`."""

from datetime import timedelta
from typing import Final

import click

from harness.frame.configuration.setting import change_settings, plain_settings
from harness.frame.formatting import format_spent_usd
from harness.frame.pagination import PageRequest
from harness.frame.people.access import (
    LINK_LASTS,
    ApiKey,
    OptOut,
    Role,
    sign_in_url,
)
from harness.frame.people.limits import KeyLimits
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    PAGE,
    REASON,
    WholeRange,
    arg,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.setting_options import given_options, options_of
from harness.operations import dashboard_sessions, keys, queries
from harness.operations.keys import KeySummary

ROLES = [role.name.lower() for role in Role]
NONE: Final = "none"
KeyLimitOptions: Final = options_of(KeyLimits, new="New keys")


@click.group()
def key() -> None:
    """Keys that Swapgate issues to clients and people."""


@command(key)
def create(
    session: Session,
    name: str,
    *,
    role: str | None = opt(
        "Create a management key with this role. [default: a data key for the router]",
        type=click.Choice(ROLES),
    ),
    routes: tuple[str, ...] = opt(
        "A route that the data key may use; may be repeated. [default: all]",
        "--route",
        metavar="ROUTE",
    ),
    principal: str | None = opt(
        "Owner of the management key. [default: a new person with the key's name]",
        metavar="NAME",
    ),
    service: bool = opt("The new principal is a service, not a person."),
    opt_outs: tuple[OptOut, ...] = opt(
        "Feature that the data key's requests stay out of; may be repeated.",
        "--opt-out",
    ),
    limits: object = taken_from(KeyLimitOptions),
) -> None:
    """Create a key and print it once.

    For another key of the same person, give --principal.
    """
    if role and routes:
        raise click.UsageError("a management key has a role, not routes: leave --route out")
    api_key, text = session.decide(
        keys.create_key,
        name,
        secret=session.installation.secret,
        role=Role[role.upper()] if role else None,
        routes=routes,
        limits=change_settings(KeyLimits(), given_options(limits)),
        opt_outs=opt_outs,
        principal=principal,
        service=service,
    )
    output.answer(
        {"key": api_key, "text": text},
        text,
        advice=f"{api_key.id}, {_kind(api_key)} key of {name!r}. Store it now: it is not shown "
        "again",
    )


@command(key, "list")
def list_keys(session: Session, *, page_request: PageRequest = PAGE) -> None:
    """List the keys, oldest first, without their text."""
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
        empty="no keys yet: `swapgate key create NAME` creates one",
    )


@command(key, "limits")
def change_limits(
    session: Session,
    key_id: str = arg("ID"),
    *,
    limits: object = taken_from(KeyLimitOptions),
) -> None:
    """Change a data key's limits; `none` removes a limit. Routers follow within two seconds."""
    if not given_options(limits):
        raise click.UsageError("nothing to change: give a limit, or `none` to remove one")
    changed = session.decide(
        keys.set_limits,
        key_id,
        lambda before: change_settings(before, given_options(limits)),
    )
    output.answer(changed, f"{key_id}: {_limits(changed.limits) or 'no limits'}")


@command(key, "opt-outs")
def change_opt_outs(
    session: Session,
    key_id: str = arg("ID"),
    opt_outs: tuple[str, ...] = arg(
        type=click.Choice([*(feature.value for feature in OptOut), NONE]),
        required=True,
    ),
) -> None:
    """Set the opt-outs of a data key; `none` removes all. Routers follow within two seconds.

    canary: its requests go to the route's incumbent first. shadow: they are not mirrored to
    candidates. capture: no copy is stored. With shadow or capture, no judge reads them either.
    """
    if NONE in opt_outs and len(set(opt_outs)) > 1:
        raise click.UsageError("`none` cannot be combined with other opt-outs")
    chosen = [OptOut(name) for name in opt_outs if name != NONE]
    changed = session.decide(keys.set_opt_outs, key_id, chosen)
    left = ", ".join(sorted(changed.opt_outs))
    output.answer(changed, f"{key_id}: {left or 'no opt-outs'}")


@command(key)
def revoke(session: Session, key_id: str = arg("ID")) -> None:
    """Revoke a key; routers stop accepting it within two seconds."""
    is_revoked_now = session.decide(keys.revoke_key, key_id)
    text = f"revoked {key_id}" if is_revoked_now else f"{key_id} was already revoked"
    output.answer({"revoked": key_id}, text)


@command(key, "sign-in-link")
def print_sign_in_link(
    session: Session,
    key_id: str | None = arg("[ID]"),
    *,
    minutes: int = opt(
        "Minutes until the link expires.",
        type=WholeRange(1, 24 * 60),
        default=int(LINK_LASTS.total_seconds()) // 60,
    ),
) -> None:
    """Print a link that signs in to the dashboard, once.

    Without ID it signs in the operator of this machine, or the owner of the key in --key-file.
    With ID it signs in the owner of that management key, which you must have created. The first
    person who opens the link is signed in.
    """
    link_session, text = session.decide(
        dashboard_sessions.create_link,
        key_id,
        secret=session.installation.secret,
        lasts=timedelta(minutes=minutes),
    )
    url = sign_in_url(session.settings.ui.url, text)
    output.answer(
        {
            "url": url,
            "session": link_session.id,
            "expires_at": link_session.link_expires_at,
        },
        url,
        advice=f"The link works once, until {timestamp(link_session.link_expires_at)} UTC.",
    )


def _limits(limits: KeyLimits | None) -> str:
    if limits is None:
        return ""
    known = (
        (declared, getattr(limits, declared.name))
        for declared in plain_settings(KeyLimits)
        if declared.optional
    )
    return ", ".join(
        f"{declared.format(value)} {declared.caption}"
        for declared, value in known
        if value is not None
    )


def _spent(key: KeySummary, usd: float) -> str:
    return (
        ""
        if key.role is not None
        else format_spent_usd(usd, key.spent.unpriced, key.spent.bounded)
    )


def _kind(key: ApiKey) -> str:
    return key.role.name.lower() if key.role else "data"


@click.group()
def person() -> None:
    """People: which principals are one person, and who is signed in."""


@command(person, "list")
def list_people(session: Session) -> None:
    """List the principals, which act with a key, by single sign-on, or on this machine.

    With a key below the admin role, the list has only the key holder's principals.
    """
    found = keys.list_people(session.context, session.actor)
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
        empty="no principals yet",
    )


@command(person)
def link(
    session: Session,
    name: str,
    person_name: str = arg("PERSON"),
    *,
    reason: str = REASON,
) -> None:
    """Declare that NAME is the same person as PERSON.

    From then on, neither can approve a proposal of the other.
    """
    declared = session.decide(keys.link_people, name, person_name, reason)
    output.answer(declared, f"{name} and {person_name} are one person")


@command(person)
def separate(
    session: Session,
    name: str,
    *,
    reason: str = REASON,
) -> None:
    """Declare that NAME is a separate person, with no other principal here.

    A single sign-on user and a key holder can approve each other's proposals only after this
    declaration, or a `link` to another person. A third person must make the declaration.
    """
    declared = session.decide(keys.separate_people, name, reason)
    output.answer(declared, f"{name} is a separate person")


@command(person)
def sessions(session: Session) -> None:
    """List the open sessions of the dashboard, newest first.

    With a key below the admin role, the list has only the key holder's sessions.
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
        empty="no one is signed in",
    )


@command(person, "sign-out")
def sign_out(
    session: Session,
    session_id: str = arg("SESSION"),
    *,
    reason: str = REASON,
) -> None:
    """End a person's session in the dashboard, at once."""
    ended = session.decide(dashboard_sessions.end_another, session_id, reason)
    output.answer(ended, f"{ended.name} is signed out of {ended.id}")
