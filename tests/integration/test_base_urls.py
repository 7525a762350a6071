import asyncio
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from evals.runner.provider_client import EvalProviderClient, ProviderFailed
from harness import config, package_data
from harness.app.doctor import provider_requests
from harness.control.routing import targets
from harness.domain.errors import ConfigError, InputError
from harness.domain.operations.access import SYSTEM
from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.target import Provider, Target
from harness.domain.settings import RouterSettings
from router.frame.failure import UpstreamFailed
from router.upstream.pool import UpstreamPool
from router.upstream.provider_client import ProviderClient
from router.upstream.transport import UpstreamRequest
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers.scripted_chat import Response, serving

pytestmark = pytest.mark.req("D1")
METADATA = "169.254.169.254"
CLOSED = f"http://{METADATA}/v1"
NAMED = "http://innocent.test/v1"


def provider(base: str) -> Provider:
    return Provider("up", "openai", base, "UP_KEY")


@pytest.fixture
def leads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """innocent.test leads to the metadata service."""
    real = socket.getaddrinfo

    def resolve_host(host: Any, *args: Any, **more: Any) -> Any:
        return real(METADATA if host == "innocent.test" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_host)


def test_the_file_names_the_line_of_a_closed_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"yaml:2: providers.p.api_base: .*allow_addresses"):
        loaded(tmp_path, f"providers:\n  p: {{api_base: '{CLOSED}'}}\n")


def test_the_file_can_allow_an_address_by_name(tmp_path: Path) -> None:
    text = f"""
router: {{allow_addresses: ['{METADATA}']}}
providers: {{p: {{api_base: '{CLOSED}'}}}}
"""
    assert loaded(tmp_path, text).providers["p"].api_base == CLOSED
    with pytest.raises(ConfigError, match=r"router.allow_addresses.0: 'a b' is no host"):
        loaded(tmp_path, "router: {allow_addresses: ['a b']}\n")


def loaded(folder: Path, text: str) -> Any:
    file = folder / "swapgate.yaml"
    file.write_text(text, encoding="utf-8")
    return config.load_settings(file, {}, defaults=package_data.path("config/default.yaml"))


def test_no_provider_is_stored_with_a_closed_address(world: SmallInstallation) -> None:
    with pytest.raises(InputError, match="allow_addresses"):
        targets.put_provider(world.context(), SYSTEM, provider(CLOSED))
    with world.store.read() as tx:
        assert "up" not in tx.providers.all()


@pytest.mark.parametrize("base", [CLOSED, NAMED])
@pytest.mark.usefixtures("leads_there")
async def test_the_router_does_not_connect_to_a_closed_address(base: str) -> None:
    pool = UpstreamPool(RouterSettings())
    try:
        with pytest.raises(UpstreamFailed, match="closed address") as failed:
            await pool.send(UpstreamRequest(provider(base), b"{}", stream=False))
    finally:
        await pool.aclose()
    assert failed.value.failure is FailureClass.CONNECT


@pytest.mark.parametrize("base", [CLOSED, NAMED])
@pytest.mark.usefixtures("leads_there")
def test_an_eval_does_not_ask_a_closed_address(base: str) -> None:
    async def call_provider() -> None:
        client = EvalProviderClient(
            provider(base), "k", calls=ProviderClient, connections=1, first_pause_s=0.001
        )
        try:
            await client.ask({"messages": []})
        finally:
            await client.close()

    with pytest.raises(ProviderFailed, match="closed"):
        asyncio.run(call_provider())


def test_doctor_hangs_up_where_a_name_leads_to_a_closed_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loopback = (ip_network("127.0.0.0/8"), ip_network("::1"))
    monkeypatch.setattr("harness.domain.providers.api_base_rules.CLOSED_NETWORKS", loopback)
    with serving(lambda _: Response("ready")) as served:
        named = served.url.replace("127.0.0.1", "localhost")
        target = Target("up", "m")
        refused = provider_requests.chat(provider(named), target)
        assert not served.requests
        answered = provider_requests.chat(provider(named), target, allowed=["localhost"])
    assert refused.error.endswith("its name leads to a closed address")
    assert answered.ok
