import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from evals.sim.server import simulator
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind, Severity
from harness.frame.alerts.alerts import AlertView
from harness.frame.people.access import SYSTEM
from harness.frame.plain_data import to_shown
from harness.frame.runtime.clock import SystemClock
from harness.frame.runtime.encryption import FernetCipher, new_key
from harness.operations import queries
from harness.operations.context import Context
from harness.providers.calls.probe import (
    HttpProviderProbe,
    ProbeReply,
    ProbeStatus,
    ProbeSubject,
)
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
)
from harness.providers.models.catalogue import (
    COLUMNS,
    Ability,
    CatalogueEntry,
    model_abilities,
)
from harness.providers.ports import ProviderProbe
from harness.providers.records import Providers
from harness.providers.registry import (
    credentials,
    provider_secrets,
    registered_providers,
    targets,
)
from harness.providers.registry.credentials import CredentialChange
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import Price, Provider, Target
from harness.routing.control import deprecations, routes
from harness.routing.reports.matrix import MatrixRow, ProviderHealth, build_matrix
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.bare_installation import BareInstallation
from tests.support.providers.scripted_chat import Response, serving
from tests.support.providers.scripted_probe import (
    FixedCatalogue,
    ScriptedProviderProbe,
)
from tests.support.providers.simulator_thread import serve_in_thread

YES, NO, OPEN = Ability
GPT = CatalogueEntry(
    "openai",
    "gpt-x",
    Price(1.0, 2.0, 0.1),
    128_000,
    has=frozenset({"chat", "tools", "reasoning"}),
    lacks=frozenset({"embeddings", "vision"}),
)


@pytest.mark.req("E4")
def test_what_is_known_is_said_and_what_is_not_is_unknown() -> None:
    found = model_abilities(PROVIDER_KINDS["openai"], UNKNOWN_CAPABILITIES, GPT, GPT.price)
    assert list(found) == list(COLUMNS)
    assert (
        found["chat"],
        found["vision"],
        found["stream"],
    ) == (YES, NO, OPEN)
    assert (found["caching"], found["thinking"]) == (YES, YES)
    # The registry's word wins over the catalogue's.
    own = Capabilities(tools=False)
    found = model_abilities(PROVIDER_KINDS["openai"], own, GPT, None)
    assert (
        found["tools"],
        found["parallel_tools"],
        found["caching"],
    ) == (
        NO,
        OPEN,
        OPEN,
    )
    # What the kind does not serve, no model can do.
    found = model_abilities(PROVIDER_KINDS["groq"], UNKNOWN_CAPABILITIES, None, None)
    assert (found["chat"], found["embeddings"]) == (OPEN, NO)


def row(ctx: Context, name: str) -> MatrixRow:
    [found] = [matrix_row for matrix_row in build_matrix(ctx) if matrix_row.provider == name]
    return found


@pytest.mark.req("E4")
@pytest.mark.spine
def test_the_matrix_joins_registry_catalogue_keys_and_clearance(
    world: BareInstallation,
) -> None:
    ctx = replace(
        world.context(),
        models=FixedCatalogue(GPT),
        data_classes={
            "personal": frozenset({"sim"}),
            "public": frozenset({"openai", "sim"}),
        },
        cipher=FernetCipher([new_key()].copy),
    )
    registered_providers.change_provider(ctx, SYSTEM, "openai", ProviderChange())
    targets.add_target(ctx, SYSTEM, Target("openai", "gpt-x"))
    assert not row(ctx, "openai").configured
    credentials.put_credential(ctx, SYSTEM, "openai", CredentialChange(value="sk-of-the-test"))

    matrix_row = row(ctx, "openai")
    assert (matrix_row.configured, matrix_row.has_key) == (True, True)
    assert matrix_row.data_classes == ["public"]
    [model] = matrix_row.models
    assert (model.model, model.context_window, model.routes) == (
        "gpt-x",
        128_000,
        [],
    )
    assert row(ctx, "sim").models[0].routes == ["chat"]
    learned = "sim/m refuses seed as clients send it"
    about = "target sim/m"
    with world.store.write() as tx:
        kind = AlertKind.LEARNED_REPAIR
        alerts.raise_alert(
            tx,
            kind,
            about,
            subject=about,
            title=learned,
            text="t",
        )
    assert row(ctx, "sim").repairs == [learned]
    assert [alert.title for alert in queries.list_alerts(ctx)] == [learned]
    bedrock = row(ctx, "bedrock")
    assert (bedrock.configured, bedrock.health) == (
        False,
        ProviderHealth.UNKNOWN,
    )
    assert "sk-of" not in repr(build_matrix(ctx))


