import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest

from evals.runner.provider_client import EvalProviderClient, ProviderFailed
from harness.app.alert_sinks import post_to_webhook
from harness.app.configuration import configuration
from harness.app.doctor import provider_requests
from harness.frame import package_data
from harness.frame.alerts.alert import AlertKind, Severity
from harness.frame.alerts.alert_record import AlertMessage, Notified
from harness.frame.errors import ConfigError, DeliveryFailed, InputError
from harness.frame.failures import FailureClass
from harness.frame.people.access import SYSTEM
from harness.frame.runtime.clock import SystemClock
from harness.providers.calls.guarded_http import (
    ClosedAddress,
    GuardedHttpClient,
)
from harness.providers.calls.probe import HttpProviderProbe
from harness.providers.credential import ProviderKey
from harness.providers.records import Providers
from harness.providers.registry import targets
from harness.providers.target import Provider, Target
from harness.routing.settings import RouterSettings
from router.frame.failure import UpstreamFailed
from router.upstream.pool import UpstreamPool
from router.upstream.transport import UpstreamRequest
from router.upstream.transports import ProviderClient, Transports
from tests.support.control.bare_installation import BareInstallation
from tests.support.providers.scripted_chat import Response, Served, serving
from tests.support.providers.scripted_upstream import (
    broken_stream,
    event,
    running_upstream,
)
from tests.support.router.live_router import KEY as CLIENT_KEY
from tests.support.router.live_router import (
    UPSTREAM_KEY,
    provider,
    running_router,
    snapshot,
)

SECRET = "sk-of-ours-0123456789abcdef"  # noqa: S105 - made up
KEY = ProviderKey("UP_KEY", SECRET)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def up(served: Served, kind: str = "openai") -> Provider:
    return Provider("up", kind, served.url, "UP_KEY")


def by_transport(make: Callable[[RouterSettings], Any], kind: str = "openai") -> Any:
    async def sent(served: Served) -> None:
        made = make(RouterSettings())
        asked = up(served, kind)
        if isinstance(made, Transports):
            made.prepare([kind])
        way = made(asked) if isinstance(made, Transports) else made
        try:
            reply = await way.send(
                UpstreamRequest(
                    asked,
                    json.dumps(CHAT).encode(),
                    stream=False,
                    key=KEY,
                )
            )
            try:
                await reply.body()
            finally:
                await reply.aclose()
        except UpstreamFailed:
            pass
        finally:
            await made.aclose()

    return lambda served: asyncio.run(sent(served))


def by_eval(served: Served) -> None:
    async def call_provider() -> None:
        client = EvalProviderClient(
            up(served),
            SECRET,
            calls=ProviderClient,
            connections=1,
            first_pause_s=0.001,
        )
        try:
            await client.ask(CHAT)
        finally:
            await client.close()

    with suppress(ProviderFailed):
        asyncio.run(call_provider())


def by_doctor(served: Served) -> None:
    provider_requests.probe_target(up(served), Target("up", "m"), key=KEY)


def by_check(served: Served) -> None:
    HttpProviderProbe(SystemClock()).ask(up(served), SECRET, "/chat/completions", CHAT, 5.0)


def by_webhook(served: Served) -> None:
    now = SystemClock().now()
    message = AlertMessage(
        id="al_1.1",
        alert="al_1",
        kind=AlertKind.BREAKER_OPEN,
        severity=Severity.WARNING,
        state=Notified.RAISED,
        subject="s",
        title="t",
        text="x",
        next_step="",
        first_seen=now,
        last_seen=now,
        count=1,
    )
    with suppress(DeliveryFailed):
        post_to_webhook(f"{served.url}/hook", b"secret", message, timeout_s=60.0)


CALLERS = {
    "pool": by_transport(UpstreamPool),
    "anthropic, translated": by_transport(Transports, "anthropic"),
    "gemini, translated": by_transport(Transports, "gemini"),
    "azure": by_transport(Transports, "azure_openai"),
    "eval": by_eval,
    "doctor": by_doctor,
    "check": by_check,
    "webhook": by_webhook,
}


