"""`swapproof key` and `swapproof person`."""

from datetime import timedelta
from typing import Final

import click

from harness.frame.configuration.setting_values import change_settings
from harness.frame.people.access import (
    LINK_LASTS,
    OptOut,
    Role,
    sign_in_url,
)
from harness.frame.people.limits import KeyLimits
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    WholeRange,
    arg,
    command,
    opt,
    taken_from,
)
from harness.interfaces.cli.frame.operation_command import operation_group
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.setting_options import given_options, options_of
from harness.operations import dashboard_sessions, keys
from harness.operations.operations import KEYS, PEOPLE, describe_kind, describe_limits

ROLES = [role.name.lower() for role in Role]
NONE: Final = "none"
KeyLimitOptions: Final = options_of(KeyLimits, new="New keys")


key = operation_group(KEYS)


@command(key, example="swapproof key create my-app --route support --budget-day 5")
def create(
    session: Session,
    name: str,
    *,
    role: str | None = opt(
        "Create a management key with this role. [default: a client key for the router]",
        type=click.Choice(ROLES),
    ),
    routes: tuple[str, ...] = opt(
        "A route that the client key may use; may be repeated. [default: all]",
        "--route",
        metavar="ROUTE",
    ),
    principal: str | None = opt(
        "Owner of the management key. [default: a new person with the key's name]",
        metavar="NAME",
    ),
    service: bool = opt("The new principal is a service, not a person."),
    opt_outs: tuple[OptOut, ...] = opt(
        "Feature that the client key's requests stay out of; may be repeated.",
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
        advice=f"{api_key.id}, {describe_kind(api_key)} key of {name!r}. Store it now: it is "
        "not shown again",
    )


@command(key, "limits", example="swapproof key limits key_7dd29fc2a5260856 --budget-day 20")
def change_limits(
    session: Session,
    key_id: str = arg("ID"),
    *,
    limits: object = taken_from(KeyLimitOptions),
) -> None:
    """Change a client key's limits; `none` removes one. Routers follow within two seconds."""
    if not given_options(limits):
        raise click.UsageError("nothing to change: give a limit, or `none` to remove one")
    changed_key = session.decide(
        keys.set_limits,
        key_id,
        lambda before: change_settings(before, given_options(limits)),
    )
    output.answer(
        changed_key, f"{key_id}: {describe_limits(changed_key.limits) or 'no limits'}"
    )


@command(key, "opt-outs", example="swapproof key opt-outs key_7dd29fc2a5260856 canary shadow")
def change_opt_outs(
    session: Session,
    key_id: str = arg("ID"),
    opt_outs: tuple[str, ...] = arg(
        type=click.Choice([*(feature.value for feature in OptOut), NONE]),
        required=True,
    ),
) -> None:
    """Set the opt-outs of a client key; `none` removes all. Routers follow within two seconds.

    canary: its requests go to the route's incumbent first. shadow: they are not mirrored to
    candidates. capture: no copy is stored. With shadow or capture, no judge reads them either.
    """
    if NONE in opt_outs and len(set(opt_outs)) > 1:
        raise click.UsageError("`none` cannot be combined with other opt-outs")
    new_opt_outs = [OptOut(name) for name in opt_outs if name != NONE]
    changed_key = session.decide(keys.set_opt_outs, key_id, new_opt_outs)
    opt_out_names = ", ".join(sorted(changed_key.opt_outs))
    output.answer(changed_key, f"{key_id}: {opt_out_names or 'no opt-outs'}")


@command(key, "sign-in-link", example="swapproof key sign-in-link")
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


person = operation_group(PEOPLE)
