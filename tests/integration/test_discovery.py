"""Models that providers list (C2), read over real HTTP, also from a hostile one."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import pytest

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import Conflict, DiscoveryFailed, NotFound
from harness.frame.people.access import SYSTEM
from harness.frame.runtime.clock import SystemClock
from harness.frame.signing.audit import AuditEvent
from harness.operations.context import Context
from harness.proposals.candidates import (
    candidate_rounds,
    candidates,
    leaderboard,
)
from harness.providers.calls.probe import HttpProviderProbe
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.records import DiscoveredModels, Providers
from harness.providers.registry import credentials, named_models, registered_providers, targets
from harness.providers.registry.credentials import CredentialChange
from harness.providers.registry.targets import ProviderChange
from harness.providers.target import Price, Target
from harness.routing.candidate_schedule import CandidateSchedule, Preference
from harness.routing.control import deprecations, routes
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import ANN
from tests.support.site.command_line import CommandLine
from tests.support.site.http_thread import Exchange, serving
from tests.support.site.management_api import Door


@dataclass
class ListAnswer:
    body: str = ""
    status: int = 200
    location: str = ""  # where a redirect leads
    times: int = 1  # how often the body is sent; 0 for until the client leaves
    pause_ms: int = 0  # behind each time


@dataclass
class ListServer:
    url: str
    answer: ListAnswer


@contextmanager
def serving_lists() -> Iterator[ListServer]:
    class Handler(Exchange):
        protocol_version = "HTTP/1.0"  # its end is the connection's
        do_GET = Exchange.do_POST  # noqa: N815 - the base class calls it so

        def exchange(self) -> None:
            answer = server.answer
            self.send_response(answer.status)
            self.send_header("content-type", "application/json")
            if answer.location:
                self.send_header("location", answer.location)
            self.end_headers()
            with suppress(OSError):
                for _ in range(answer.times) if answer.times else itertools.count():
                    self.wfile.write(answer.body.encode())
                    time.sleep(answer.pause_ms / 1000)

    server = ListServer("", ListAnswer())
    with serving(Handler) as port:
        server.url = f"http://127.0.0.1:{port}"
        yield server


pytestmark = pytest.mark.req("C2", "C3")

BEFORE = ("meta-llama/llama-4-scout", "qwen3-32b")
LISTED = ("vendor/model-2", "vendor/auto")
PRICES = {
    "prompt": "0.0000025",
    "completion": "0.00001",
    "request": "0",
}
VARYING = {"prompt": "-1", "completion": "-1"}
OPENROUTER = {
    "data": [
        {
            "id": name,
            "name": f"Vendor: {name}",
            "context_length": 131072,
            "pricing": pricing,
        }
        for name, pricing in zip(LISTED, (PRICES, VARYING), strict=True)
    ]
}


@pytest.fixture
def sim() -> Iterator[ListServer]:
    with serving_lists() as server:
        yield server


@pytest.fixture
def ctx(world: SmallInstallation, sim: ListServer) -> Context:
    """With a server of one's own, `attic`, that listed two models before."""
    ctx = replace(world.context(), probe=HttpProviderProbe(SystemClock()))
    registered_providers.change_provider(
        ctx, SYSTEM, "attic", ProviderChange("custom", {"api_base": f"{sim.url}/v1"})
    )
    lists(sim, listing(*BEFORE))
    named_models.discover_models(ctx, ANN, "attic")
    return ctx


def listing(*names: str, **more: object) -> dict[str, object]:
    """A list as OpenAI writes it, with what others add to each model."""
    return {
        "object": "list",
        "data": [{"id": name, **more} for name in names],
    }


def lists(sim: ListServer, document: object) -> None:
    answers(sim, body=json.dumps(document))


def answers(sim: ListServer, **switch: object) -> None:
    sim.answer = ListAnswer(**switch)  # type: ignore[arg-type]  # by its fields


def names(ctx: Context, provider: str = "attic") -> list[str]:
    return [model.model for model in named_models.list_discovered(ctx, provider)]