@pytest.mark.req("E4")
@pytest.mark.spine
def test_health_is_what_was_found_last(world: BareInstallation) -> None:
    def answer(
        provider: Provider,
        _key: str,
        _path: str,
    ) -> ProbeReply:
        if provider.name == "gone":
            return ProbeReply(None, 5.0, error="no answer")
        return ProbeReply(200, 0.1, b"{}", first_s=0.2)

    ctx = replace(world.context(), probe=ScriptedProviderProbe(answer))
    registered_providers.change_provider(
        ctx,
        SYSTEM,
        "gone",
        ProviderChange("custom", {"api_base": "http://127.0.0.1:9/v1"}),
    )
    assert row(ctx, "gone").health is ProviderHealth.UNKNOWN
    registered_providers.run_check(ctx)
    assert row(ctx, "gone").health is ProviderHealth.UNHEALTHY
    assert row(ctx, "sim").health is ProviderHealth.HEALTHY
    # Another process, which asked nobody, knows as much; for a day.
    assert row(world.context(), "gone").health is ProviderHealth.UNHEALTHY
    world.clock.advance(24 * 3600.0)
    assert row(world.context(), "gone").health is ProviderHealth.UNKNOWN


@pytest.mark.req("E4")
def test_what_failed_with_a_key_that_was_replaced_says_nothing_any_more(
    world: BareInstallation,
) -> None:
    door = ScriptedProviderProbe(lambda *_: ProbeReply(401, 0.1))
    ctx = replace(world.context(), probe=door, cipher=FernetCipher([new_key()].copy))
    credentials.put_credential(
        ctx, SYSTEM, "sim", CredentialChange(value="sk-of-old-0123456789")
    )
    registered_providers.run_check(ctx)
    assert row(ctx, "sim").health is ProviderHealth.UNHEALTHY

    world.clock.advance(1.0)
    credentials.put_credential(
        ctx, SYSTEM, "sim", CredentialChange(value="sk-of-new-0123456789")
    )

    assert row(ctx, "sim").health is ProviderHealth.UNKNOWN


ABLE = frozenset({"chat", "tools"})


@pytest.fixture
def ctx(world: BareInstallation) -> Context:
    day = world.clock.now().date() + timedelta(days=40)
    known = FixedCatalogue(
        CatalogueEntry(
            "anthropic",
            "claude-sonnet-4",
            Price(3, 15),
            200_000,
            ABLE,
            end_date=day,
        ),
        CatalogueEntry("anthropic", "claude-sonnet-5", Price(2, 10), 400_000, ABLE),
    )
    made = replace(
        world.context(),
        models=known,
        judges={"colours": Target("claude", "claude-sonnet-4")},
    )
    targets.put_provider(made, SYSTEM, Provider("claude", "anthropic", "http://127.0.0.1:9"))
    return made


def deprecation_alerts(ctx: Context) -> list[AlertView]:
    deprecations.update_deprecation_alerts(ctx)
    return list(queries.list_alerts(ctx, open_only=True))


@pytest.mark.spine
@pytest.mark.req("F11")
def test_a_model_in_use_that_ends_is_told_with_its_successor(
    ctx: Context, world: BareInstallation
) -> None:
    targets.add_target(ctx, SYSTEM, Target("claude", "claude-sonnet-4"))
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    routes.create_route(ctx, SYSTEM, "essays", "claude/claude-sonnet-4", settings=settings)

    (alert,) = deprecation_alerts(ctx)
    (again,) = deprecation_alerts(ctx)

    assert (alert.kind, alert.severity) == ("model_ends", Severity.WARNING)
    assert alert.title.startswith("claude/claude-sonnet-4 ends on ")
    assert "in 40 days" in alert.title
    assert "incumbent of essays" in alert.text
    assert "judge of suite colours, for chat" in alert.text
    assert "claude/claude-sonnet-5, at $2.00 in and $10.00 out" in alert.text
    assert "a window of 400000 tokens" in alert.text
    assert again.count == 1

    world.clock.advance(timedelta(days=40).total_seconds())
    (late,) = deprecation_alerts(ctx)

    assert (late.kind, late.severity) == ("model_ended", Severity.CRITICAL)
    assert " ended on " in late.title


@pytest.mark.req("F11")
def test_it_is_over_when_the_model_is_no_longer_used(ctx: Context) -> None:
    assert [alert.kind for alert in deprecation_alerts(ctx)] == ["model_ends"]

    assert deprecation_alerts(replace(ctx, judges={})) == []


@pytest.mark.req("F11")
def test_a_model_that_no_route_uses_is_not_told(ctx: Context) -> None:
    unused = replace(ctx, judges={})
    targets.add_target(unused, SYSTEM, Target("claude", "claude-sonnet-4"))

    assert deprecation_alerts(unused) == []


SECRET = "sk-of-the-leak-test"  # noqa: S105 - made up


@pytest.fixture(scope="module")
def sim() -> Iterator[str]:
    with serve_in_thread(simulator(time_scale=0.0)) as url:
        yield f"{url}/v1"


def with_door(world: BareInstallation, door: ProviderProbe) -> Context:
    return replace(world.context(), probe=door, environ={"UP_KEY": SECRET})


