"""The file's alert sinks are checked: one of an apprise URL, its variable or a signed webhook,
and no internal address.

The file's `capture` section becomes redaction rules: the user's own, and built-in ones left
out.

The file's `ui.oidc` section is checked: addresses, the roles by group, and the variable of
the client's secret.

The file's `freezes` section: times of the week in which routes are frozen.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from harness.config.source_locations import Document, KeyPath
from harness.domain.agents.caller import listens_on_loopback
from harness.domain.errors import InputError
from harness.domain.operations.access import Role
from harness.domain.privacy.capture import CaptureSettings
from harness.domain.privacy.redaction import RedactionRule, Redactor
from harness.domain.providers.api_base_rules import is_internal_host
from harness.domain.routing.freeze import FreezeWindow, build_window
from harness.domain.settings import AlertSink, OidcSettings
from harness.domain.suggestions import did_you_mean

ONE_OF: Final = ("url", "url_env", "webhook")


def name_sink(number: int, sink: AlertSink) -> AlertSink:
    """Checks one sink and names it. number: its place in the list. Raises InputError, which
    shows no URL.
    """
    if len([name for name in ONE_OF if getattr(sink, name)]) != 1:
        raise InputError("give one of `url`, `url_env` and `webhook`")
    url = sink.url or sink.webhook
    scheme = urlsplit(url).scheme.lower() if url else ""
    if sink.webhook:
        if scheme not in ("http", "https"):
            raise InputError("`webhook` is an http or https URL")
        if not sink.secret_env:
            raise InputError("a webhook needs `secret_env`: it is signed with that secret")
    elif sink.secret_env:
        raise InputError("`secret_env` belongs to a webhook")
    if url and not scheme:
        raise InputError("`url` is no URL of apprise, such as slack://… or mailto://…")
    if url and is_internal_host(urlsplit(url).hostname or ""):
        raise InputError("the address is link-local, or a cloud's metadata service")
    kind = "webhook" if sink.webhook else scheme or "sink"
    return replace(sink, name=sink.name or f"{kind}-{number}")


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class RedactionEntry(BaseModel):
    model_config = _STRICT
    name: str = Field(description="lower case; the placeholder is [NAME_1]")
    pattern: str = Field(description="a regular expression of Python")
    replacement: str = Field("", description="instead of the placeholder")


class CaptureEntry(BaseModel):
    """Redaction: the user's rules, and which of ours are left out."""

    model_config = _STRICT
    redact: list[RedactionEntry] = []  # rules of your own: a name, a pattern, what replaces it
    keep: list[str] = Field([], description="built-in rules that are not used, such as phone")


def capture_settings(entry: CaptureEntry, document: Document) -> CaptureSettings:
    """Builds the settings of captures from the file's entry. Raises ConfigError with the place
    of what makes no sense.
    """
    rules: list[RedactionRule] = []
    for number, own in enumerate(entry.redact):
        with document.at("capture", "redact", number):
            rules.append(RedactionRule(own.name, own.pattern, own.replacement))
    with document.at("capture"):
        Redactor(tuple(rules), tuple(entry.keep))
    return CaptureSettings(tuple(rules), tuple(entry.keep))


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
        yield ("scope",), "lacks `openid`: without it the server names no user"
    if not oidc.roles:
        yield ("roles",), "names no group: a user signs in by a group"
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


class FreezeEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    starts: str = Field(alias="from", description="day and time when it begins: `Fri 16:00`")
    ends: str = Field(alias="until", description="day and time when it ends: `Mon 08:00`")
    time_zone: str = "UTC"  # whose clock that is: `Europe/Berlin`; summer time is kept
    reason: str = Field(description="why; shown to everybody who waits for it")
    routes: list[str] = Field([], description="which routes; empty for all")


def freeze_window(entry: FreezeEntry) -> FreezeWindow:
    """Builds the window of an entry. Raises InputError for what makes no sense."""
    return build_window(entry.starts, entry.ends, entry.time_zone, entry.reason, entry.routes)