def test_a_stored_key_reads_its_providers_list(ctx: Context, sim: ListServer) -> None:
    lists(sim, listing("new-one"))
    put = credentials.put_credential

    stored = put(ctx, SYSTEM, "attic", CredentialChange(value="sk-a-key-of-a-test"))
    moved = put(ctx, SYSTEM, "attic", CredentialChange(settings={"api_base": f"{sim.url}/v1"}))

    assert (stored.listing, moved.listing) == ("it lists 1 model", "")
    assert [model.model for model in named_models.list_discovered(ctx, "attic")] == ["new-one"]
    answers(sim, status=500)
    kept = put(ctx, SYSTEM, "attic", CredentialChange(value="sk-another-of-a-test"))
    assert kept.listing.startswith("Swapproof could not read its models: provider 'attic'")
    assert named_models.list_discovered(ctx, "attic")


@pytest.mark.parametrize(
    ("document", "window", "price"),
    [
        pytest.param(listing(*LISTED), None, None, id="openai"),
        pytest.param(OPENROUTER, 131072, Price(2.5, 10.0), id="openrouter"),
    ],
)
def test_a_list_is_kept_with_its_date_and_what_it_says(
    world: SmallInstallation,
    ctx: Context,
    sim: ListServer,
    document: object,
    window: int | None,
    price: Price | None,
) -> None:
    lists(sim, document)
    world.clock.advance(60)

    found = named_models.discover_models(ctx, ANN, "attic")

    stored = named_models.list_discovered(ctx, "attic")
    assert list(found.models) == list(stored)
    assert found.left_out == 0
    priced = {model.model: model.price for model in stored}
    assert priced == {
        # What the gateway picks a model for has no price of its own.
        "vendor/auto": None,
        "vendor/model-2": price,
    }
    assert {(model.found_at, model.context_window) for model in stored} == {
        (world.clock.now(), window)
    }
    assert "provider.discover" in {event.action for event in last_events(ctx)}
    targets.add_target(ctx, ANN, Target("attic", "vendor/model-2"))
    assert registered_providers.get_provider(ctx, "attic").prices.get("vendor/model-2") == price


def test_a_target_gets_the_price_that_its_provider_lists_later(
    ctx: Context, sim: ListServer
) -> None:
    targets.add_target(ctx, ANN, Target("attic", "vendor/model-2"))
    lists(sim, OPENROUTER)

    named_models.discover_models(ctx, ANN, "attic")

    prices = registered_providers.get_provider(ctx, "attic").prices
    assert prices == {"vendor/model-2": Price(2.5, 10.0)}


def last_events(ctx: Context) -> list[AuditEvent]:
    with ctx.store.listings() as stored:
        return list(stored.events())


def test_a_model_that_its_provider_does_not_list_is_said_when_it_is_added(
    ctx: Context, sim: ListServer
) -> None:
    lists(sim, listing("north-1", "north-2"))

    def describe(model: str, provider: str = "attic") -> str:
        return named_models.describe_unlisted(ctx, ANN, Target(provider, model))

    assert describe("north-2") == ""
    assert describe("nort-2") == ("attic does not list nort-2 among 2; did you mean 'north-2'?")
    answers(sim, status=503)
    assert describe("north-2").startswith("Swapproof could not read its models: ")
    # A vendor's list counts where somebody asked for it; it is not asked by the way.
    registered_providers.change_provider(ctx, SYSTEM, "openai", ProviderChange())
    assert describe("gpt-4o", "openai") == ""
    address = registered_providers.get_provider(ctx, "openai").api_base
    entry = DiscoveredModel("openai", "gpt-4o", address, ctx.clock.now())
    with ctx.store.write() as tx:
        DiscoveredModels(tx).replace("openai", [entry])
    assert describe("gpt-4", "openai").startswith("openai does not list gpt-4 among 1; ")
    assert describe("gpt-4o", "openai") == ""


