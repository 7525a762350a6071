"""Signs which triggers a database has, and says whether anything vouches for them: whether this
version may put its own in their place (ADR 38).

A version knows its own triggers and those of the generations before it. Others may be a newer
version's, even where the database claims no generation: then only a signature lets them be
replaced, or a person.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import sqlalchemy as sa

from harness.domain.errors import Conflict, SignatureInvalid
from harness.ports import Signatures
from harness.store.guards import known_triggers, trigger_generation, triggers

_KNOWN_LENGTH: Final = 32


def has_unknown(db: sa.Connection) -> bool:
    """Tells whether the database has a trigger that no version up to this one had."""
    ours = set(triggers.shipped(db).values())
    others = (trigger for trigger in triggers.present(db).values() if trigger not in ours)
    return not all(is_known(triggers.in_public(db, other)) for other in others)


def is_known(trigger: triggers.Trigger) -> bool:
    """Tells whether a version up to this one had the trigger, in the schema `public`."""
    return triggers.digest_of(trigger)[:_KNOWN_LENGTH] in known_triggers.DIGESTS


def find_unsigned(db: sa.Connection, signatures: Signatures | None) -> str:
    """Says why nothing vouches for the newer generation that the database claims, or for
    triggers that this version does not know; empty where a signature does, or where there are
    none such.
    """
    if trigger_generation.has_newer(db) or has_unknown(db):
        try:
            trigger_generation.signed_digests(db, signatures)
        except SignatureInvalid as error:
            return str(error)
    return ""


def require_replaceable(db: sa.Connection, signatures: Signatures | None) -> None:
    """Checks that this version's triggers may take the place of a database's at its own schema.

    Raises Conflict for some that it does not know, and that nothing vouches for: whoever took
    the generation away by SQL would let an older version install its triggers.
    """
    if trigger_generation.has_newer(db):
        return  # they stay
    if why := find_unsigned(db, signatures):
        raise Conflict(
            "the database has triggers that this version does not know, and nothing says that "
            f"they are no newer version's: {why}. They stay. Run the newest version's "
            "`swapgate db upgrade` where the signing key is; if no newer version was ever used "
            "here, see `swapgate db check`, then run `swapgate db upgrade --replace-triggers`"
        )


def sign(db: sa.Connection, signatures: Signatures) -> None:
    """Signs this version's triggers, where the database has them. Raises ConfigError."""
    if not trigger_generation.has_newer(db):
        digests = _digests(triggers.shipped(db).values())
        with suppress(SignatureInvalid):
            if trigger_generation.signed_digests(db, signatures) == digests:
                return  # who does not own the tables could not write it again
        trigger_generation.sign(db, digests, signatures)


def release(db: sa.Connection, signatures: Signatures) -> None:
    """Signs, after a step back, that any version may replace the triggers that are there.
    Raises ConfigError.
    """
    trigger_generation.sign(db, _digests(triggers.present(db).values()), signatures)


def _digests(of: Iterable[triggers.Trigger]) -> dict[str, str]:
    return {trigger.name: triggers.digest_of(trigger) for trigger in of}
