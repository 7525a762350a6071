"""Ends of models from catalogue, lists and headers: conflicts, countdown, alerts (F11)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from harness.frame.formatting import format_date
from harness.frame.people.access import SYSTEM
from harness.frame.runtime.clock import SystemClock
from harness.gate.pins import ServedModel, Sighting
from harness.operations import queries
from harness.operations.context import Context
from harness.operations.route_queries import load_overview, load_statuses
from harness.operations.route_status import RouteStatus, describe_needs
from harness.proposals.candidates import candidates
from harness.providers.calls.probe import HttpProviderProbe
from harness.providers.models.catalogue import CatalogueEntry
from harness.providers.models.end_dates import SUNSET
from harness.providers.models.model_ends import (
    EndDates,
    EndSource,
    EndState,
    EndStatement,
    KnownEnd,
)
from harness.providers.models.model_match import parse_listed_models
from harness.providers.records import (
    DiscoveredModels,
    EndStatements,
    Providers,
    Sightings,
    Targets,
)
from harness.providers.registry import registered_providers, target_life, targets
from harness.providers.registry.end_facts import load_facts
from harness.providers.target import Provider, Target
from harness.routing.candidate_schedule import CandidateSchedule
from harness.routing.control import deprecations, end_sources, routes
from harness.routing.control.deprecations import Deprecation, route_end
from harness.routing.reports.matrix import build_matrix
from harness.routing.route_settings import RouteSettings
from router.snapshot.end_headers import build_end_headers
from tests.support.control.bare_installation import BareInstallation
from tests.support.providers.scripted_probe import FixedCatalogue

pytestmark = pytest.mark.req("F11")


@pytest.fixture
def ctx(world: BareInstallation) -> Context:
    return world.context()


def in_days(ctx: Context, days: int) -> date:
    return ctx.clock.now().date() + timedelta(days=days)


def with_catalogue(ctx: Context, days: int, **fields: object) -> Context:
    entry = CatalogueEntry("sim", "base", end_date=in_days(ctx, days), **fields)  # type: ignore[arg-type]  # a test's own fields
    return replace(ctx, models=FixedCatalogue(entry))


def lists(ctx: Context, **fields: object) -> None:
    """The provider's stored list has the incumbent with further fields."""
    with ctx.store.write() as tx:
        provider = Providers(tx).all()["sim"]
        content = json.dumps({"data": [{"id": "base", **fields}]}).encode()
        parsed = parse_listed_models(content, provider, ctx.clock.now())
        DiscoveredModels(tx).replace("sim", parsed.models)


def answers(ctx: Context, target: str, dates: EndDates) -> None:
    now = ctx.clock.now()
    statement = EndStatement(
        target, EndSource.HEADERS, "headers of answers of provider sim", dates, now, now
    )
    with ctx.store.write() as tx:
        EndStatements(tx).note([statement])


def endings(ctx: Context) -> Sequence[Deprecation]:
    return deprecations.list_deprecations(ctx)


def test_of_three_sources_the_earliest_governs_and_the_others_are_named(
    world: BareInstallation, ctx: Context
) -> None:
    ctx = with_catalogue(ctx, 60)
    lists(ctx, expiration_date=in_days(ctx, 50).isoformat())
    answers(ctx, world.route().incumbent, EndDates(in_days(ctx, 40)))

    (ending,) = endings(ctx)

    assert ending.days == 40
    assert ending.source == "headers of answers of provider sim"
    listed, known = in_days(ctx, 50), in_days(ctx, 60)
    assert ending.text == (
        f"sim/base ends on {in_days(ctx, 40)}, in 40 days, according to headers of answers of "
        f"provider sim; the list of models of provider sim states {listed}, the model "
        f"catalogue states {known}: the earliest day governs"
    )
    with ctx.store.read() as tx:
        stated = end_sources.list_statements(ctx, tx, Targets(tx).all().values())
    end = route_end(world.route(), stated)
    assert end is not None
    assert (end.day, end.source) == (in_days(ctx, 40), ending.source)


def test_sources_that_agree_are_no_conflict(world: BareInstallation, ctx: Context) -> None:
    ctx = with_catalogue(ctx, 30, end_source="swapproof.yaml")
    answers(ctx, world.route().incumbent, EndDates(in_days(ctx, 30)))

    (ending,) = endings(ctx)

    assert "governs" not in ending.text
    assert [other.day for other in ending.others] == [in_days(ctx, 30)]