@pytest.mark.req("D5")
@pytest.mark.spine
def test_every_provider_is_asked_and_each_finding_named(
    world: BareInstallation, sim: str
) -> None:
    ctx = with_door(world, HttpProviderProbe(SystemClock()))
    registered_providers.change_provider(
        ctx, SYSTEM, "sim", ProviderChange(settings={"api_base": sim}, reason="it runs")
    )
    targets.add_target(ctx, SYSTEM, Target("sim", "sim-base"))
    registered_providers.change_provider(
        ctx,
        SYSTEM,
        "gone",
        ProviderChange("custom", {"api_base": "http://127.0.0.1:9/v1"}),
    )
    registered_providers.change_provider(ctx, SYSTEM, "groq", ProviderChange())

    found = {
        provider.provider: provider
        for provider in registered_providers.run_check(ctx).providers
    }

    assert {e.subject: e.status for e in found["gone"].findings} == {
        ProbeSubject.REACHABLE: ProbeStatus.FAIL
    }
    assert [e.subject for e in found["groq"].findings] == [ProbeSubject.KEY]
    assert "provider key set groq" in found["groq"].findings[0].next_step
    reachable, key, *_ = found["sim"].findings
    assert (reachable.status, key.status) == (ProbeStatus.OK, ProbeStatus.OK)


@pytest.mark.req("D5")
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


@pytest.mark.req("D5")
def test_what_a_provider_repeats_of_our_key_is_shown_to_nobody(
    world: BareInstallation,
) -> None:
    said = json.dumps({"error": {"message": f"bad key {SECRET}"}}).encode()
    with serving(lambda _: Response(status=400, raw=said)) as served:
        ctx = with_door(world, HttpProviderProbe(SystemClock()))
        change = ProviderChange(
            "openai",
            {"api_base": served.url, "api_key_env": "UP_KEY"},
            {"x-own": "hush-hush-hush"},
        )
        registered_providers.change_provider(ctx, SYSTEM, "up", change)
        targets.add_target(ctx, SYSTEM, Target("up", "m"))
        test = registered_providers.run_check(ctx)
    shown = json.dumps(to_shown(test))
    assert "bad key [hidden]" in shown
    assert SECRET not in shown
    assert "hush" not in shown


@pytest.mark.req("D5")
def test_a_stored_header_that_cannot_be_sent_is_said_and_not_shown(
    world: BareInstallation,
) -> None:
    ctx = with_door(world, HttpProviderProbe(SystemClock()))
    up = Provider(
        "up",
        "openai",
        "http://127.0.0.1:9/v1",
        "UP_KEY",
        {"x-a": f"a\r\nx-b: {SECRET}"},
    )
    with ctx.store.write() as tx:
        Providers(tx).put(provider_secrets.encrypt_headers(up, ctx.cipher))
    found = {
        provider.provider: provider
        for provider in registered_providers.run_check(ctx).providers
    }["up"]
    shown = json.dumps(to_shown(found))
    assert (
        "a header of this provider cannot be sent: the value of the extra header 'x-a'" in shown
    )
    assert SECRET not in shown


@pytest.mark.req("D5")
def test_a_key_that_cannot_be_sent_is_said_and_not_shown() -> None:
    up = Provider("up", "openai", "http://127.0.0.1:9/v1")
    reply = HttpProviderProbe(SystemClock()).ask(up, f"{SECRET}\nx", "/models", None, 5.0)
    assert "the key in 'authorization' is not visible ASCII" in reply.error
    assert SECRET not in reply.error


@pytest.mark.req("D5")
def test_an_odd_first_line_is_shown_without_what_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            taken, _ = listening.accept()
            with taken:
                taken.recv(65536)
                taken.sendall(f"HTTP/1.1 no {SECRET}\r\n\r\n".encode())

        served = threading.Thread(target=answer)
        served.start()
        up = Provider(
            "up",
            "openai",
            f"http://127.0.0.1:{listening.getsockname()[1]}/v1",
        )
        reply = HttpProviderProbe(SystemClock()).ask(up, SECRET, "/models", None, 30.0)
        served.join()
    assert reply.status is None
    assert "does not answer" in reply.error
    assert SECRET not in reply.error


@pytest.mark.req("D5")
def test_looking_again_within_a_minute_asks_nobody(world: BareInstallation) -> None:
    door = ScriptedProviderProbe(lambda *_: ProbeReply(200, 0.01, b"{}", first_s=0.02))
    ctx = with_door(world, door)
    first = registered_providers.load_last_check(ctx)
    assert first.ok
    asked = list(door.asked)
    assert asked == [("sim", "/models"), ("sim", "/chat/completions")]
    assert (
        registered_providers.load_last_check(world.context()) == first
    )  # another process sends no request
    assert door.asked == asked
    world.clock.advance(timedelta(minutes=2).total_seconds())
    assert registered_providers.load_last_check(ctx) != first
    assert len(door.asked) == 2 * len(asked)