def test_a_simulator_is_asked_for_a_model_that_is_added(
    ctx: Context,
    sim: ListServer,
    world: SmallInstallation,
) -> None:
    lists(sim, listing("base", "better"))
    registered_providers.change_provider(
        ctx,
        SYSTEM,
        "sim",
        ProviderChange(settings={"api_base": f"{sim.url}/v1"}, reason="r"),
    )
    target = Target("sim", "bettter")
    said = "sim does not list bettter among 2; did you mean 'better'?"
    assert named_models.describe_unlisted(ctx, ANN, target) == said

    door = Door(world, probe=HttpProviderProbe(SystemClock()))
    body = {"provider": "sim", "model": "bettter"}
    assert door.post("/models", body, role="proposer")["unlisted"] == said
    assert door.post("/models", {**body, "discover": False})["unlisted"] == ""
    assert door.post("/models", {**body, "model": "better"})["unlisted"] == ""


@pytest.mark.parametrize(
    ("switch", "reason"),
    [
        ({"body": '{"id": "m"},' * 1000, "times": 0}, "larger than 4 MiB"),
        ({"body": "[" * 100_000}, "not JSON"),
        ({"status": 302, "location": "http://127.0.0.1:1/v1/models"}, "302"),
        ({"status": 302, "location": "file:///etc/passwd"}, "302"),
    ],
)
def test_a_hostile_list_is_refused_whole_and_what_was_known_stays(
    ctx: Context,
    sim: ListServer,
    switch: dict[str, object],
    reason: str,
) -> None:
    answers(sim, **switch)

    with pytest.raises(DiscoveryFailed, match=reason) as failed:
        named_models.discover_models(ctx, ANN, "attic")

    assert failed.value.retryable
    assert names(ctx) == sorted(BEFORE)


def test_a_provider_that_moved_or_went_lists_nothing_that_it_listed_before(
    world: SmallInstallation,
    ctx: Context,
    sim: ListServer,
) -> None:
    world.clock.advance(60)
    registered_providers.change_provider(
        ctx,
        SYSTEM,
        "attic",
        ProviderChange(settings={"api_base": f"{sim.url}/v1/elsewhere"}, reason="moved"),
    )
    listed = names(ctx)
    registered_providers.remove_provider(ctx, SYSTEM, "attic")

    assert listed == []
    with pytest.raises(NotFound):
        names(ctx)
    assert "attic" not in {
        name.partition("/")[0] for name, _ in named_models.list_configured_offers(ctx)
    }


def test_a_provider_that_is_changed_while_it_is_asked_keeps_no_list(
    ctx: Context, sim: ListServer
) -> None:
    class Mover:
        """Moves the provider while its answer is under way."""

        def ask(self, *asked: object) -> object:
            reply = HttpProviderProbe(SystemClock()).ask(*asked)  # type: ignore[arg-type]
            registered_providers.change_provider(
                ctx,
                SYSTEM,
                "attic",
                ProviderChange(settings={"api_base": "http://127.0.0.1:9/v1"}, reason="r"),
            )
            return reply

    lists(sim, listing("another"))
    with pytest.raises(Conflict, match="changed while"):
        named_models.discover_models(replace(ctx, probe=Mover()), ANN, "attic")  # type: ignore[arg-type]
    assert "another" not in names(ctx)


def test_a_list_that_was_requested_earlier_replaces_no_newer_list(
    world: SmallInstallation, ctx: Context, sim: ListServer
) -> None:
    class Slow:
        """Another process reads and stores a longer list while this answer is under way."""

        def ask(self, *asked: object) -> object:
            reply = HttpProviderProbe(SystemClock()).ask(*asked)  # type: ignore[arg-type]
            lists(sim, listing(*BEFORE, "new"))
            world.clock.advance(1)
            named_models.discover_models(ctx, ANN, "attic")
            return reply

    named_models.discover_models(replace(ctx, probe=Slow()), ANN, "attic")  # type: ignore[arg-type]

    assert "new" in names(ctx)


def test_a_provider_without_its_key_is_not_asked(ctx: Context) -> None:
    registered_providers.change_provider(ctx, SYSTEM, "groq", ProviderChange())
    with pytest.raises(Conflict, match="swapproof provider key set groq"):
        named_models.discover_models(ctx, ANN, "groq")