def test_a_deprecated_model_without_an_end_is_told_and_begins_no_round(
    ctx: Context,
) -> None:
    lists(ctx, is_deprecated=True)

    (ending,) = endings(ctx)
    deprecations.update_deprecation_alerts(ctx)

    assert (ending.end_date, ending.days, ending.over) == (None, None, False)
    text = "sim/base is deprecated, according to the list of models of provider sim"
    assert ending.text == f"{text}; its end is unknown"
    (alert,) = queries.list_alerts(ctx, open_only=True)
    assert (alert.kind, alert.title) == ("model_ends", ending.text)


def test_a_deprecated_model_whose_end_is_far_is_not_told_yet(ctx: Context) -> None:
    lists(ctx, is_deprecated=True, expiration_date=in_days(ctx, 91).isoformat())
    assert not endings(ctx)

    lists(ctx, is_deprecated=True, expiration_date=in_days(ctx, 90).isoformat())
    assert [ending.days for ending in endings(ctx)] == [90]


def test_an_end_of_another_provider_or_of_a_former_address_counts_for_nothing(
    world: BareInstallation, ctx: Context
) -> None:
    targets.put_provider(ctx, SYSTEM, Provider("other", "sim", "http://127.0.0.1:9/v1"))
    with ctx.store.write() as tx:
        content = json.dumps({"data": [{"id": "base", "expiration_date": "2026-01-05"}]})
        for name, address in (("other", "http://127.0.0.1:9/v1"), ("sim", "http://old/v1")):
            provider = replace(Providers(tx).all()[name], api_base=address)
            parsed = parse_listed_models(content.encode(), provider, ctx.clock.now())
            DiscoveredModels(tx).replace(name, parsed.models)
    answers(ctx, "another-target", EndDates(in_days(ctx, 1)))

    assert not endings(ctx)
    assert world.route().incumbent != "another-target"


def test_a_round_selects_no_model_that_its_providers_list_ends_soon(ctx: Context) -> None:
    schedule = CandidateSchedule(("sim/*",), "0 3 * * 1", 5.0)

    def select() -> list[str]:
        found, _ = candidates.select_candidates(ctx, "sim/other", schedule)
        return [model.name for model in found]

    lists(ctx, expiration_date=in_days(ctx, 91).isoformat())
    assert select() == ["sim/base"]
    lists(ctx, expiration_date=in_days(ctx, 90).isoformat())
    assert select() == []


def test_routers_get_the_catalogues_end_and_lose_it_when_it_is_withdrawn(
    world: BareInstallation, ctx: Context
) -> None:
    incumbent = world.route().incumbent
    retired = with_catalogue(ctx, 400)
    end_sources.publish_statements(retired)
    with ctx.store.read() as tx:
        (statement,) = EndStatements(tx).all()
    assert (statement.target, statement.dates) == (incumbent, EndDates(in_days(ctx, 400)))

    world.clock.advance(60)
    end_sources.publish_statements(retired)
    with ctx.store.read() as tx:
        assert list(EndStatements(tx).all()) == [statement]  # nothing changed, nothing written

    end_sources.publish_statements(with_catalogue(ctx, 300))
    with ctx.store.read() as tx:
        (changed,) = EndStatements(tx).all()
    assert changed.dates == EndDates(in_days(ctx, 300))

    answers(ctx, incumbent, EndDates(in_days(ctx, 10)))
    end_sources.publish_statements(ctx)
    with ctx.store.read() as tx:
        assert [left.kind for left in EndStatements(tx).all()] == [EndSource.HEADERS]


def test_a_status_counts_its_own_routes_models_down_with_a_command(ctx: Context) -> None:
    newer = CatalogueEntry("sim", "base-2", end_date=None)
    entry = CatalogueEntry("sim", "base", end_date=in_days(ctx, 1))
    ctx = replace(ctx, models=FixedCatalogue(entry, newer))
    overview = load_overview(ctx)

    (status,) = load_statuses(ctx, overview, overview.names)

    (ending,) = status.endings
    assert ending.text == (
        f"sim/base ends on {in_days(ctx, 1)}, in 1 day, according to the model catalogue"
    )
    reason = f"sim/base ends on {in_days(ctx, 1)}"
    assert ending.next == f"swapproof proposal create chat sim/base-2 --reason '{reason}'"


SNAPSHOT = "gpt-5-mini-2025-08-07"


