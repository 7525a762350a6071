"""The file's `ui.oidc` section is checked: addresses, the roles by group, and the variable of
the client's secret.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from harness.config.source_locations import KeyPath
from harness.domain.agents.caller import listens_on_loopback
from harness.domain.operations.access import Role
from harness.domain.settings import OidcSettings
from harness.domain.suggestions import did_you_mean

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ROLES: Final = [role.name.lower() for role in Role]
_ADDRESS: Final = "is no address such as https://login.example.com; only loopback goes by http"


def oidc_faults(oidc: OidcSettings) -> Iterator[tuple[KeyPath, str]]:
    """Path below `ui.oidc` and message of what makes no sense, in the file's order."""
    for name in ("issuer", "public_url"):
        if not _is_safe_url(getattr(oidc, name)):
            yield (name,), _ADDRESS
    if urlsplit(oidc.public_url).path not in ("", "/"):
        yield ("public_url",), "has a path; the dashboard is served at `/`"
    if not oidc.client_id.strip():
        yield ("client_id",), "is empty"
    if not _VARIABLE.fullmatch(oidc.client_secret_env):
        yield ("client_secret_env",), "is no name of an environment variable"
    if "openid" not in oidc.scope.split():
        yield ("scope",), "lacks `openid`, without which the server says nobody's name"
    if not oidc.roles:
        yield ("roles",), "names no group, so nobody could sign in"
    for group, role in oidc.roles.items():
        if role not in _ROLES:
            known = ", ".join(_ROLES)
            yield ("roles", group), f"{role!r} is no role{did_you_mean(role, _ROLES)}; {known}"


def _is_safe_url(text: str) -> bool:
    """An address over TLS, or on loopback, without a user, a query or a fragment."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or port == 0 or "@" in parts.netloc or parts.query or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and listens_on_loopback(host))
