"""A dashboard session says as whom a browser acts: it begins with a one-time link, or with a
management key that was typed, and ends by a sign-out or by its time. Pure.

The texts of link and cookie are 256 random bits each, and stored as hashes. A session acts with
one management key, with the role that the key has at that moment; the local operator's needs
none, as on the command line.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.domain.errors import InputError, NotAllowed

LINK_PREFIX: Final = "sg-link-"
COOKIE_PREFIX: Final = "sg-session-"
SIGN_IN_PATH: Final = "/sign-in"
LINK_LASTS: Final = timedelta(minutes=15)
# Of the link that `swapgate init` prints: a newcomer starts the dashboard first.
FIRST_LINK_LASTS: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class DashboardSession:
    """One sign-in to the dashboard: waits as a link, is open in one browser, ends."""

    id: str
    principal: str  # who acts
    key: str | None  # with which management key; None for the local operator
    created_at: datetime
    # created_by, created_with: the principal, and his management key, who made the link.
    created_by: str
    created_with: str | None = None
    link_hash: str | None = None  # link_hash, link_expires_at: None without a link
    link_expires_at: datetime | None = None
    cookie_hash: str | None = None  # cookie_hash, opened_at, expires_at: None for a link
    opened_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None

    def require_link(self, now: datetime) -> None:
        """Requires a link that nobody used and whose time is not over. Raises NotAllowed."""
        if self.opened_at is not None:
            raise NotAllowed(
                f"this link was used at {self.opened_at:%Y-%m-%d %H:%M} UTC, and works once"
            )
        if self.link_expires_at is None or now >= self.link_expires_at or self.ended_at:
            raise NotAllowed("this link is over: nobody used it in time")

    def require_open(self, now: datetime) -> None:
        """Requires a session that goes on. Raises NotAllowed."""
        if self.opened_at is None or self.expires_at is None:
            raise NotAllowed("this session was never opened: sign in")
        if self.ended_at is not None:
            raise NotAllowed("You signed out. If you did not, an admin ended your session.")
        if now >= self.expires_at:
            raise NotAllowed("Your session is over: sign in again.")


def sign_in_url(base_url: str, link: str) -> str:
    """Writes the address that a person opens. The link stands behind `#`, which no browser
    sends: it is in no server's log, no proxy's, and in no Referer.
    """
    return f"{base_url.rstrip('/')}{SIGN_IN_PATH}#{link}"


def require_makeable(
    *, for_key: str, maker: str, maker_key: str | None, known_to: frozenset[str]
) -> None:
    """Requires that whoever makes a link acts with that key, or may know it: who created it, or
    the key before it. Else a link would make two people of one. Raises NotAllowed.

    known_to: the principals that `key_creators` names.
    """
    if maker_key != for_key and maker not in known_to:
        raise NotAllowed(
            f"you neither act with the key {for_key} nor had a hand in creating it: its owner "
            "prints the link with `swapgate key sign-in-link --key-file FILE`"
        )


def check_lifetime(lasts: timedelta) -> timedelta:
    """Requires a link's lifetime between a minute and a day. Raises InputError."""
    if not timedelta(minutes=1) <= lasts <= timedelta(days=1):
        raise InputError("a sign-in link lasts between a minute and a day")
    return lasts
