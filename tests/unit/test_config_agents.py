"""The `agents` section: its defaults, and what is refused with file, line and field."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.app.configuration.configuration import load_settings
from harness.app.configuration.model import Settings
from harness.frame.errors import ConfigError
from harness.routing.settings import AgentSettings

pytestmark = pytest.mark.req("E1", "E2", "E3")

EVERYWHERE = "0.0.0.0"  # noqa: S104 - not bound
DEFAULTS = Path(__file__).parents[2] / "config" / "default.yaml"


def loaded(
    folder: Path,
    content: dict[str, Any],
    environ: dict[str, str] | None = None,
) -> Settings:
    file = folder / "swapproof.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return load_settings(file, environ or {}, defaults=DEFAULTS)


def refusal(
    folder: Path,
    agents: dict[str, Any],
    **others: Any,
) -> str:
    with pytest.raises(ConfigError) as error:
        loaded(folder, {"agents": agents, **others})
    return str(error.value).removeprefix(f"{folder}/")


def test_without_a_section_agents_are_served_on_loopback_and_want_keys(tmp_path: Path) -> None:
    agents = loaded(tmp_path, {}).agents

    assert agents == AgentSettings()
    assert agents.enabled
    assert not agents.open_on_loopback
    assert agents.pass_through_url == "http://127.0.0.1:8085"  # noqa: S105 - no password


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"port": 9085}, "http://127.0.0.1:9085"),
        ({"host": "::1"}, "http://[::1]:8085"),
        ({"host": EVERYWHERE}, "http://127.0.0.1:8085"),
        ({"host": "::"}, "http://[::1]:8085"),
        ({"enabled": False}, ""),
        (
            {"enabled": False, "url": "http://agents.internal:8085"},
            "http://agents.internal:8085",
        ),
        ({"url": ""}, ""),
        ({"port": 0}, ""),
    ],
)
def test_requests_are_passed_through_to_the_url_or_else_to_this_files_process(
    tmp_path: Path,
    given: dict[str, Any],
    url: str,
) -> None:
    assert loaded(tmp_path, {"agents": given}).agents.pass_through_url == url


@pytest.mark.parametrize("setting", ["router", "agents"])
@pytest.mark.parametrize("host", [EVERYWHERE, "::", "10.1.2.3", "gateway.internal", ""])
def test_nobody_goes_without_a_key_where_others_can_reach_the_port(
    tmp_path: Path,
    setting: str,
    host: str,
) -> None:
    agents: dict[str, Any] = {"open_on_loopback": True, "host": "127.0.0.1"}
    hosts: dict[str, dict[str, Any]] = {
        "router": {"host": "127.0.0.1"},
        "agents": agents,
    }
    hosts[setting]["host"] = host

    said = refusal(tmp_path, agents, router=hosts["router"])

    assert said.startswith("swapproof.yaml:2: agents.open_on_loopback: needs ")
    assert f"needs {setting}.host on loopback" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_a_loopback_host_may_be_open(tmp_path: Path, host: str) -> None:
    open_ = {
        "router": {"host": host},
        "agents": {"host": host, "open_on_loopback": True},
    }
    assert loaded(tmp_path, open_).agents.open_on_loopback


NO_ADDRESSES = (
    "127.0.0.1:8085",
    "ftp://agents",
    "http://",
    "http://user:secret@agents:8085",
    "http://agents:8085/agents",
    "http://agents:8085?x=1",
    "http://agents:8085#x",
    "http://agents:0",
    "http://agents:99999",
    "http://agents :8085",
    "http://agents\r\nx:8085",
    "http://[::1:8085",
)


@pytest.mark.parametrize("name", ["url", "router_url", "control_url", "public_url"])
def test_an_address_that_is_none_is_refused_without_repeating_it(
    tmp_path: Path, name: str
) -> None:
    for url in NO_ADDRESSES:
        assert refusal(tmp_path, {name: url}) == (
            f"swapproof.yaml:2: agents.{name}: must be an address such as "
            "http://127.0.0.1:8085, "
            "without a path"
        )


OWN = "is the router's own address, http://127.0.0.1:8080"


def servers(url: str = "http://a", **header_envs: str) -> dict[str, Any]:
    server = {"url": url, "header_envs": header_envs} if header_envs else {"url": url}
    return {"tool_servers": {"files": server}}


HEADERS = "tool_servers.files.header_envs"
URL = "tool_servers.files.url"
CONTROL = {"url": "http://control:9", "control_url": "http://control:9/"}


@pytest.mark.parametrize(
    ("agents", "place", "words"),
    [
        ({"port": 8080}, "port", OWN),
        ({"host": "localhost", "url": "http://127.0.0.1:8080/"}, "url", OWN),
        ({"enabled": False, "url": "http://127.0.0.1:8080"}, "url", OWN),
        (
            {"url": "http://127.0.0.1:8081"},
            "url",
            "is the control plane's address",
        ),
        (CONTROL, "url", "is `agents.control_url`"),
        ({"control_url": "http://127.0.0.1:8080/"}, "control_url", OWN),
        (
            {"control_url": "http://127.0.0.1:8085"},
            "control_url",
            "is the agents process's own address, http://127.0.0.1:8085",
        ),
        ({"url": "http://169.254.169.254"}, "url", "metadata service"),
        (servers("http://[fe80::1]/mcp"), URL, "metadata service"),
        ({"tool_servers": {"files": {}}}, URL, "is missing"),
        (servers("stdio://a"), URL, "must be an http or https URL"),
        (servers("http://u:p@a/mcp"), URL, "without a user"),
        (
            servers(authorization="Bearer a"),
            f"{HEADERS}.authorization",
            "this file holds no secret values",
        ),
        (
            servers(x="Swapproof_Secret"),
            f"{HEADERS}.x",
            "which no tool server gets",
        ),
        (servers(**{"content-length": "X"}), HEADERS, ""),
        *(
            (
                {"tool_servers": {name: {"url": "http://a"}}},
                "tool_servers",
                "SERVER.TOOL",
            )
            for name in ("", "a.b", "A", "-a", "a b", "x" * 65, "sökning")
        ),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(
    tmp_path: Path,
    agents: dict[str, Any],
    place: str,
    words: str,
) -> None:
    said = refusal(tmp_path, agents)
    assert f": agents.{place}" in said
    assert words in said


def test_a_floor_needs_a_suite_that_there_is(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"floors": {"support": {"floor": 0.9, "suite": "ticket"}}})
    assert said.startswith("swapproof.yaml:5: agents.floors.support.suite: there is no suite")
    assert "tickets" in said
