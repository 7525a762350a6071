"""Where people sign in by kind of provider, and how tokens are renewed. GitHub documents its
device flow (RFC 8628); the others are what the vendors' programs do. Pure.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from harness.frame.errors import ConfigError, InputError


class OAuthFlow(StrEnum):
    STANDARD = "standard"  # RFC 8628: the token's own address says what has become of it
    OPENAI = "openai"  # an address of its own answers 403 until there is a code for tokens


@dataclass(frozen=True, slots=True)
class OAuthEndpoints:
    flow: OAuthFlow = OAuthFlow.STANDARD
    device_url: str = ""  # gives the codes
    token_url: str = ""  # gives tokens, and renews them
    poll_url: str = ""  # of OPENAI, tells when the person is done
    verification_url: str = ""  # where the person goes, when the server does not say so itself
    redirect_uri: str = ""
    # Gives a short-lived token for the account's; empty where the account's own is sent.
    exchange_url: str = ""
    scope: str = ""
    client_id: str = ""
    # With each of these requests.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


OAUTH_ENDPOINTS: Final[Mapping[str, OAuthEndpoints]] = {
    "github_copilot": OAuthEndpoints(
        device_url="https://github.com/login/device/code",
        token_url="https://github.com/login/oauth/access_token",  # noqa: S106 - an address
        exchange_url="https://api.github.com/copilot_internal/v2/token",
        scope="read:user",
    ),
    "openai_codex": OAuthEndpoints(
        flow=OAuthFlow.OPENAI,
        device_url="https://auth.openai.com/api/accounts/deviceauth/usercode",
        poll_url="https://auth.openai.com/api/accounts/deviceauth/token",
        token_url="https://auth.openai.com/oauth/token",  # noqa: S106 - an address
        verification_url="https://auth.openai.com/codex/device",
        redirect_uri="https://auth.openai.com/deviceauth/callback",
    ),
}


@dataclass(frozen=True, slots=True)
class OAuthOverrides:
    """What the file says of one provider; None leaves the kind's."""

    client_id: str | None = None  # of your application at the vendor
    device_url: str | None = None  # gives the codes
    token_url: str | None = None  # gives tokens, and renews them
    poll_url: str | None = None  # of openai_codex: whether a person is done
    verification_url: str | None = None  # where the person types the code
    redirect_uri: str | None = None  # where the vendor sends the person back
    exchange_url: str | None = None  # a short-lived token for the account's
    scope: str | None = None  # scope that the token is asked for
    # With each request to these.
    headers: Mapping[str, str] | None = field(default=None, repr=False)


def oauth_endpoints(provider: str, kind: str, change: OAuthOverrides | None) -> OAuthEndpoints:
    """Returns where people sign in. Raises InputError, ConfigError without a client id."""
    known = OAUTH_ENDPOINTS.get(kind)
    if known is None:
        raise InputError(
            f"provider {provider!r} is of kind {kind!r}, which takes a key: "
            f"`swapgate provider key set {provider}`; people sign in for "
            f"{', '.join(OAUTH_ENDPOINTS)}"
        )
    if change is not None:
        said = {item.name: getattr(change, item.name) for item in fields(change)}
        known = replace(known, **{name: it for name, it in said.items() if it is not None})
    if not known.client_id:
        raise ConfigError(
            f"provider {provider!r} has no client id: register an application with the vendor, "
            f"and name it as `oauth.{provider}.client_id`"
        )
    return known


def key_command(provider: str, kind: str) -> str:
    verb = "login" if kind in OAUTH_ENDPOINTS else "set"
    return f"swapgate provider key {verb} {provider}"


def check_kind_takes_key(provider: str, kind: str) -> None:
    """Checks that a kind takes a key. Raises InputError for one that people sign in for."""
    if kind in OAUTH_ENDPOINTS:
        raise InputError(
            f"provider {provider!r} is of kind {kind!r}, which takes no key: people sign in, "
            f"with `swapgate provider key login {provider}`"
        )


def check_oauth_url(url: str) -> str:
    """Checks an address of tokens: https, or http on this machine. Raises InputError."""
    try:
        found = urlsplit(url)
        host = found.hostname or ""
    except ValueError:
        raise InputError("is no URL") from None
    if not host or "@" in found.netloc or found.scheme not in ("http", "https"):
        raise InputError("is no https://host/path")
    if found.scheme == "http" and not _of_this_machine(host):
        raise InputError("is http, and tokens go there: take https")
    return url


def _of_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


JWT_PARTS: Final = 3
_SENDABLE: Final = re.compile(r"[\x21-\x7e]{1,200}")


def read_claims(token: str) -> Mapping[str, object]:
    parts = token.split(".")
    if len(parts) != JWT_PARTS:
        return {}
    try:
        found = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def claim_headers(token: str, headers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    found = {}
    for name, path in headers.items():
        value: object = read_claims(token)
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, str) and _SENDABLE.fullmatch(value):
            found[name] = value
    return found


def lifetime_s(token: str) -> float | None:
    """Seconds from a token's issue to its expiry; None where it does not say."""
    claims = read_claims(token)
    begun, ends = claims.get("iat"), claims.get("exp")
    if isinstance(begun, int | float) and isinstance(ends, int | float) and ends > begun:
        return float(ends - begun)
    return None


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
    provider: str
    id: str  # of this time that somebody signed in
    ciphertext: str = field(repr=False)  # of its SignInSecrets
    signed_in_at: datetime
    signed_in_by: str
    renewed_at: datetime  # when requests' token was last another one
    # account_due, access_due: when each is renewed; None for never.
    account_due: datetime | None = None
    access_due: datetime | None = None
    # Of the token that requests carry; None where the provider does not say.
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
