"""`/check` and the door to providers, over real HTTP."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from evals.sim.server import simulator
from harness.control.context import Context
from harness.control.providers import checks, provider_secrets, registry
from harness.control.routing import targets
from harness.control.routing.targets import ProviderChange
from harness.control.serialize import to_plain
from harness.domain.operations.access import SYSTEM
from harness.domain.providers.probe import ProbeReply, ProbeStatus, ProbeSubject
from harness.domain.routing.target import Provider, Target
from harness.ports import ProviderDoor
from harness.runtime.clock import SystemClock
from harness.runtime.outbound.provider_probe import HttpProviderProbe
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers.scripted_chat import Response, serving
from tests.support.providers.scripted_probe import ScriptedProviderProbe
from tests.support.providers.simulator_thread import serve_in_thread

pytestmark = pytest.mark.req("D5")
SECRET = "sk-of-the-leak-test"  # noqa: S105 - made up


@pytest.fixture(scope="module")
def sim() -> Iterator[str]:
    with serve_in_thread(simulator(time_scale=0.0)) as url:
        yield f"{url}/v1"


def with_door(world: SmallInstallation, door: ProviderDoor) -> Context:
    return replace(world.context(), door=door, environ={"UP_KEY": SECRET})


def test_every_provider_is_asked_and_each_finding_named(
    world: SmallInstallation, sim: str
) -> None:
    ctx = with_door(world, HttpProviderProbe(SystemClock()))
    registry.change_provider(ctx, SYSTEM, "sim", ProviderChange(api_base=sim, reason="it runs"))
    targets.add_target(ctx, SYSTEM, Target("sim", "sim-base"))
    registry.change_provider(
        ctx, SYSTEM, "gone", ProviderChange("custom", "http://127.0.0.1:9/v1")
    )
    registry.change_provider(ctx, SYSTEM, "groq", ProviderChange())

    found = {provider.provider: provider for provider in checks.run_check(ctx).providers}

    assert {e.subject: e.status for e in found["gone"].findings} == {
        ProbeSubject.REACHABLE: ProbeStatus.FAIL
    }
    assert [e.subject for e in found["groq"].findings] == [ProbeSubject.KEY]
    assert "provider key set groq" in found["groq"].findings[0].next_step
    reachable, key, *_ = found["sim"].findings
    assert (reachable.status, key.status) == (ProbeStatus.OK, ProbeStatus.OK)


def test_a_stream_is_followed_to_its_first_content_and_no_further(sim: str) -> None:
    body = {
        "model": "sim-base",
        "messages": [{"role": "user", "content": "ready?"}],
        "stream": True,
    }
    provider = Provider("sim", "sim", sim)
    reply = HttpProviderProbe(SystemClock()).ask(provider, "", "/chat/completions", body, 10.0)
    assert reply.status == 200
    assert reply.first_s is not None
    assert reply.first_s >= reply.seconds
    assert reply.skew_s is None or abs(reply.skew_s) < 30


def test_what_a_provider_repeats_of_our_key_is_shown_to_nobody(
    world: SmallInstallation,
) -> None:
    said = json.dumps({"error": {"message": f"bad key {SECRET}"}}).encode()
    with serving(lambda _: Response(status=400, raw=said)) as served:
        ctx = with_door(world, HttpProviderProbe(SystemClock()))
        change = ProviderChange("openai", served.url, "UP_KEY", {"x-own": "hush-hush-hush"})
        registry.change_provider(ctx, SYSTEM, "up", change)
        targets.add_target(ctx, SYSTEM, Target("up", "m"))
        test = checks.run_check(ctx)
    shown = json.dumps(to_plain(test))
    assert "bad key [hidden]" in shown
    assert SECRET not in shown
    assert "hush" not in shown


def test_a_stored_header_that_cannot_be_sent_is_said_and_not_shown(
    world: SmallInstallation,
) -> None:
    ctx = with_door(world, HttpProviderProbe(SystemClock()))
    up = Provider(
        "up", "openai", "http://127.0.0.1:9/v1", "UP_KEY", {"x-a": f"a\r\nx-b: {SECRET}"}
    )
    with ctx.store.write() as tx:
        tx.providers.put(provider_secrets.encrypt_headers(up, ctx.cipher))
    found = {provider.provider: provider for provider in checks.run_check(ctx).providers}["up"]
    shown = json.dumps(to_plain(found))
    assert (
        "a header of this provider cannot be sent: the value of the extra header 'x-a'" in shown
    )
    assert SECRET not in shown


def test_a_key_that_cannot_be_sent_is_said_and_not_shown() -> None:
    up = Provider("up", "openai", "http://127.0.0.1:9/v1")
    reply = HttpProviderProbe(SystemClock()).ask(up, f"{SECRET}\nx", "/models", None, 5.0)
    assert "the key in 'authorization' is not visible ASCII" in reply.error
    assert SECRET not in reply.error


def test_an_odd_first_line_is_shown_without_what_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            taken, _ = listening.accept()
            with taken:
                taken.recv(65536)
                taken.sendall(f"HTTP/1.1 no {SECRET}\r\n\r\n".encode())

        served = threading.Thread(target=answer)
        served.start()
        up = Provider("up", "openai", f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        reply = HttpProviderProbe(SystemClock()).ask(up, SECRET, "/models", None, 30.0)
        served.join()
    assert reply.status is None
    assert "does not answer" in reply.error
    assert SECRET not in reply.error


def test_looking_again_within_a_minute_asks_nobody(world: SmallInstallation) -> None:
    door = ScriptedProviderProbe(lambda *_: ProbeReply(200, 0.01, b"{}", first_s=0.02))
    ctx = with_door(world, door)
    first = checks.load_last_check(ctx)
    assert first.ok
    asked = list(door.asked)
    assert asked == [("sim", "/models"), ("sim", "/chat/completions")]
    assert checks.load_last_check(world.context()) == first  # another process asks nobody
    assert door.asked == asked
    world.clock.advance(timedelta(minutes=2).total_seconds())
    assert checks.load_last_check(ctx) != first
    assert len(door.asked) == 2 * len(asked)
