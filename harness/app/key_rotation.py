"""Rotates keys: makes a new signing key, retires an old one after signing its rows anew, and
puts a new encryption key before the others. What is stored is encrypted by it afterwards
(`harness.control.providers.credentials.rotate_encryption`).
"""

from harness.app.database import sql_store
from harness.app.installation import Installation
from harness.control import audit
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.row_signatures import KeyPurpose, PublicKey
from harness.domain.settings import Settings
from harness.runtime import secret_files, signing_keys


def rotate_signing_key(
    installation: Installation, actor: Actor, purpose: KeyPurpose
) -> PublicKey:
    """Make a new signing key; what the old one signed still holds. Raises NotAllowed."""
    actor.require(Role.ADMIN)
    new = signing_keys.rotate(installation.settings, purpose)
    _record_audit(installation, actor, "signing_key.rotate", new.id, purpose.value)
    return new


def retire_signing_key(installation: Installation, actor: Actor, key: str, reason: str) -> int:
    """Let nothing hold any more that the key signed; how many rows were signed anew.

    Raises NotAllowed, Conflict for the key that signs now.
    """
    actor.require(Role.ADMIN)
    settings = installation.settings
    signing_keys.check_retirable(settings, key)
    count = sql_store(installation).sign_again(actor=actor, reason=reason)
    signing_keys.retire(settings, key)
    _record_audit(installation, actor, "signing_key.retire", key, reason)
    return count


def add_encryption_key(settings: Settings) -> None:
    """Put a new encryption key before the others in the file."""
    secret_files.add_encryption_key(settings)


def _record_audit(
    installation: Installation, actor: Actor, action: str, key: str, why: str
) -> None:
    ctx = installation.context
    with ctx.store.write() as tx:
        audit.record(ctx, tx, actor, action, f"signing key {key}", {"why": why})
