"""Reads what an OpenID Connect server said of a person (`read_identity`): who it is, by issuer
and subject, what he is called, and the role that the file gives to his groups. Pure.

The token behind the claims was verified by Streamlit before; here is decided what it is worth.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from harness.domain.content_hash import canonical_json
from harness.domain.errors import NotAllowed
from harness.domain.operations.access import Role
from harness.domain.operations.principals import MAX_NAME_LENGTH
from harness.domain.settings import OidcSettings

# What clocks of two machines may differ by.
CLOCKS_DIFFER: Final = timedelta(minutes=5)
# Some servers write booleans as texts.
VERIFIED: Final = (True, "true", "True")
# As OpenID Connect Core has it.
LONGEST_SUBJECT: Final = 255


@dataclass(frozen=True, slots=True)
class SignedInIdentity:
    """Who signed in, when, and with which role."""

    issuer: str
    subject: str
    name: str
    role: Role  # the highest of the groups
    issued_at: datetime
    sign_in: str  # a text that this sign-in has alone: its claims

    def require_current(self, now: datetime, lasts: timedelta) -> None:
        """Requires a sign-in that is not too long ago. Raises NotAllowed."""
        if not self.issued_at - CLOCKS_DIFFER <= now < self.issued_at + lasts:
            raise NotAllowed("Your session is over: sign in again.")


def read_identity(claims: Mapping[str, object], settings: OidcSettings) -> SignedInIdentity:
    """Reads the claims of an ID token. Raises NotAllowed for another issuer's, for one without
    a subject, a name or a time, for an e-mail address that nobody verified, and for a person
    whose groups give no role.
    """
    issuer = _text(claims, "iss")
    if issuer != settings.issuer:
        raise NotAllowed(
            f"the sign-in comes from {issuer!r}, and `ui.oidc.issuer` is {settings.issuer!r}"
        )
    name = _text(claims, settings.name_claim)
    if settings.name_claim == "email" and claims.get("email_verified") not in VERIFIED:
        # Where it says nothing, anybody may have written anybody's address.
        raise NotAllowed(
            f"{issuer} has not verified the address {name[:MAX_NAME_LENGTH]}, or does not say "
            "so: verify it there, or let an admin name another claim in `ui.oidc.name_claim`"
        )
    subject = _text(claims, "sub")
    if len(subject) > LONGEST_SUBJECT or not (subject.isascii() and subject.isprintable()):
        raise NotAllowed(
            f"the claim 'sub' of {issuer} is not at most {LONGEST_SUBJECT} ASCII characters"
        )
    return SignedInIdentity(
        issuer=issuer,
        subject=subject,
        name=name,
        role=_role(claims, settings, name),
        issued_at=_issued_at(claims, issuer),
        sign_in=canonical_json(dict(claims)),
    )


def _issued_at(claims: Mapping[str, object], issuer: str) -> datetime:
    seconds = claims.get("iat")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        # No number, or a year that no calendar has.
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(seconds, UTC)
    raise NotAllowed(f"{issuer} does not say when you signed in (`iat`)")


def _text(claims: Mapping[str, object], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not value.strip():
        raise NotAllowed(f"the sign-in has no claim {claim!r}, so nobody knows who you are")
    return value


def _role(claims: Mapping[str, object], settings: OidcSettings, name: str) -> Role:
    """Finds the highest role of the person's groups. Raises NotAllowed."""
    found = claims.get(settings.roles_claim, ())
    groups = (found,) if isinstance(found, str) else found
    if not isinstance(groups, list | tuple):
        groups = ()
    roles = [
        Role[settings.roles[group].upper()]
        for group in groups
        if isinstance(group, str) and group in settings.roles
    ]
    if not roles:
        raise NotAllowed(
            f"{name[:MAX_NAME_LENGTH]} is in none of the groups that have a role here: an "
            f"admin of {settings.issuer} adds you to one of {', '.join(sorted(settings.roles))}"
        )
    return max(roles)