def test_the_command_line_discovers_and_model_add_asks(
    cli: CommandLine, sim: ListServer
) -> None:
    lists(
        sim,
        listing("llama-4-scout", "llama-4-maverick", max_model_len=32768),
    )
    base = ("--api-base", f"{sim.url}/v1")

    added = cli.run("model", "add", "attic/llama-4-skout", *base)
    known = [entry["name"] for entry in cli.json("model", "list", "--all")]
    table = cli.text("model", "discover", "attic")
    shown = cli.json("model", "discover", "attic")
    answers(sim, body="[")
    failed = cli.error("model", "discover", "attic", exits=1)

    assert (
        "attic does not list llama-4-skout among 2; did you mean 'llama-4-scout'?"
        in added.stderr
    )
    assert {"attic/llama-4-scout", "attic/llama-4-maverick"} <= set(known)
    assert table.splitlines()[1].split() == [
        "llama-4-maverick",
        "unknown",
        "unknown",
        "32768",
    ]
    assert [model["model"] for model in shown["models"]] == [
        "llama-4-maverick",
        "llama-4-scout",
    ]
    assert "not JSON" in failed
    assert cli.text("model", "match", "scout").strip() == "attic/llama-4-scout"


@pytest.mark.req("A3", "F11")
def test_a_new_model_that_a_schedule_selects_is_announced_once(
    world: SmallInstallation, sim: ListServer
) -> None:
    def answer(*names: str) -> None:
        sim.answer.body = json.dumps({"data": [{"id": name} for name in names]})

    ctx = replace(world.context(), probe=HttpProviderProbe(SystemClock()))
    with world.store.read() as tx:
        provider = Providers(tx).all()["sim"]
    targets.put_provider(ctx, SYSTEM, replace(provider, api_base=f"{sim.url}/v1"), "a test")
    plan = CandidateSchedule(("sim/b*",), "0 3 * * 1", 50.0)
    routes.change_settings(ctx, SYSTEM, "chat", lambda before: replace(before, candidates=plan))

    refresh = candidate_rounds.ListRefresh()
    answer("base")
    assert not refresh(ctx)  # the first list is no news
    answer("base", "better", "good")
    assert not refresh(ctx)  # not asked twice in a day
    world.clock.advance(3_600)
    named_models.discover_models(ctx, ANN, "sim")
    assert refresh(ctx) == ["new at sim: better, for route chat"]
    assert not candidate_rounds.ListRefresh()(ctx)  # in a process that starts
    with world.store.read() as tx:
        alert = Alerts(tx).newest("new_candidate:chat:sim/better")
    assert alert is not None
    assert "It is measured on Monday 2026-01-05 at 03:00 UTC, about $" in alert.text

    cheaper = replace(plan, prefer=Preference.CHEAPER)
    routes.change_settings(
        ctx,
        SYSTEM,
        "chat",
        lambda before: replace(before, candidates=cheaper),
    )
    world.propose("sim/good")
    world.clock.advance(7 * 86_400)  # past the round, which the proposal holds up
    answer("base", "better", "good", "b-free", "b-2")
    prices = {**provider.prices, "b-2": Price(0.1, 0.2)}
    priced = replace(provider, api_base=f"{sim.url}/v1", prices=prices)
    targets.put_provider(ctx, SYSTEM, priced, "a test")
    assert len(refresh(ctx)) == 2
    with world.store.read() as tx:
        unpriced, late = (
            Alerts(tx).newest(f"new_candidate:chat:sim/{name}") for name in ("b-free", "b-2")
        )
    assert unpriced is not None
    assert late is not None
    assert "It waits: the price of sim/b-free is unknown" in unpriced.text
    assert "It is measured once the route is free (proposal " in late.text

    sim.answer.status = 500
    world.clock.advance(3 * 86_400)
    changed = replace(
        world.route(),
        settings=replace(world.route().settings, candidates=plan),
    )
    failed, old, *_ = candidate_rounds.describe_schedule_faults(ctx, [changed])
    assert "provider 'sim' lists no models" in failed
    assert "could not read it since" in old
    names, _ = candidates.select_candidates(
        ctx,
        "sim/base",
        plan,
    )
    assert [model.name for model in names] == [
        "sim/b-2",
        "sim/b-free",
        "sim/better",
    ]


