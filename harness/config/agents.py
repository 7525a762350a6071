"""The file's `agents` section is checked: where the router passes requests through to, who may
go without a key, the tool servers, and the floors of `auto`.
"""

import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import SplitResult, urlsplit

from harness.config.source_locations import KeyPath
from harness.domain.agents.caller import listens_on_loopback
from harness.domain.errors import InputError
from harness.domain.providers.api_base_rules import is_internal_host
from harness.domain.providers.headers import check_headers
from harness.domain.settings import AgentSettings, RouterSettings, ToolServer, http_url

_SERVER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SERVER_NAME_FAULT: Final = (
    "a tool server's name is lower-case letters, digits, '-' and '_': its tools are named "
    "SERVER.TOOL"
)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of this installation: its secret and its keys are no tool's business.
_OUR_VARIABLES: Final = "SWAPGATE_"
_INTERNAL: Final = "the address is link-local, or a cloud's metadata service"

Fault = tuple[KeyPath, str]


def agent_faults(
    agents: AgentSettings, router: RouterSettings, suites: Collection[str]
) -> Iterator[Fault]:
    """Path below `agents` and message of what makes no sense, in the file's order."""
    for name in ("url", "router_url", "control_url", "public_url"):
        if url := getattr(agents, name):
            yield from _address_faults((name,), url)
    yield from _loop_faults(agents, router)
    yield from _loopback_faults(agents, router.host)
    for name, server in agents.tool_servers.items():
        path = ("tool_servers", name)
        if not _SERVER_NAME.fullmatch(name):
            yield path, _SERVER_NAME_FAULT
        yield from _server_faults(path, server)
    for route, floor in agents.floors.items():
        if floor.suite not in suites:
            known = ", ".join(sorted(suites)) or "none"
            fault = f"there is no suite {floor.suite!r}; there are {known} (`suites:`)"
            yield ("floors", route, "suite"), fault


def _split_url(url: str) -> SplitResult | None:
    """The parts of an http or https URL without a user; None for any other text."""
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


def _address_faults(path: KeyPath, url: str) -> Iterator[Fault]:
    """Of an address of ours, which has no path: the client's is added to it."""
    parts = _split_url(url)
    if parts is None or parts.path not in ("", "/") or parts.query or parts.fragment:
        yield path, "is no address such as http://127.0.0.1:8085, without a path"
    elif is_internal_host(parts.hostname or ""):
        yield path, _INTERNAL


def _loop_faults(agents: AgentSettings, router: RouterSettings) -> Iterator[Fault]:
    """A router that passes requests through to itself does so until it is full."""
    own = http_url(router.host, router.port)
    if router.port and agents.pass_through_url.rstrip("/") == own:
        setting = "port" if agents.url is None else "url"
        yield (setting,), f"is the router's own address, {own}; give the agents process another"


def _loopback_faults(agents: AgentSettings, router_host: str) -> Iterator[Fault]:
    """Without keys, the connection decides who has access: both of its hops are on loopback."""
    if not agents.open_on_loopback:
        return
    for setting, host in (("router.host", router_host), ("agents.host", agents.host)):
        if not listens_on_loopback(host):
            fault = (
                f"needs {setting} on loopback, such as 127.0.0.1, and it is {host!r}: who "
                "reaches it from elsewhere would need no key. Leave it false, and give clients "
                "keys"
            )
            yield ("open_on_loopback",), fault


def _server_faults(path: KeyPath, server: ToolServer) -> Iterator[Fault]:
    parts = _split_url(server.url)
    if parts is None:
        yield (*path, "url"), "is an http or https URL, without a user"
    elif is_internal_host(parts.hostname or ""):
        yield (*path, "url"), _INTERNAL
    for header, variable in server.header_envs.items():
        place = (*path, "header_envs", header)
        if not _VARIABLE.fullmatch(variable):
            yield (
                place,
                "is the name of an environment variable; a value never stands in this file",
            )
        elif variable.upper().startswith(_OUR_VARIABLES):
            yield place, f"{variable!r} is Swapgate's own, which no tool server may have"
    try:
        check_headers(dict.fromkeys(server.header_envs, ""))
    except InputError as error:
        yield (*path, "header_envs"), str(error)
