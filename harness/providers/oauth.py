"""The sign-in addresses of provider kinds, and the renewal of tokens. Pure.

GitHub documents its device flow (RFC 8628). The other flow repeats the requests of OpenAI's own
program. The functions take a SignIn and a time and return the next SignIn. `calls.oauth_http`
sends the requests, and `harness.providers.registry.sign_in` stores the results.
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
    STANDARD = "standard"  # RFC 8628: token_url also reports the state
    OPENAI = "openai"  # poll_url answers 403 until it has a code for tokens


@dataclass(frozen=True, slots=True)
class OAuthEndpoints:
    """The addresses and fields of one kind's sign-in."""

    flow: OAuthFlow = OAuthFlow.STANDARD
    device_url: str = ""  # issues the codes
    token_url: str = ""  # issues and renews tokens
    poll_url: str = ""  # only OPENAI: reports whether the person has consented
    verification_url: str = ""  # where the person types the code, unless the server gives it
    redirect_uri: str = ""
    # Gives a short-lived token for the account's token. Empty if requests carry the account's
    # token itself.
    exchange_url: str = ""
    scope: str = ""
    client_id: str = ""
    # Headers of each request to these addresses.
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
    """The file's changes for one provider; None keeps the kind's value."""

    client_id: str | None = None  # client id of your application at the vendor
    device_url: str | None = None  # address that issues the codes
    token_url: str | None = None  # address that issues and renews tokens
    # For openai_codex: address that reports whether the person has consented.
    poll_url: str | None = None
    verification_url: str | None = None  # where the person types the code
    redirect_uri: str | None = None  # where the vendor sends the person back
    # Address that exchanges the account's token for a short-lived one.
    exchange_url: str | None = None
    scope: str | None = None  # scope of the requested token
    # Headers of each request to these addresses.
    headers: Mapping[str, str] | None = field(default=None, repr=False)


def oauth_endpoints(
    provider: str,
    kind: str,
    change: OAuthOverrides | None,
) -> OAuthEndpoints:
    """Returns the sign-in addresses. Raises InputError, ConfigError without a client id."""
    endpoints = OAUTH_ENDPOINTS.get(kind)
    if endpoints is None:
        raise InputError(
            f"provider {provider!r} is of kind {kind!r}, which takes a key: "
            f"`swapproof provider key set {provider}`; people sign in for "
            f"{', '.join(OAUTH_ENDPOINTS)}"
        )
    if change is not None:
        values = {item.name: getattr(change, item.name) for item in fields(change)}
        endpoints = replace(
            endpoints,
            **{name: value for name, value in values.items() if value is not None},
        )
    if not endpoints.client_id:
        raise ConfigError(
            f"provider {provider!r} has no client id: register an application with the vendor, "
            f"and set its id as `oauth.{provider}.client_id`"
        )
    return endpoints


def key_command(provider: str, kind: str) -> str:
    """Returns the command with which a person gives a provider its key or signs in."""
    verb = "login" if kind in OAUTH_ENDPOINTS else "set"
    return f"swapproof provider key {verb} {provider}"


def check_kind_takes_key(provider: str, kind: str) -> None:
    """Checks that a kind takes a key, and needs no sign-in. Raises InputError."""
    if kind in OAUTH_ENDPOINTS:
        raise InputError(
            f"provider {provider!r} is of kind {kind!r}, which takes no key: people sign in, "
            f"with `swapproof provider key login {provider}`"
        )