@pytest.mark.parametrize("model", ["gpt-5-mini", SNAPSHOT, f"ft:{SNAPSHOT}:acme::A1b2"])
def test_alias_snapshot_and_fine_tune_are_counted_down_by_every_interface(
    ctx: Context, model: str
) -> None:
    known = [
        CatalogueEntry("openai", "gpt-5-mini"),
        CatalogueEntry("openai", SNAPSHOT, end_date=in_days(ctx, 10)),
    ]
    ctx = replace(ctx, models=FixedCatalogue(*known))
    targets.put_provider(ctx, SYSTEM, Provider("openai", "openai", "http://127.0.0.1:9/v1"))
    target = targets.add_target(ctx, SYSTEM, Target("openai", model))
    routes.create_route(ctx, SYSTEM, "essays", target.name, settings=RouteSettings())

    status = next(s for s in _load_all(ctx) if s.route.name == "essays")
    deprecations.update_deprecation_alerts(ctx)
    end_sources.publish_statements(ctx)

    (ending,) = status.endings
    assert ending.days == 10
    assert ending.text.startswith(f"openai/{model} ends on {in_days(ctx, 10)}, in 10 days")
    assert (SNAPSHOT in ending.source) is (model != SNAPSHOT)
    assert describe_needs([status], 0, ctx.clock.now()) == (
        "No route waits for you; 1 model in use ends or has ended"
    )
    (alert,) = queries.list_alerts(ctx, open_only=True)
    assert (alert.kind, alert.title) == ("model_ends", ending.text)
    with ctx.store.read() as tx:
        stored = [one for one in EndStatements(tx).all() if one.target == target.id]
    assert (
        dict(build_end_headers(stored))[SUNSET]
        .decode()
        .startswith(f"{in_days(ctx, 10):%a, %d %b %Y}")
    )
    (row,) = [row for row in build_matrix(ctx) if row.provider == "openai"]
    assert [known.end.day for known in row.models] == [in_days(ctx, 10)]


def _load_all(ctx: Context) -> Sequence[RouteStatus]:
    overview = load_overview(ctx)
    return load_statuses(ctx, overview, overview.names)


def test_a_name_ends_with_the_model_that_its_answers_report(
    world: BareInstallation, ctx: Context
) -> None:
    ctx = replace(
        ctx, models=FixedCatalogue(CatalogueEntry("sim", "b-7", end_date=in_days(ctx, 5)))
    )
    now = ctx.clock.now()
    incumbent = world.route().incumbent

    def sees(model: str, ago: timedelta) -> None:
        with ctx.store.write() as tx:
            Sightings(tx).note([Sighting(incumbent, ServedModel(model), now - ago, now - ago)])

    sees("b-7", timedelta(days=3))
    (ending,) = endings(ctx)
    assert ending.source == "the model catalogue, for b-7, which its answers name"

    sees("b-8", timedelta())
    assert not endings(ctx), "the name serves another model now"


def test_an_answer_under_its_own_name_shows_that_an_alias_lives_for_a_day(
    world: BareInstallation, ctx: Context
) -> None:
    snapshot = CatalogueEntry("sim", "base-2024-08-06", end_date=in_days(ctx, -30))
    ctx = replace(ctx, models=FixedCatalogue(snapshot))
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        Sightings(tx).note([Sighting(world.route().incumbent, ServedModel("base"), now, now)])

    assert not endings(ctx)
    world.clock.advance(timedelta(days=2).total_seconds())
    (ending,) = endings(ctx)
    assert ending.over


def test_no_end_is_announced_only_by_a_fresh_list_that_tells_ends(
    world: BareInstallation, ctx: Context
) -> None:
    ctx = replace(ctx, models=FixedCatalogue())

    def report() -> KnownEnd:
        with ctx.store.read() as tx:
            (target,) = [t for t in Targets(tx).all().values() if t.model == "base"]
            return load_facts(ctx, tx, [target]).report(target, ctx.clock.now()).known

    assert report().text == "unknown: `swapproof model discover sim` reads its provider's list"
    lists(ctx, created=1)
    assert report().state is EndState.UNKNOWN
    assert "states no end that Swapproof can read" in report().text
    lists(ctx, expiration_date=None)
    listed_on = format_date(ctx.clock.now().date())
    assert report().text == f"no end is announced in its provider's list of {listed_on}"

    world.clock.advance(timedelta(days=7, seconds=1).total_seconds())

    assert report().state is EndState.UNKNOWN
    assert report().text.startswith(f"unknown: its provider's list is of {listed_on}; ")