@pytest.mark.req("A3", "F11")
def test_an_incumbent_that_its_provider_lists_no_more_begins_a_round_at_once(
    world: SmallInstallation, sim: ListServer
) -> None:
    ctx = replace(world.context(), probe=HttpProviderProbe(SystemClock()))
    with world.store.read() as tx:
        provider = Providers(tx).all()["sim"]
    targets.put_provider(ctx, SYSTEM, replace(provider, api_base=f"{sim.url}/v1"), "a test")
    plan = CandidateSchedule(("sim/b*",), "0 3 * * 1", 50.0)
    lists(sim, listing("base", "better"))
    routes.change_settings(ctx, SYSTEM, "chat", lambda before: replace(before, candidates=plan))
    named_models.discover_models(ctx, ANN, "sim")
    candidate_rounds.run_once(ctx)
    assert not candidate_rounds.run_once(ctx)

    lists(sim, listing("better"))
    named_models.discover_models(ctx, ANN, "sim")
    unlisted = "sim/base has been missing from its provider's list since 2026-01-01"
    assert candidate_rounds.run_once(ctx) == [
        f"route chat: candidates by {unlisted}: sim/better"
    ]
    assert not candidate_rounds.run_once(ctx)
    deprecations.update_deprecation_alerts(ctx, partial(leaderboard.describe_shortlist, ctx))
    assert (
        AlertKind.MODEL_ENDED,
        world.route().incumbent,
    ) in alerts.list_open(ctx, AlertKind.MODEL_ENDED)
    world.run_once(turns=12)
    assert leaderboard.load_leaderboard(ctx, "chat").ending.startswith(
        f"{unlisted}. Measured for chat: sim/better (+"
    )


@pytest.mark.req("A3", "C2")
def test_a_list_is_read_at_once_and_one_that_failed_again_after_a_while(
    world: SmallInstallation, sim: ListServer
) -> None:
    ctx = replace(world.context(), probe=HttpProviderProbe(SystemClock()))
    registered_providers.change_provider(
        ctx, SYSTEM, "attic", ProviderChange("custom", {"api_base": f"{sim.url}/v1"})
    )
    refresh = candidate_rounds.ListRefresh()
    answers(sim, status=500)
    refresh(ctx)
    lists(sim, listing("new-one"))
    refresh(ctx)
    assert not names(ctx)
    world.clock.advance(candidate_rounds.RETRY_AFTER.total_seconds())
    refresh(ctx)
    assert names(ctx) == ["new-one"]

    lists(sim, listing("newer-one"))
    world.clock.advance(86_399)
    refresh(ctx)
    assert names(ctx) == ["new-one"]
    world.clock.advance(1)
    refresh(ctx)
    assert names(ctx) == ["newer-one"]

    moved = ProviderChange(settings={"api_base": f"{sim.url}/v2"}, reason="a test")
    registered_providers.change_provider(ctx, SYSTEM, "attic", moved)
    refresh(ctx)
    assert names(ctx) == ["newer-one"]


@pytest.mark.req("A3")
def test_a_schedule_is_judged_by_lists_that_are_read_for_it(
    ctx: Context,
    sim: ListServer,
    world: SmallInstallation,
) -> None:
    provider = f"{sim.url}/v1"
    registered_providers.change_provider(
        ctx, SYSTEM, "cellar", ProviderChange("custom", {"api_base": provider})
    )
    lists(sim, listing("new-one"))
    route = world.route()

    def faults(*models: str) -> str:
        plan = CandidateSchedule(models, "0 3 * * 1", 50.0)
        changed = replace(route, settings=replace(route.settings, candidates=plan))
        return "; ".join(candidate_rounds.describe_schedule_faults(ctx, [changed]))

    assert "selects no model" not in faults("cellar/new-*")
    assert names(ctx, "cellar") == ["new-one"]
    assert "there is no provider 'celar'; did you mean 'cellar'?" in faults("celar/*")
    registered_providers.change_provider(
        ctx, SYSTEM, "barn", ProviderChange("custom", {"api_base": provider})
    )
    answers(sim, status=500)
    said = faults("barn/*")
    assert "provider 'barn' lists no models: " in said
    assert "barn/* selects no model now: the list of barn was never read" in said