def check_oauth_url(url: str) -> str:
    """Checks an address of tokens: https, or http on this machine. Raises InputError."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise InputError("is not a URL") from None
    if not host or "@" in parts.netloc or parts.scheme not in ("http", "https"):
        raise InputError("does not have the form https://host/path")
    if parts.scheme == "http" and not _is_this_machine(host):
        raise InputError("is http, but tokens go there: use https")
    return url


def _is_this_machine(host: str) -> bool:
    """Tells whether a host is a loopback address or `localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


JWT_PARTS: Final = 3
_SENDABLE: Final = re.compile(r"[\x21-\x7e]{1,200}")


def read_claims(token: str) -> Mapping[str, object]:
    """Reads the claims of a JWT without checking its signature; empty for another token.

    Swapproof reads only an account's id and the token's life; no permission depends on a claim.
    """
    parts = token.split(".")
    if len(parts) != JWT_PARTS:
        return {}
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def headers_from_claims(token: str, headers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns the headers that repeat claims of a token, such as an account's id.

    Args:
        headers: by name, the claim's path.

    The result omits missing claims, and claims that a header cannot carry.
    """
    result = {}
    for name, path in headers.items():
        value: object = read_claims(token)
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, str) and _SENDABLE.fullmatch(value):
            result[name] = value
    return result


def lifetime_s(token: str) -> float | None:
    """Returns the seconds from a token's issue to its expiry; None if it has no such claims."""
    claims = read_claims(token)
    issued_at = claims.get("iat")
    expires_at = claims.get("exp")
    if (
        isinstance(issued_at, int | float)
        and isinstance(expires_at, int | float)
        and expires_at > issued_at
    ):
        return float(expires_at - issued_at)
    return None


DEFAULT_INTERVAL_S: Final = 5.0
SLOW_DOWN_S: Final = 5.0  # added to the interval at each SLOW_DOWN
MIN_INTERVAL_S: Final = 1.0
MAX_INTERVAL_S: Final = 60.0
MAX_WAIT_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A code that a person types at the vendor, to consent to a sign-in.

    secret: Swapproof polls with it. interval_s: shortest pause between two polls.
    """

    secret: str = field(repr=False)
    user_code: str  # the person types it at verification_url
    verification_url: str
    expires_in_s: float
    interval_s: float = DEFAULT_INTERVAL_S


@dataclass(frozen=True, slots=True)
class OAuthTokens:
    """Tokens that a server issued. Times are seconds from the answer."""

    access_token: str = field(repr=False)
    # Empty if the server sends no new token; the previous token then stays valid.
    refresh_token: str = field(default="", repr=False)
    expires_in_s: float | None = None  # None if the server does not send it
    # When the server wants the next renewal, if it sends that.
    refresh_in_s: float | None = None


class PollAnswer(StrEnum):
    """The state of a person's consent, with the protocol's values."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    DENIED = "access_denied"
    EXPIRED = "expired_token"
    UNREACHABLE = "unreachable"


def next_interval_s(last_s: float, answer: PollAnswer) -> float:
    """Returns the pause before the next poll (RFC 8628, section 3.5)."""
    if answer is PollAnswer.SLOW_DOWN:
        return last_s + SLOW_DOWN_S
    if answer is PollAnswer.UNREACHABLE:
        return max(last_s, min(2 * last_s, MAX_INTERVAL_S))
    return last_s


TOKEN_KEY_NAME: Final = "oauth"  # noqa: S105 - the stored key's name
# Swapproof renews a token when this share of its life is left, at most EARLIEST_RENEWAL.
RENEWAL_SHARE: Final = 0.2
EARLIEST_RENEWAL: Final = timedelta(hours=1)
FIRST_PAUSE: Final = timedelta(seconds=2)
MAX_PAUSE: Final = timedelta(minutes=1)
# How long a claim lasts: longer than any server needs for its answer.
CLAIMED_FOR: Final = timedelta(minutes=2)
ADOPTION_TIME: Final = timedelta(seconds=5)
MIN_RENEWAL_INTERVAL: Final = timedelta(minutes=1)
ALERT_ATTEMPTS: Final = 3  # failed attempts before an alert


class Renewal(StrEnum):
    ACCOUNT = "account"  # by its refresh token
    ACCESS = "access"  # by the account's token


@dataclass(frozen=True, slots=True)
class SignInSecrets:
    """The tokens of a sign-in that Swapproof keeps. Requests carry the account's token only if
    the provider has no access tokens.
    """

    account_token: str = field(repr=False)
    # If empty, Swapproof uses the account's token until the provider refuses it.
    refresh_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SignIn:
    """A person's sign-in at a provider, with the times of its renewals. The tokens are
    encrypted.
    """

    provider: str
    id: str  # new for each sign-in
    ciphertext: str = field(repr=False)  # its encrypted SignInSecrets
    signed_in_at: datetime
    signed_in_by: str
    renewed_at: datetime  # when the requests' token last changed
    # When Swapproof renews each token; None for never.
    account_due: datetime | None = None
    access_due: datetime | None = None
    # When the token that requests carry expires; None if unknown.
    access_ends: datetime | None = None
    attempts: int = 0  # failed attempts since the last success
    retry_at: datetime | None = None  # earliest time of the next attempt
    refused: str = ""  # the server's refusal; empty while it renews


def claim_renewal(sign_in: SignIn, now: datetime) -> SignIn:
    """Marks a renewal as begun, so that no other process renews: a refresh token may be valid
    only once.
    """
    return replace(sign_in, retry_at=now + CLAIMED_FOR)


def renewal_due_at(tokens: OAuthTokens, now: datetime) -> datetime | None:
    """Returns when to request the next token; None for a token that does not expire."""
    if tokens.expires_in_s is None:
        return None
    life = timedelta(seconds=max(tokens.expires_in_s, 0.0))
    latest = life - min(life * RENEWAL_SHARE, EARLIEST_RENEWAL)
    if tokens.refresh_in_s is not None:
        latest = min(latest, timedelta(seconds=max(tokens.refresh_in_s, 0.0)))
    return now + latest


def due_renewal(sign_in: SignIn, now: datetime) -> Renewal | None:
    """Returns the token to renew now; None if no token is due.

    The account's token comes first, because Swapproof exchanges it for the access token. A
    refused sign-in is never due: a person must sign in again.
    """
    if sign_in.refused or (sign_in.retry_at is not None and now < sign_in.retry_at):
        return None
    if sign_in.account_due is not None and sign_in.account_due <= now:
        return Renewal.ACCOUNT
    if sign_in.access_due is not None and sign_in.access_due <= now:
        return Renewal.ACCESS
    return None


def apply_account_tokens(
    sign_in: SignIn,
    tokens: OAuthTokens,
    now: datetime,
    *,
    exchanged: bool,
) -> SignIn:
    """Applies a new account token.

    Args:
        exchanged: whether requests carry access tokens, which Swapproof gets for the account
            token. The next access token is then due at once.
    """
    renewable = bool(tokens.refresh_token) or sign_in.account_due is not None
    return replace(
        sign_in,
        account_due=renewal_due_at(tokens, now) if renewable else None,
        access_due=now if exchanged else None,
        access_ends=sign_in.access_ends if exchanged else _expires_at(tokens, now),
        renewed_at=sign_in.renewed_at if exchanged else now,
        attempts=0,
        retry_at=None,
    )


def apply_access_tokens(
    sign_in: SignIn,
    tokens: OAuthTokens,
    now: datetime,
) -> SignIn:
    """Applies a new access token, which requests carry from now on."""
    return replace(
        sign_in,
        access_due=renewal_due_at(tokens, now),
        access_ends=_expires_at(tokens, now),
        renewed_at=now,
        attempts=0,
        retry_at=None,
    )


def renew_sooner(
    sign_in: SignIn,
    refused_at: datetime,
    now: datetime,
) -> SignIn:
    """Makes a renewal due after a provider refused the token. Not soon after a renewal, because
    routers may still send the old token.
    """
    if (
        refused_at <= sign_in.renewed_at + ADOPTION_TIME
        or now < sign_in.renewed_at + MIN_RENEWAL_INTERVAL
    ):
        return sign_in
    if sign_in.access_due is not None:
        return replace(sign_in, access_due=min(sign_in.access_due, now))
    if sign_in.account_due is not None:
        return replace(sign_in, account_due=min(sign_in.account_due, now))
    return sign_in


def record_failed_renewal(sign_in: SignIn, now: datetime) -> SignIn:
    """Counts a failed attempt, and doubles the pause before the next, from FIRST_PAUSE to
    MAX_PAUSE.
    """
    pause = min(FIRST_PAUSE * 2 ** min(sign_in.attempts, 10), MAX_PAUSE)
    return replace(sign_in, attempts=sign_in.attempts + 1, retry_at=now + pause)


def record_refusal(sign_in: SignIn, reason: str) -> SignIn:
    """Ends the renewals of a sign-in.

    Args:
        reason: the server's refusal, for people.
    """
    return replace(sign_in, refused=reason or "refused", retry_at=None)


def is_expired(sign_in: SignIn, now: datetime) -> bool:
    """Tells whether the token that requests carry has expired.

    A token without an expiry counts as expired once the server refused the sign-in.
    """
    if sign_in.access_ends is None:
        return bool(sign_in.refused)
    return sign_in.access_ends <= now


def merge_secrets(old: SignInSecrets, tokens: OAuthTokens) -> SignInSecrets:
    """Keeps the old refresh token if the server sends no new one (RFC 6749, section 6)."""
    return SignInSecrets(tokens.access_token, tokens.refresh_token or old.refresh_token)


def _expires_at(tokens: OAuthTokens, now: datetime) -> datetime | None:
    """Returns when a token expires; None if the server does not send it."""
    if tokens.expires_in_s is None:
        return None
    return now + timedelta(seconds=max(tokens.expires_in_s, 0.0))
