"""Checks the sections `alerts`, `ui.oidc` and `agents`; builds the settings of `capture` and
`freezes`.

The functions are pure. They yield or raise faults without a place, and `configuration` adds
file and line. They check rules between keys; `schema` checks types and single keys.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from harness.app.configuration.model import ControlSettings
from harness.frame.alerts.alert_record import AlertSink
from harness.frame.configuration.source_locations import Document, KeyPath
from harness.frame.errors import InputError
from harness.frame.people.access import Role, listens_on_loopback
from harness.frame.redaction import RedactionRule, Redactor
from harness.frame.suggestions import did_you_mean
from harness.providers.api_base_rules import is_internal_host
from harness.providers.calls.guarded_http import check_headers
from harness.routing.capture import CaptureSettings
from harness.routing.freeze import FreezeWindow, build_window
from harness.routing.settings import (
    AgentSettings,
    OidcSettings,
    RouterSettings,
    ToolServer,
    http_url,
)

ADDRESS_FIELDS: Final = ("url", "url_env", "webhook")
_INTERNAL_FAULT: Final = "must not be a link-local address or a cloud's metadata service"


def name_sink(number: int, sink: AlertSink) -> AlertSink:
    """Checks one sink and names it by its number. Raises InputError, which shows no URL."""
    if len([name for name in ADDRESS_FIELDS if getattr(sink, name)]) != 1:
        raise InputError("give one of `url`, `url_env` and `webhook`")
    url = sink.url or sink.webhook
    scheme = urlsplit(url).scheme.lower() if url else ""
    if sink.webhook:
        if scheme not in ("http", "https"):
            raise InputError("`webhook` must be an http or https URL")
        if not sink.secret_env:
            raise InputError(
                "a webhook needs `secret_env`: Swapproof signs its messages with that secret"
            )
    elif sink.secret_env:
        raise InputError("only a webhook can have `secret_env`")
    if url and not scheme:
        raise InputError("`url` must be an apprise URL, such as slack://… or mailto://…")
    if url and is_internal_host(urlsplit(url).hostname or ""):
        raise InputError(_INTERNAL_FAULT)
    kind = "webhook" if sink.webhook else scheme or "sink"
    return replace(sink, name=sink.name or f"{kind}-{number}")


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class RedactionEntry(BaseModel):
    model_config = _STRICT
    name: str = Field(description="lower case; the placeholder is [NAME_1]")
    pattern: str = Field(description="a Python regular expression")
    replacement: str = Field("", description="replaces the placeholder")


class CaptureEntry(BaseModel):
    """Redaction rules: your own rules, and built-in rules that you switch off."""

    model_config = _STRICT
    redact: list[RedactionEntry] = []  # your own rules: name, pattern, replacement
    keep: list[str] = Field([], description="kinds that stay unredacted, such as phone")


def build_capture_settings(entry: CaptureEntry, document: Document) -> CaptureSettings:
    """Builds the settings of captures. Raises ConfigError with the place of the fault."""
    rules: list[RedactionRule] = []
    for number, entry_rule in enumerate(entry.redact):
        with document.at("capture", "redact", number):
            rules.append(
                RedactionRule(entry_rule.name, entry_rule.pattern, entry_rule.replacement)
            )
    with document.at("capture"):
        Redactor(tuple(rules), tuple(entry.keep))
    return CaptureSettings(tuple(rules), tuple(entry.keep))


_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ROLES: Final = [role.name.lower() for role in Role]
_ADDRESS_FAULT: Final = (
    "must be an address such as https://login.example.com; http is for loopback addresses only"
)


def find_oidc_faults(oidc: OidcSettings) -> Iterator[tuple[KeyPath, str]]:
    """Yields, in file order, path below `ui.oidc` and message for each invalid setting."""
    for name in ("issuer", "public_url"):
        if not _is_safe_url(getattr(oidc, name)):
            yield (name,), _ADDRESS_FAULT
    if urlsplit(oidc.public_url).path not in ("", "/"):
        yield (
            ("public_url",),
            "must have no path, because the dashboard is served at `/`",
        )
    if not oidc.client_id.strip():
        yield ("client_id",), "is empty"
    if not _VARIABLE.fullmatch(oidc.client_secret_env):
        yield (
            ("client_secret_env",),
            "must be the name of an environment variable",
        )
    if "openid" not in oidc.scope.split():
        yield (
            ("scope",),
            "must include `openid`; without it the server does not name the user",
        )
    if not oidc.roles:
        yield (
            ("roles",),
            "must name a group: a user's group determines the role",
        )
    for group, role in oidc.roles.items():
        if role not in _ROLES:
            roles = ", ".join(_ROLES)
            yield (
                ("roles", group),
                f"{role!r} is not a role{did_you_mean(role, _ROLES)}; {roles}",
            )


def _is_safe_url(text: str) -> bool:
    """Tells whether a URL may carry a sign-in: https, or http on loopback, without query and
    fragment.
    """
    parts = _split_url(text)
    if parts is None or parts.query or parts.fragment:
        return False
    return parts.scheme == "https" or listens_on_loopback(parts.hostname or "")


class FreezeEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    starts: str = Field(alias="from", description="day and time when it begins: `Fri 16:00`")
    ends: str = Field(alias="until", description="day and time when it ends: `Mon 08:00`")
    # Time zone of both times, such as `Europe/Berlin`; daylight saving time applies.
    time_zone: str = "UTC"
    reason: str = Field(description="why; shown to everyone whose swap waits for it")
    routes: list[str] = Field([], description="names of routes; empty for all")


def build_freeze_window(entry: FreezeEntry) -> FreezeWindow:
    """Builds a weekly freeze. Raises InputError for a wrong day, time or zone."""
    return build_window(entry.starts, entry.ends, entry.time_zone, entry.reason, entry.routes)


_SERVER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SERVER_NAME_FAULT: Final = (
    "a tool server's name has lower-case letters, digits, '-' and '_': its tools are named "
    "SERVER.TOOL"
)
# Swapproof's own variables hold secrets and keys, so no tool server may receive them.
_OWN_PREFIX: Final = "SWAPPROOF_"

Fault = tuple[KeyPath, str]


def find_agent_faults(
    agents: AgentSettings,
    router: RouterSettings,
    control: ControlSettings,
    suites: Collection[str],
) -> Iterator[Fault]:
    """Yields, in file order, the path below `agents` and a message for each invalid setting."""
    for name in ("url", "router_url", "control_url", "public_url"):
        if url := getattr(agents, name):
            yield from _find_address_faults((name,), url)
    yield from _find_loops(agents, router, control)
    yield from _find_open_hosts(agents, router.host)
    for name, server in agents.tool_servers.items():
        path = ("tool_servers", name)
        if not _SERVER_NAME.fullmatch(name):
            yield path, _SERVER_NAME_FAULT
        yield from _find_server_faults(path, server)
    for route, floor in agents.floors.items():
        if floor.suite not in suites:
            suite_names = ", ".join(sorted(suites)) or "none"
            fault = f"there is no suite {floor.suite!r}; there are {suite_names} (`suites:`)"
            yield ("floors", route, "suite"), fault


def _split_url(url: str) -> SplitResult | None:
    """Splits an http or https URL; None for another text, and for a URL with a user or
    a space.
    """
    try:
        parts = urlsplit(url)
        is_url = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and "@" not in parts.netloc
            and url.isascii()
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        return None
    return parts if is_url else None


def _find_address_faults(path: KeyPath, url: str) -> Iterator[Fault]:
    """Checks the address of one of our processes. The address must have no path,
    because clients append a path. It must be neither a link-local address nor a
    cloud's metadata service.
    """
    parts = _split_url(url)
    if parts is None or parts.path not in ("", "/") or parts.query or parts.fragment:
        yield (
            path,
            "must be an address such as http://127.0.0.1:8085, without a path",
        )
    elif is_internal_host(parts.hostname or ""):
        yield path, _INTERNAL_FAULT


def _find_loops(
    agents: AgentSettings,
    router: RouterSettings,
    control: ControlSettings,
) -> Iterator[Fault]:
    """Checks that no process forwards requests to itself. A router would forward a
    request to itself until its capacity is used up. The control plane would treat a
    client's request as a request of the agents process.
    """
    pass_through_url = agents.pass_through_url.rstrip("/")
    setting = "port" if agents.url is None else "url"
    own_addresses = {"router's own": http_url(router.host, router.port)} if router.port else {}
    if control.port:
        own_addresses["control plane's"] = http_url(control.host, control.port)
    for owner, address in own_addresses.items():
        if pass_through_url == address:
            fault = (
                f"is the {owner} address, {address}; give the agents process another address"
            )
            yield (setting,), fault
    if agents.url and pass_through_url == agents.control_url.rstrip("/"):
        yield (
            ("url",),
            "is `agents.control_url`; give the agents process another address",
        )
    for process, settings in (
        ("router", router),
        ("agents process", agents),
    ):
        address = http_url(settings.host, settings.port)
        if settings.port and agents.control_url.rstrip("/") == address:
            fault = (
                f"is the {process}'s own address, {address}; give the control plane's address"
            )
            yield ("control_url",), fault


def _find_open_hosts(agents: AgentSettings, router_host: str) -> Iterator[Fault]:
    """Checks that router and agents listen on loopback if clients need no key."""
    if not agents.open_on_loopback:
        return
    for setting, host in (
        ("router.host", router_host),
        ("agents.host", agents.host),
    ):
        if not listens_on_loopback(host):
            fault = (
                f"needs {setting} on loopback, such as 127.0.0.1, and it is {host!r}: clients "
                "on other machines could connect without a key. Leave it false, and give "
                "clients keys"
            )
            yield ("open_on_loopback",), fault


def _find_server_faults(path: KeyPath, server: ToolServer) -> Iterator[Fault]:
    """Checks a tool server's address and headers.

    A header names an environment variable, because the file must not contain secrets.
    Swapproof's own variables are a fault, because a tool server would get their secrets.
    """
    parts = _split_url(server.url)
    if parts is None:
        yield (*path, "url"), "must be an http or https URL, without a user"
    elif is_internal_host(parts.hostname or ""):
        yield (*path, "url"), _INTERNAL_FAULT
    for header, variable in server.header_envs.items():
        place = (*path, "header_envs", header)
        if not _VARIABLE.fullmatch(variable):
            yield (
                place,
                "must name an environment variable; this file holds no secret values",
            )
        elif variable.upper().startswith(_OWN_PREFIX):
            fault = (
                f"{variable!r} is one of Swapproof's own variables, which no tool server gets"
            )
            yield place, fault
    try:
        check_headers(dict.fromkeys(server.header_envs, ""))
    except InputError as error:
        yield (*path, "header_envs"), str(error)
