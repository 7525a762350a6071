"""This table holds the OAuth endpoints where people sign in, by kind of provider. GitHub
documents its device flow; the others are what the vendors' own programs do
(docs/how-to/credentials.md). The client id is the operator's own. The claims of a JWT are read
without checking its signature: the provider checks its own. Pure.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from harness.domain.errors import ConfigError, InputError


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
