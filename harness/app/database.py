"""Migrates and checks the configured database, and rotates the keys of its rows.

Each function imports `harness.app.store` late, because most commands need no SQLAlchemy. A
process that serves calls `require_database` and never changes the schema.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from harness.app import secret_files
from harness.app.configuration.model import RunQueueKind, Settings
from harness.app.installation import Installation, job_queue
from harness.frame.people.access import Actor, Role
from harness.frame.signing.audit_log import AuditLog
from harness.frame.signing.keyring import KeyPurpose, PublicKey

if TYPE_CHECKING:
    from harness.app.store.migrate import SchemaState as SchemaState  # noqa: PLC0414 - for callers


HIDDEN = "***"
_PASSWORD_PARAMETER: Final = re.compile(r"(?i)([?&](?:ssl)?password=)[^&#]*")


def without_password(url: str) -> str:
    """Hides the passwords of a URL, before the host and in its parameters."""
    password = urlsplit(url).password
    hidden = url.replace(f":{password}@", f":{HIDDEN}@") if password else url
    return _PASSWORD_PARAMETER.sub(rf"\1{HIDDEN}", hidden)


def import_store() -> None:
    """Imports SQLAlchemy and the store. `serve all` calls it once, before it forks its
    children.
    """
    from harness.app.store import store  # noqa: F401, PLC0415 - SQLAlchemy is slow to import


def require_database(settings: Settings) -> None:
    """Raises DatabaseUnusable if the SQLite file is missing, because a new file would hide the
    loss. Raises it, too, for a pooler in transaction mode and for an earlier schema.
    """
    from harness.app.store import schema_revisions  # noqa: PLC0415 - SQLAlchemy is slow to import
    from harness.frame.database import engine  # noqa: PLC0415 - SQLAlchemy is slow to import
    from harness.frame.database.leader import require_own_session  # noqa: PLC0415 - SQLAlchemy is slow to import

    engine.require_file(settings.database_url)
    require_own_session(settings.database_url)
    schema_revisions.require_supported(settings.database_url)


def upgrade_database(settings: Settings) -> None:
    """Upgrades the schema; creates a missing SQLite file.

    Raises DatabaseUnusable, StoreUnavailable.
    """
    from harness.app.store import schema_revisions  # noqa: PLC0415 - SQLAlchemy is slow to import
    from harness.frame.database.leader import require_own_session  # noqa: PLC0415 - SQLAlchemy is slow to import

    require_own_session(settings.database_url)
    if settings.database_url.startswith("sqlite"):
        secret_files.writable_home(settings)
    if not schema_revisions.is_current(settings.database_url):
        from harness.app.store import migrate  # noqa: PLC0415 - alembic is slow to import

        migrate.upgrade(settings.database_url)
    if settings.control.queue is RunQueueKind.PROCRASTINATE:
        job_queue(settings).install(settings.database_url)


def grant_runtime(
    settings: Settings,
    role: str,
    *,
    only_show: bool,
) -> Sequence[str]:
    """Grants a role the runtime's rights. Returns the SQL statements. Raises InputError,
    NotFound, DatabaseUnusable.
    """
    from harness.app.store import database_roles  # noqa: PLC0415

    return database_roles.grant(settings.database_url, role, only_show=only_show)


def find_owning_role(settings: Settings) -> str | None:
    """Returns the current database role if it could change the tables; None if it could not."""
    from harness.app.store import database_roles  # noqa: PLC0415

    return database_roles.find_owning_role(settings.database_url)


def schema_state(settings: Settings) -> "SchemaState":
    """Compares the database's schema with this version's. Raises DatabaseUnusable,
    StoreUnavailable.
    """
    from harness.app.store import migrate  # noqa: PLC0415
    from harness.frame.database.leader import require_own_session  # noqa: PLC0415

    require_own_session(settings.database_url)
    return migrate.compare_schema(settings.database_url)


def rotate_signing_key(
    installation: Installation,
    actor: Actor,
    purpose: KeyPurpose,
) -> PublicKey:
    """Creates a signing key; signatures of the old key stay valid. Raises NotAllowed."""
    actor.require(Role.ADMIN)
    new = secret_files.rotate_signing_key(installation.settings, purpose)
    _record_audit(installation, actor, "signing_key.rotate", new.id, purpose.value)
    return new


def retire_signing_key(
    installation: Installation,
    actor: Actor,
    key: str,
    reason: str,
) -> int:
    """Makes the key's signatures invalid. Returns the number of rows that were signed again.
    Raises NotAllowed, Conflict.
    """
    actor.require(Role.ADMIN)
    settings = installation.settings
    secret_files.check_retirable(settings, key)
    count = installation.store.sign_all_rows(actor=actor, reason=reason)
    secret_files.retire_signing_key(settings, key)
    _record_audit(installation, actor, "signing_key.retire", key, reason)
    return count


def add_encryption_key(settings: Settings) -> None:
    secret_files.add_encryption_key(settings)


def _record_audit(
    installation: Installation,
    actor: Actor,
    action: str,
    key: str,
    reason: str,
) -> None:
    """Records the change of a key in the audit log, because the keys' files have no log."""
    ctx = installation.context
    with ctx.store.write() as tx:
        AuditLog(tx).append(actor, action, f"signing key {key}", {"why": reason})
