"""`swapproof db`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.frame.errors import InputError
from harness.frame.people.access import Role
from harness.frame.signing.keyring import KeyPurpose
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    REASON,
    WholeRange,
    command,
    opt,
)
from harness.interfaces.cli.frame.session import Session

if TYPE_CHECKING:
    from harness.app.database import SchemaState
    from harness.frame.signing.signed_rows import RowFault

MOST_SHOWN = 200


@click.group()
def db() -> None:
    """The database: its schema, and the signatures of its rows."""


@command(db, example="swapproof db upgrade")
def upgrade(session: Session) -> None:
    """Upgrade the schema to the newest revision; create a missing SQLite file."""
    from harness.app.database import upgrade_database  # noqa: PLC0415 - `--help` stays quick

    upgrade_database(session.settings)
    output.answer({"upgraded": True}, "the database is at the newest revision")


@command(db, example='swapproof db accept-restore --reason "restored the backup of Monday"')
def accept_restore(
    session: Session,
    *,
    reason: str = opt("Reason, recorded in the audit log."),
    above: int = opt(
        "Highest revision that a router elsewhere served.",
        type=WholeRange(min=0),
        default=0,
        show_default=False,
    ),
) -> None:
    """Continue with a database that was restored from a backup.

    Begins a new epoch (ADR 28), so that routers accept the database. A key that was revoked
    after the backup stays revoked on routers that know of the revocation.
    """
    from harness.app.router_process import read_revision_on_disk  # noqa: PLC0415 - `--help` stays quick
    from harness.operations import integrity  # noqa: PLC0415 - `--help` stays quick

    served_revision = read_revision_on_disk(session.settings)
    highest = integrity.highest_known_revision(session.context, (above, served_revision))
    restored = session.decide(integrity.accept_restore, reason=reason, above=highest)
    output.answer(
        {"epoch": restored.epoch, "revisions_above": highest},
        f"epoch {restored.epoch} begins; the next revision is {highest + 1}",
        advice="routers accept it within seconds: see /readyz",
    )


@command(db, example="swapproof db grant swapproof_runtime --print")
def grant(
    session: Session,
    role: str,
    *,
    only_show: bool = opt("Print the statements; change nothing.", "--print"),
) -> None:
    """Let the PostgreSQL role ROLE run Swapproof without owning its tables.

    Run the command as the tables' owner. Then use ROLE in every process's `database_url`.
    """
    from harness.app.database import grant_runtime  # noqa: PLC0415 - `--help` stays quick

    statements = grant_runtime(session.settings, role, only_show=only_show)
    text = f"the role {role} can run Swapproof, but cannot change its tables' structure"
    script = "\n".join(f"{statement};" for statement in statements)
    document = {"granted": not only_show, "statements": statements}
    output.answer(document, script if only_show else text)


@command(db, example="swapproof db check")
def check(session: Session) -> int:
    """Check the database's schema against this version, and verify every signed row.

    Exit code 1 if a check fails. `swapproof audit verify` checks the audit log.
    """
    from harness.app.database import schema_state  # noqa: PLC0415 - `--help` stays quick

    state = schema_state(session.settings)
    # Rows of another schema cannot be read.
    faults = () if state.differences else session.context.store.signature_faults()
    if not output.documented(
        {
            "same": not state.differences,
            "differences": state.differences,
            "needed": state.needed,
            "found": state.found,
            "signed": not faults,
            "rows": [{"row": fault.name, "why": fault.why} for fault in faults],
        }
    ):
        _print_check(state, faults)
    return 1 if state.differences or faults else 0


def _print_check(state: "SchemaState", faults: "Sequence[RowFault]") -> None:
    for difference in state.differences:
        click.echo(difference)
    print_faults(faults)
    revision = f"revision {state.found}" if state.found else "no tables"
    if state.differences:
        output.note(
            f"this version needs revision {state.needed}, but the database has {revision}"
        )
        output.note("run `swapproof db upgrade`")
    elif faults:
        output.note(
            "Swapproof ignores these rows: restore changed rows from a backup, and remove "
            "added rows with `swapproof db remove-forged`"
        )
    else:
        click.echo(
            f"the database fits this version ({revision}), and the signature of every row is "
            "valid"
        )


def print_faults(faults: "Sequence[RowFault]") -> None:
    for fault in faults[:MOST_SHOWN]:
        click.echo(f"{fault.name}: {fault.why}")
    if len(faults) > MOST_SHOWN:
        click.echo(f"… and {len(faults) - MOST_SHOWN} more rows")


@command(db, "remove-forged", example='swapproof db remove-forged --reason "ticket 12"')
def remove_forged(
    session: Session,
    *,
    reason: str = REASON,
    yes: bool = opt("Do not ask for confirmation."),
) -> None:
    """Remove the rows whose signature is missing or invalid.

    Shows the rows first, and asks. If someone changed rows, restore them from a backup instead.
    Needs the tables' owner and the private signing key.
    """
    session.deciding_actor.require(Role.ADMIN)
    if not reason.strip():
        raise InputError("--reason is empty: give a reason for the audit log")
    store = session.installation.store
    faults = store.signature_faults()
    if not faults:
        _print_result("the signature of every row is valid", 0)
        return
    print_faults(faults)
    if not yes:
        click.confirm("Remove these rows?", abort=True, err=True)
    count = store.remove_forged(faults, actor=session.deciding_actor, reason=reason)
    _print_result(f"removed {count} rows", count)


@command(db, "rotate-key", example="swapproof db rotate-key")
def rotate_key(
    session: Session,
    *,
    purpose: KeyPurpose = opt("Purpose of the key.", default=KeyPurpose.CONTROL),
) -> None:
    """Create a new signing key; signatures of the old key stay valid.

    Then restart control, and add the new line to every router's `signing.pub`.
    """
    from harness.app.database import rotate_signing_key  # noqa: PLC0415 - `--help` stays quick

    new_key = rotate_signing_key(session.installation, session.deciding_actor, purpose)
    _print_result(f"from now on, the {purpose} key {new_key.id} signs", 1)


@command(
    db,
    "retire-key",
    example='swapproof db retire-key 9f86d081884c7d65 --reason "the laptop was stolen"',
)
def retire_key(
    session: Session,
    key: str,
    *,
    reason: str = REASON,
) -> None:
    """Stop accepting signatures of the key KEY.

    Checks every row and signs it again. Needs the tables' owner. Then restart control, and
    give every router the new `signing.pub`.
    """
    from harness.app.database import retire_signing_key  # noqa: PLC0415 - `--help` stays quick

    count = retire_signing_key(session.installation, session.deciding_actor, key, reason)
    _print_result(f"signed {count} rows again; the key {key} is retired", count)


def _print_result(text: str, rows: int) -> None:
    output.answer({"done": text, "rows": rows}, text)