@pytest.mark.req("D1", "D4")
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nobody_follows_a_redirect_with_a_key_or_a_question(caller: str, status: int) -> None:
    with serving(lambda _: Response("mine now")) as other:
        moved = Response(
            status=status,
            raw=b"",
            headers={"location": f"{other.url}/there"},
        )
        with serving(lambda _: moved) as served:
            CALLERS[caller](served)

    assert served.requests
    assert other.requests == []


@pytest.mark.req("D1", "D4")
@pytest.mark.parametrize("caller", CALLERS)
def test_nobody_asks_a_proxy_that_the_environment_names(
    caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda _: Response("I read it all")) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
            monkeypatch.setenv(name.upper(), proxy.url.removesuffix("/v1"))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with serving(lambda _: Response("ready")) as served:
            CALLERS[caller](served)

    assert served.requests
    assert proxy.requests == []


@pytest.mark.req("D1", "D4")
@pytest.mark.parametrize("padding", [0, 150, 166, 175])
def test_half_a_key_at_the_end_of_a_long_refusal_is_hidden_too(padding: int) -> None:
    said = {"error": {"message": f"{'x' * padding} your key is {SECRET}"}}
    refused = Response(status=400, raw=json.dumps(said).encode())
    with serving(lambda _: refused) as served:
        by_hand = provider_requests.probe_target(up(served), Target("up", "m"), key=KEY).error
        door = HttpProviderProbe(SystemClock())
        checked = door.ask(up(served), SECRET, "/chat/completions", CHAT, 5.0).error

    for shown in (by_hand, checked):
        assert shown.startswith("400: ")
        assert SECRET[:8] not in shown


HEADER = "team-secret-0123456789"
WORDS = f"bad key {UPSTREAM_KEY} of {HEADER}"
REFUSAL = b"data: " + json.dumps({"error": {"message": WORDS, "code": "x"}}).encode() + b"\n\n"
STREAMS = {
    "before its first output": broken_stream(REFUSAL),
    "after its first output": broken_stream(event({"content": "a"}), REFUSAL),
    "no JSON": broken_stream(event({"content": "a"}), f"data: {WORDS}\n\n".encode()),
    "an event that never ends": broken_stream(
        event({"content": "a"}), f'data: {{"error": "{WORDS}'.encode()
    ),
}


