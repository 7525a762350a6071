"""OAuth tokens are kept after a sign-in and renewed before they expire. Pure. The account's
token lasts long, or until it is refreshed. Where a kind has an exchange, the account's token
buys access tokens that last minutes, and requests carry these; elsewhere they carry the
account's.

The device flow lets a person sign in on another screen (RFC 8628).
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

DEFAULT_INTERVAL_S: Final = 5.0
SLOW_DOWN_S: Final = 5.0  # added for good, each time
MIN_INTERVAL_S: Final = 1.0
MAX_INTERVAL_S: Final = 60.0
MAX_WAIT_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class DeviceCode:
    secret: str = field(repr=False)
    user_code: str  # what the person types at verification_url
    verification_url: str
    expires_in_s: float
    interval_s: float = DEFAULT_INTERVAL_S


@dataclass(frozen=True, slots=True)
class OAuthTokens:
    access_token: str = field(repr=False)
    # Empty for none, or for the same as before.
    refresh_token: str = field(default="", repr=False)
    expires_in_s: float | None = None  # None when the server does not say
    # When it wants to be asked for the next one, if it says so.
    refresh_in_s: float | None = None


class PollAnswer(StrEnum):
    """The server's answer to whether the person is done; values as the protocol names them."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    DENIED = "access_denied"
    EXPIRED = "expired_token"
    UNREACHABLE = "unreachable"


def next_interval_s(before_s: float, answer: PollAnswer) -> float:
    """Returns the pause before the server is asked again (RFC 8628, section 3.5)."""
    if answer is PollAnswer.SLOW_DOWN:
        return before_s + SLOW_DOWN_S
    if answer is PollAnswer.UNREACHABLE:
        return max(before_s, min(2 * before_s, MAX_INTERVAL_S))
    return before_s


TOKEN_KEY_NAME: Final = "oauth"  # noqa: S105 - the name of the stored key that requests carry
# A token is renewed when this share of its life is left, and never earlier than that.
RENEWAL_SHARE: Final = 0.2
EARLIEST_RENEWAL: Final = timedelta(hours=1)
FIRST_PAUSE: Final = timedelta(seconds=2)
MAX_PAUSE: Final = timedelta(minutes=1)
# Longer than a server takes to answer.
CLAIMED_FOR: Final = timedelta(minutes=2)
ADOPTION_TIME: Final = timedelta(seconds=5)
MIN_RENEWAL_INTERVAL: Final = timedelta(minutes=1)
ALERT_ATTEMPTS: Final = 3  # after which people are told


class Renewal(StrEnum):
    ACCOUNT = "account"  # by its refresh token
    ACCESS = "access"  # by the account's token


@dataclass(frozen=True, slots=True)
class SignInSecrets:
    account_token: str = field(repr=False)
    # Empty for none; then the account's token is used until it is refused.
    refresh_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SignIn:
    """One sign-in to one provider, and when its tokens are renewed."""

    provider: str
    id: str  # of this time that somebody signed in
    ciphertext: str = field(repr=False)  # of its SignInSecrets
    signed_in_at: datetime
    signed_in_by: str
    renewed_at: datetime  # when requests' token was last another one
    # account_due, access_due: when each is renewed; None for never.
    account_due: datetime | None = None
    access_due: datetime | None = None
    # Of the token that requests carry; None when nobody said.
    access_ends: datetime | None = None
    attempts: int = 0  # in vain since the last success
    retry_at: datetime | None = None  # not before
    refused: str = ""  # the server's word, empty while it renews


def claim_renewal(sign_in: SignIn, now: datetime) -> SignIn:
    """Keeps other processes from renewing meanwhile: a server may take a refresh token once."""
    return replace(sign_in, retry_at=now + CLAIMED_FOR)


def renewal_due_at(tokens: OAuthTokens, now: datetime) -> datetime | None:
    """Says when to ask for the next token; None for a token that lasts."""
    if tokens.expires_in_s is None:
        return None
    life = timedelta(seconds=max(tokens.expires_in_s, 0.0))
    latest = life - min(life * RENEWAL_SHARE, EARLIEST_RENEWAL)
    if tokens.refresh_in_s is not None:
        latest = min(latest, timedelta(seconds=max(tokens.refresh_in_s, 0.0)))
    return now + latest


def due_renewal(sign_in: SignIn, now: datetime) -> Renewal | None:
    if sign_in.refused or (sign_in.retry_at is not None and now < sign_in.retry_at):
        return None
    if sign_in.account_due is not None and sign_in.account_due <= now:
        return Renewal.ACCOUNT
    if sign_in.access_due is not None and sign_in.access_due <= now:
        return Renewal.ACCESS
    return None


def apply_account_tokens(
    sign_in: SignIn, tokens: OAuthTokens, now: datetime, *, exchanged: bool
) -> SignIn:
    """Applies an account token. exchanged: it buys access tokens, the next one at once."""
    renewable = bool(tokens.refresh_token) or sign_in.account_due is not None
    return replace(
        sign_in,
        account_due=renewal_due_at(tokens, now) if renewable else None,
        access_due=now if exchanged else None,
        access_ends=sign_in.access_ends if exchanged else _ends(tokens, now),
        renewed_at=sign_in.renewed_at if exchanged else now,
        attempts=0,
        retry_at=None,
    )


def apply_access_tokens(sign_in: SignIn, tokens: OAuthTokens, now: datetime) -> SignIn:
    return replace(
        sign_in,
        access_due=renewal_due_at(tokens, now),
        access_ends=_ends(tokens, now),
        renewed_at=now,
        attempts=0,
        retry_at=None,
    )


def renew_sooner(sign_in: SignIn, seen_at: datetime, now: datetime) -> SignIn:
    """Renews at once after a refusal. Right after a renewal routers may send the old token."""
    if (
        seen_at <= sign_in.renewed_at + ADOPTION_TIME
        or now < sign_in.renewed_at + MIN_RENEWAL_INTERVAL
    ):
        return sign_in
    if sign_in.access_due is not None:
        return replace(sign_in, access_due=min(sign_in.access_due, now))
    if sign_in.account_due is not None:
        return replace(sign_in, account_due=min(sign_in.account_due, now))
    return sign_in


def record_failed_renewal(sign_in: SignIn, now: datetime) -> SignIn:
    pause = min(FIRST_PAUSE * 2 ** min(sign_in.attempts, 10), MAX_PAUSE)
    return replace(sign_in, attempts=sign_in.attempts + 1, retry_at=now + pause)


def record_refusal(sign_in: SignIn, word: str) -> SignIn:
    return replace(sign_in, refused=word or "refused", retry_at=None)


def is_expired(sign_in: SignIn, now: datetime) -> bool:
    if sign_in.access_ends is None:
        return bool(sign_in.refused)
    return sign_in.access_ends <= now


def merge_secrets(before: SignInSecrets, tokens: OAuthTokens) -> SignInSecrets:
    """A server that sends no new refresh token means the old one (RFC 6749, section 6)."""
    return SignInSecrets(tokens.access_token, tokens.refresh_token or before.refresh_token)


def _ends(tokens: OAuthTokens, now: datetime) -> datetime | None:
    if tokens.expires_in_s is None:
        return None
    return now + timedelta(seconds=max(tokens.expires_in_s, 0.0))