@pytest.mark.parametrize(
    ("older", "newer", "state"),
    [
        (-30, {"shutdown_date": None}, EndState.NOT_ANNOUNCED),
        (-30, {"shutdown_date": "next spring"}, EndState.UNKNOWN),
        (-30, {"shutdown_date": None, "retire_on": "2027-01-01"}, EndState.UNKNOWN),
        (-30, {"shutdown_date": "2099-01-01"}, EndState.STATED),
    ],
)
def test_an_alias_lives_with_a_listed_snapshot_and_its_end_is_unknown_with_an_unread_field(
    ctx: Context, older: int, newer: dict[str, object], state: EndState
) -> None:
    ctx = replace(ctx, models=FixedCatalogue())
    entries = [
        {"id": "base", "shutdown_date": None},
        {"id": "base-2024-08-06", "shutdown_date": in_days(ctx, older).isoformat()},
        {"id": "base-2025-08-06", **newer},
    ]
    with ctx.store.write() as tx:
        provider = Providers(tx).all()["sim"]
        content = json.dumps({"data": entries}).encode()
        parsed = parse_listed_models(content, provider, ctx.clock.now())
        DiscoveredModels(tx).replace("sim", parsed.models)

    assert not endings(ctx), "the newer snapshot serves the alias"
    (row,) = [row for row in build_matrix(ctx) if row.provider == "sim"]
    assert {one.end.state for one in row.models if one.model == "base"} == {state}


def test_the_replacement_that_a_provider_names_is_shown_and_proposed(ctx: Context) -> None:
    newer = CatalogueEntry("sim", "base-2")
    ctx = replace(ctx, models=FixedCatalogue(CatalogueEntry("sim", "base"), newer))
    lists(
        ctx,
        deprecation=in_days(ctx, 20).isoformat(),
        deprecation_replacement_model="other-1",
    )

    (ending,) = endings(ctx)
    deprecations.update_deprecation_alerts(ctx)

    assert ending.text.endswith("; its provider names sim/other-1 in its place")
    assert ending.next.startswith("swapproof proposal create chat sim/other-1 --reason ")
    (alert,) = queries.list_alerts(ctx, open_only=True)
    assert "Its provider names in its place: sim/other-1, at an unknown price." in alert.text


def test_a_replacement_is_another_model_and_its_own_end_is_told(ctx: Context) -> None:
    newer = CatalogueEntry("sim", "base-2")
    ctx = replace(ctx, models=FixedCatalogue(CatalogueEntry("sim", "base"), newer))

    def lists_replacement(name: str, **fields: object) -> Deprecation:
        ends = {
            "deprecation": in_days(ctx, 20).isoformat(),
            "deprecation_replacement_model": name,
        }
        entries = [{"id": "base", **ends}, {"id": "base-2", **fields}]
        with ctx.store.write() as tx:
            provider = Providers(tx).all()["sim"]
            content = json.dumps({"data": entries}).encode()
            parsed = parse_listed_models(content, provider, ctx.clock.now())
            DiscoveredModels(tx).replace("sim", parsed.models)
        (ending,) = endings(ctx)
        return ending

    assert lists_replacement("base").next.startswith(
        "swapproof proposal create chat sim/base-2"
    )
    soon = in_days(ctx, 30)
    ending = lists_replacement("base-2", deprecation=soon.isoformat())
    assert ending.text.endswith(f"names sim/base-2 in its place, which ends on {soon}")
    ending = lists_replacement("base", deprecation=soon.isoformat())
    assert ending.successor is None, "the newer model ends soon, too, by its provider's list"


class RetiringModel:
    """A provider whose good answers have a `Sunset` header, for a test over HTTP."""

    def __init__(self, sunset: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(
                    {"data": [{"id": "base"}]}, {"Sunset": "Thu, 01 Jan 2099 00:00:00 GMT"}
                )

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self._reply({"choices": [{"delta": {"content": "ready"}}]}, {"Sunset": sunset})

            def _reply(self, document: object, headers: dict[str, str]) -> None:
                body = json.dumps(document).encode()
                is_event = self.command == "POST"
                body = b"data: " + body + b"\n\n" if is_event else body
                self.send_response(200)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@pytest.mark.parametrize("sunset", ["Tue, 05 May 2026 00:00:00 GMT", "2026-05-05"])
def test_a_check_of_the_control_plane_learns_an_end_from_the_models_answer_alone(
    world: BareInstallation, ctx: Context, sunset: str
) -> None:
    provider = RetiringModel(sunset)
    thread = Thread(target=provider.server.serve_forever)
    thread.start()
    try:
        with ctx.store.read() as tx:
            stored = Providers(tx).all()["sim"]
        moved = replace(stored, api_base=provider.url)
        targets.put_provider(ctx, SYSTEM, moved, "a test")
        asking = replace(ctx, probe=HttpProviderProbe(SystemClock()))
        target_life.check_life(asking, [world.route().incumbent])
        registered_providers.check_provider(asking, SYSTEM, "sim")
    finally:
        provider.server.shutdown()
        thread.join()
        provider.server.server_close()

    with ctx.store.read() as tx:
        found = EndStatements(tx).of_headers()
    is_malformed = "GMT" not in sunset
    assert {target: one.dates for target, one in found.items()} == (
        {} if is_malformed else {world.route().incumbent: EndDates(date(2026, 5, 5))}
    )