@pytest.mark.req("D1", "D4")
@pytest.mark.parametrize("how", STREAMS)
def test_a_stream_that_breaks_with_our_key_in_its_words_shows_it_to_nobody(
    how: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running_upstream() as upstream:
        upstream.turns["m-incumbent"] = STREAMS[how]
        ours = provider(upstream.url, extra_headers={"x-team": HEADER})
        first = snapshot(upstream.url, providers=[ours])
        with running_router(first, tmp_path) as world:
            answer = httpx.post(
                f"{world.url}/v1/chat/completions",
                headers={"authorization": f"Bearer {CLIENT_KEY}"},
                json={
                    **CHAT,
                    "model": "support",
                    "stream": True,
                },
                timeout=60,
            )

    shown = answer.text + str(answer.headers) + caplog.text
    assert "error" in answer.text
    assert UPSTREAM_KEY not in shown
    assert HEADER not in shown


HEAD = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def dripping(first: bytes, drop: bytes) -> Iterator[str]:
    """A server that sends `first`, then `drop` again and again until its client has gone."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                peer, _ = server.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(first)
                    while not over.wait(0.02):
                        peer.sendall(drop)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/x"
        finally:
            over.set()
            thread.join()


@pytest.mark.req("D1", "D4")
@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (HEAD, b"x: y\r\n"),
        (HEAD + b"content-length: 100000\r\n\r\n", b"."),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n.\r\n"),
    ],
)
def test_a_server_that_drips_is_waited_for_no_longer_than_in_all(
    first: bytes, drop: bytes
) -> None:
    with (
        dripping(first, drop) as url,
        pytest.raises(TimeoutError),
        GuardedHttpClient().send(url, {}, timeout_s=0.5) as answer,
    ):
        answer.read(1_000_000)


@pytest.mark.req("D1", "D4")
def test_a_name_that_leads_to_a_closed_address_is_sent_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = GuardedHttpClient()
    with serving(lambda _: Response("mine now")) as served:
        monkeypatch.setattr(
            "harness.providers.calls.guarded_http.may_connect",
            lambda *_: False,
        )
        with (
            pytest.raises(ClosedAddress),
            client.send(served.url, {"x-key": "secret"}, b"{}", timeout_s=5.0),
        ):
            pass

    assert served.requests == []


METADATA = "169.254.169.254"
CLOSED = f"http://{METADATA}/v1"
NAMED = "http://innocent.test/v1"


def provider_at(base: str) -> Provider:
    return Provider("up", "openai", base, "UP_KEY")


@pytest.fixture
def leads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """innocent.test leads to the metadata service."""
    real = socket.getaddrinfo

    def resolve_host(
        host: Any,
        *args: Any,
        **more: Any,
    ) -> Any:
        return real(METADATA if host == "innocent.test" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_host)


@pytest.mark.req("D1")
def test_the_file_names_the_line_of_a_closed_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"yaml:2: providers.p.api_base: .*allow_addresses"):
        loaded(tmp_path, f"providers:\n  p: {{api_base: '{CLOSED}'}}\n")


@pytest.mark.req("D1")
def test_the_file_can_allow_an_address_by_name(tmp_path: Path) -> None:
    text = f"""
router: {{allow_addresses: ['{METADATA}']}}
providers: {{p: {{api_base: '{CLOSED}'}}}}
"""
    assert loaded(tmp_path, text).providers["p"].api_base == CLOSED
    with pytest.raises(ConfigError, match=r"router.allow_addresses.0: 'a b' is not a host"):
        loaded(tmp_path, "router: {allow_addresses: ['a b']}\n")


def loaded(folder: Path, text: str) -> Any:
    file = folder / "swapproof.yaml"
    file.write_text(text, encoding="utf-8")
    return configuration.load_settings(
        file, {}, defaults=package_data.path("config/default.yaml")
    )


@pytest.mark.req("D1")
def test_no_provider_is_stored_with_a_closed_address(world: BareInstallation) -> None:
    with pytest.raises(InputError, match="allow_addresses"):
        targets.put_provider(world.context(), SYSTEM, provider_at(CLOSED))
    with world.store.read() as tx:
        assert "up" not in Providers(tx).all()


@pytest.mark.req("D1")
@pytest.mark.parametrize("base", [CLOSED, NAMED])
@pytest.mark.usefixtures("leads_there")
async def test_the_router_does_not_connect_to_a_closed_address(base: str) -> None:
    pool = UpstreamPool(RouterSettings())
    try:
        with pytest.raises(UpstreamFailed, match="does not call") as failed:
            await pool.send(UpstreamRequest(provider_at(base), b"{}", stream=False))
    finally:
        await pool.aclose()
    assert failed.value.failure is FailureClass.CONNECT


@pytest.mark.req("D1")
@pytest.mark.parametrize("base", [CLOSED, NAMED])
@pytest.mark.usefixtures("leads_there")
def test_an_eval_does_not_ask_a_closed_address(base: str) -> None:
    async def call_provider() -> None:
        client = EvalProviderClient(
            provider_at(base),
            "k",
            calls=ProviderClient,
            connections=1,
            first_pause_s=0.001,
        )
        try:
            await client.ask({"messages": []})
        finally:
            await client.close()

    with pytest.raises(ProviderFailed, match=r"closed|calls no|does not call"):
        asyncio.run(call_provider())


@pytest.mark.req("D1")
def test_doctor_hangs_up_where_a_name_leads_to_a_closed_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loopback = (ip_network("127.0.0.0/8"), ip_network("::1"))
    monkeypatch.setattr("harness.providers.api_base_rules.CLOSED_NETWORKS", loopback)
    with serving(lambda _: Response("ready")) as served:
        named = served.url.replace("127.0.0.1", "localhost")
        target = Target("up", "m")
        refused = provider_requests.probe_target(provider_at(named), target)
        assert not served.requests
        answered = provider_requests.probe_target(
            provider_at(named), target, allowed=["localhost"]
        )
    assert refused.error.endswith(
        "its name resolves to an address that Swapproof does not call"
    )
    assert answered.ok
