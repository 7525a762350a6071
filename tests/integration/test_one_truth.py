import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Final

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import page_frame
from dashboard.views import policies
from harness.app.installation import CONFIG_VARIABLE
from harness.canary import operations
from harness.evals.month_spending import (
    PurposeSpending,
    SpendingPurpose,
    month_of,
)
from harness.evals.records import Spending
from harness.frame.formatting import format_month_usd
from harness.frame.people.access import SYSTEM
from harness.gate.online.observation import TrafficMinute
from harness.gate.online.rollout import RolloutSignal
from harness.gate.verdict import VerdictBasis
from harness.operations import control_jobs
from harness.proposals import submission
from harness.proposals.report import comparison
from harness.proposals.submission import ProposalRequest
from harness.providers.records import Providers
from harness.providers.registry import targets
from harness.providers.target import Price
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.reports import scorecard
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.colours_suite import SKILL
from tests.support.control.people import ANN, BEN
from tests.support.control.router_rows import block_of
from tests.support.control.short_policies import POLICY
from tests.support.site.command_line import CommandLine, installed

pytestmark = pytest.mark.req("A3", "F2")

MAIN: Final = Path(page_frame.__file__).with_name("main.py")
SUITE: Final = "  colours: {path: colours.jsonl, scorer: exact}"
MINUTE: Final = timedelta(minutes=1)
# How three canaries ended: by a person, by the guard, and by a person after the promotion. Of
# each the word, the sentence, and what a list of routes says.
ENDS: Final = {
    "ended": ("aborted", "its canary was aborted", "canary aborted"),
    "harmed": (
        "rolled back",
        "its canary was rolled back",
        "canary rolled back",
    ),
    "taken": (
        "promotion rolled back",
        "its promotion was rolled back",
        "promotion rolled back",
    ),
}
PAGES: Final = {
    # A page alone, with what it shows by itself.
    **{page: (page, {}) for page in ("overview", "traffic", "keys")},
    "proposals": ("proposals", {"state": "all"}),
    "compare": ("compare", {"id": "{mixed}"}),
    "routes": ("routes", {"route": "mixed"}),
    "canary of held": ("canary", {"route": "held"}),
    "canary of undone": ("canary", {"route": "undone"}),
    **{f"canary of {route}": ("canary", {"route": route}) for route in ENDS},
    **{f"compare of {route}": ("compare", {"id": f"{{{route}}}"}) for route in ENDS},
    **{f"routes of {route}": ("routes", {"route": route}) for route in ENDS},
}
COMMANDS: Final = {
    "route list": "route list",
    "route show": "route show mixed",
    "route measured": "route measured mixed",
    "proposal show": "proposal show {mixed}",
    "report": "proposal report {mixed}",
    "canary status held": "canary status held",
    "proposal list": "proposal list",
    "audit log": "audit tail",
    "alert list": "alert list",
    "status": "status",
    "spending command": "spending",
    "route traffic": "route traffic --since 24h",
    "freezes": "switch list",
    **{f"show of {route}": f"proposal show {{{route}}}" for route in ENDS},
    **{f"report of {route}": f"proposal report {{{route}}}" for route in ENDS},
    **{f"status of {route}": f"canary status {route}" for route in ENDS},
    **{f"history of {route}": f"route history {route}" for route in ENDS},
}
# What says something of the route `mixed` alone.
OF_MIXED: Final = (
    "compare",
    "routes",
    "route show",
    "proposal show",
    "report",
)
CHANGE: Final = "CHG-20417"
FROZEN: Final = "the books of November are closed"


@dataclass(frozen=True)
class Reading:
    """What one database says of itself, as plain text by page and command."""

    texts: Mapping[str, str]
    basis: VerdictBasis  # of the verdict on `mixed`
    month: str  # what `mixed` costs, with its window
    month_usd: str
    hold: str  # why the canary of `held` stands still
    next_steps: Mapping[str, str]  # by route


@pytest.fixture(scope="module")
def reading(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reading]:
    folder = tmp_path_factory.mktemp("truth")
    database = shutil.copyfile(sqlite_template, folder / "given.db")
    with pytest.MonkeyPatch.context() as monkeypatch:
        with installed(folder, f"sqlite:///{database}", monkeypatch) as cli:
            monkeypatch.setenv(CONFIG_VARIABLE, str(folder / "swapproof.yaml"))
            yield _read(cli, _happen(cli))
        if page_frame.installation.cache_info().currsize:
            page_frame.installation().close()
        page_frame.installation.cache_clear()


def _happen(cli: CommandLine) -> Mapping[str, str]:
    """Returns the proposals' ids by route."""
    world = cli.world
    bakes = replace(POLICY.canary, bake_s=timedelta(days=1).total_seconds())
    world.policy = replace(POLICY, canary=bakes)
    file = cli.folder / "swapproof.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(SUITE, f"{SUITE}\n{SUITE.replace('colours', 'shades')}"))
    colours = (cli.folder / "colours.jsonl").read_text(encoding="utf-8")
    shades = cli.folder / "shades.jsonl"
    # Primary suites with the same items are refused.
    shades.write_text(colours.replace("Colour", "Shade"), encoding="utf-8")
    world.suites["shades"] = replace(world.suites["colours"], name="shades", path=shades)
    with world.store.read() as tx:
        provider = Providers(tx).all()["sim"]
    priced = replace(provider, prices={model: Price(1.0, 2.0) for model in SKILL})
    targets.put_provider(world.context(), SYSTEM, priced)
    both = (RouteSuite("colours"), RouteSuite("shades", weight=2.0))
    for name in ("mixed", "held", "undone", *ENDS):
        settings = RouteSettings(suites=both if name == "mixed" else both[:1])
        routes.create_route(world.context(), SYSTEM, name, "sim/base", settings=settings)
    made = {
        name: submission.create_proposal(
            world.context(),
            ANN,
            ProposalRequest(name, "sim/better", change_reference=CHANGE),
        ).id
        for name in ("mixed", "held", "undone", *ENDS)
    }
    world.run_once(turns=16)
    _harm(cli, "harmed")
    for name in ("taken", "undone"):
        operations.operate(
            world.context(),
            BEN,
            name,
            RolloutSignal.PROMOTE,
            "a demo at noon",
        )
    operations.operate(world.context(), BEN, "undone", RolloutSignal.FINISH, "long enough")
    cli.run("route", "rollback", "undone", "--reason", "it is too chatty")
    _record_traffic(cli)
    said = cli.text("canary", "abort", "taken", "--reason", "users complain", "--yes")
    assert said == "the promotion of taken was rolled back\n"
    operations.operate(
        world.context(),
        BEN,
        "ended",
        RolloutSignal.ABORT,
        "answers are too long",
    )
    control_jobs.reconcile(world.context())
    _spend(cli)
    cli.run(
        "switch",
        "throw",
        "freeze",
        "--route",
        "mixed",
        "--for",
        "2h",
        "--reason",
        FROZEN,
    )
    return made


def _spend(cli: CommandLine) -> None:
    """Evals have spent the month's cap, and wait for the next one."""
    now = cli.world.clock.now()
    with cli.world.store.write() as tx:
        Spending(tx).set_cap(1.4, now)
        spent = PurposeSpending(SpendingPurpose.EVALS, 1.4567, calls=3)
        Spending(tx).add(month_of(now), spent)


def _harm(cli: CommandLine, route: str) -> None:
    """The candidate fails until the guard ends its canary."""
    world = cli.world
    number = 0
    live = True
    while live:
        with world.store.write() as tx:
            found = [rollout for rollout in Rollouts(tx).live() if rollout.route == route]
            blocks = [
                block_of(rollout, number + more, world.clock, failing=True)
                for rollout in found
                for more in range(8)
            ]
            Observations(tx).append(blocks, [])
        world.run_once()
        number = number + 8
        live = bool(found)
    assert number < 80


def _record_traffic(cli: CommandLine) -> None:
    """Three days of `mixed`; of `held` an hour, which ended ten minutes ago."""
    now = cli.world.clock.now().replace(second=0, microsecond=0)
    with cli.world.store.write() as tx:
        table = Routing(tx).table().routes
        minutes = [
            *(("mixed", now - timedelta(hours=hours)) for hours in (72, 0)),
            *(("held", now - number * MINUTE) for number in range(10, 70)),
        ]
        Observations(tx).append(
            [],
            [_minute(name, minute, table[name].incumbent) for name, minute in minutes],
        )


def _minute(
    route: str,
    minute: object,
    target: str,
) -> TrafficMinute:
    return TrafficMinute(
        route=route,
        minute=minute,  # type: ignore[arg-type]  # a datetime
        worker="w",
        arm="incumbent",
        target=target,
        revision=1,
        requests=1_000,
        failed=1,
        charged=1,
        streams=0,
        input_tokens=400_000,
        output_tokens=80_000,
        cost_usd=5.612,
        latency_ms={50: 1_000},
    )


def _read(cli: CommandLine, made: Mapping[str, str]) -> Reading:
    ctx = cli.world.context()
    compared = comparison.load_comparison(ctx, made["mixed"])
    assert compared.basis is not None
    bill = scorecard.build_scorecard(ctx, "mixed").bill
    (alert,) = [line for line in cli.json("alert", "list") if line["kind"] == "canary_held"]
    texts = {name: cli.text(*words.format(**made).split()) for name, words in COMMANDS.items()}
    return Reading(
        texts={**texts, **_pages(made)},
        basis=compared.basis,
        month=bill.month_text,
        month_usd=format_month_usd(bill.month_usd),
        hold=alert["text"],
        next_steps={
            route: comparison.load_comparison(ctx, made[route]).next_step for route in ENDS
        },
    )


def _pages(made: Mapping[str, str]) -> Mapping[str, str]:
    app = AppTest.from_file(str(MAIN), default_timeout=120)
    app.run()
    found = {}
    for name, (page, query) in PAGES.items():
        app.query_params.clear()
        for key, value in query.items():
            app.query_params[key] = value.format(**made)
        app.switch_page(f"views/{page}.py").run()
        if page in ("canary", "routes"):
            # AppTest does not bind a widget to the address.
            app.selectbox(key="route").select(query["route"]).run()
        assert not app.exception, name
        found[name] = _plain(app)
    return found


def _plain(app: AppTest) -> str:
    bodies = "\n".join(str(element.proto.body) for element in app.get("html"))
    text = unescape(
        re.sub(r"<style>.*?</style>|<[^>]+>", " ", bodies, flags=re.DOTALL)
    ).replace("\N{NO-BREAK SPACE}", " ")
    return re.sub(r"\s+", " ", text)


def _all(
    reading: Reading,
    pattern: str,
    names: Sequence[str],
) -> set[str]:
    return {match for name in names for match in re.findall(pattern, reading.texts[name])}


@pytest.mark.verify
def test_what_a_route_costs_is_one_figure_with_its_window(reading: Reading) -> None:
    assert reading.month.startswith(f"about {reading.month_usd} a month, estimated from 3 days")
    for name in ("overview", "routes", "route show"):
        assert reading.month in reading.texts[name], name
    assert reading.month_usd in reading.texts["route measured"]
    for name in ("compare", "proposal show", "report"):
        assert f"costs about {reading.month_usd} a month now" in reading.texts[name], name
    assert _all(reading, r"\$[\d.,]+ a month", OF_MIXED) == {f"{reading.month_usd} a month"}


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("overview", "status"),
        ("traffic", "route traffic"),
        ("keys", "spending command"),
    ],
)
def test_a_page_and_its_command_begin_with_one_sentence(
    reading: Reading,
    page: str,
    command: str,
) -> None:
    sentence = reading.texts[command].splitlines()[0].rstrip(".")
    assert _squeezed(sentence) in _squeezed(reading.texts[page])


def test_a_freeze_is_said_in_one_sentence_wherever_it_holds_something_back(
    reading: Reading,
) -> None:
    notice = next(line for line in reading.texts["status"].splitlines() if FROZEN in line)
    assert notice.startswith("Route mixed is frozen until ")
    for page in ("overview", "proposals", "compare", "routes"):
        assert notice in reading.texts[page], page
    assert FROZEN not in reading.texts["canary of held"]
    assert re.search(
        rf" mixed +in force .* {FROZEN}$",
        reading.texts["freezes"],
        re.MULTILINE,
    )


def test_a_change_request_stands_wherever_its_swap_does(reading: Reading) -> None:
    for name in ("proposals", "compare", "proposal show", "report"):
        assert CHANGE in reading.texts[name], name


def test_less_than_a_day_of_traffic_makes_no_month(reading: Reading) -> None:
    assert "a month unknown" in reading.texts["overview"]


def test_the_items_that_decided_are_counted_alike(reading: Reading) -> None:
    basis = reading.basis
    for name in ("proposal show", "report"):
        assert f"Decided on {basis.items_text}." in reading.texts[name], name
    assert _all(reading, r"([\d,]+) shared items", ["compare"]) == {f"{basis.items_used:,}"}


@pytest.mark.req("A7", "F10")
@pytest.mark.parametrize("route", ENDS)
def test_what_to_do_next_is_one_sentence(reading: Reading, route: str) -> None:
    step = _squeezed(reading.next_steps[route])
    for door in ("compare", "show", "report"):
        assert step in _squeezed(reading.texts[f"{door} of {route}"]), door


def test_the_weighted_mean_is_no_suite_of_its_own(reading: Reading) -> None:
    assert len(reading.basis.suites) == 2
    for name, text in reading.texts.items():
        assert not re.search(r"\b3 suites\b", text), name
    for name in ("proposal show", "report"):
        assert reading.texts[name].count("counts in the mean") == 2, name


def test_a_hold_is_the_first_thing_that_is_said_of_its_route(reading: Reading) -> None:
    predicate = re.search(r"is (on hold at [\d.]+ %)", reading.texts["canary of held"])
    assert predicate is not None
    state = f"canary {predicate[1]}"
    assert f"1 route needs a decision: held ({state})" in reading.texts["overview"]
    assert f"Route held · ? {state} · claim" in reading.texts["proposals"]
    for name in ("overview", "canary of held", "canary status held"):
        assert _squeezed(reading.hold) in _squeezed(reading.texts[name]), name
    first = reading.texts["route list"].splitlines()[1]
    assert first.startswith("held ")
    assert state in first


def test_a_rollback_by_hand_after_the_bake_is_no_steady_route(reading: Reading) -> None:
    overview = reading.texts["overview"]
    canary = reading.texts["canary of undone"]
    assert "undone ✕ promotion rolled back" in overview
    assert re.search("sim/better had its promotion rolled back", canary)
    assert "Promotion rolled back by local" in canary
    assert "it is too chatty" in canary
    assert "promoted, then rolled back" in canary
    assert "By local: it is too chatty." in overview
    assert "Promotion rolled back by" not in overview
    assert re.search("undone +promotion rolled back ", reading.texts["route list"])
    gone = "promoted, does not serve now"
    assert re.search(f" undone +sim/better +{gone} ", reading.texts["proposal list"])
    assert f"Route undone · = {gone} ·" in reading.texts["proposals"]


@pytest.mark.parametrize("route", ENDS)
def test_an_abort_a_rollback_and_a_promotion_rolled_back_have_each_one_name_everywhere(
    reading: Reading, route: str
) -> None:
    word, sentence, listed = ENDS[route]
    texts = reading.texts
    assert re.search(rf"^phase +{word}$", texts[f"show of {route}"], re.MULTILINE)
    assert re.search(rf"^state +{word}$", texts[f"status of {route}"], re.MULTILINE)
    assert re.search(rf" {route} +sim/better +{word} ", texts["proposal list"])
    assert re.search(rf"^{route} +{listed} ", texts["route list"], re.MULTILINE)
    assert listed in texts[f"history of {route}"]
    assert f"{route} ✕ {listed}" in texts["overview"]
    assert f"Route {route} · ✕ {word} ·" in texts["proposals"]
    assert f"but {sentence}" in texts[f"compare of {route}"]
    assert re.search(rf"sim/better (was|had its) {word}", texts[f"canary of {route}"])
    assert listed in texts[f"routes of {route}"]
    assert f"{word.capitalize()}" in texts[f"report of {route}"]
    assert (f"canary of route {route} was rolled back" in texts["alert list"]) == (
        word == "rolled back"
    )
    who = {
        "ended": "aborted by ben",
        "harmed": "The candidate",
        "taken": f"{word} by local",
    }[route]
    assert re.search(rf"route {route}\b.*: {who}", texts["audit log"])
    # What a policy says of canaries in general stands last on the page Routes.
    about = [texts[name] for name in texts if name.endswith(f"of {route}")]
    ours = " ".join(text.partition(policies.NOTE)[0] for text in about)
    ours = ours.casefold().replace(word, "").replace(sentence, "")
    others = {other for other, *_ in ENDS.values()} - {word}
    assert {other for other in others if other in ours} == set()


def _squeezed(text: str) -> str:
    """Without marks of code and line ends, which a page and a terminal set differently."""
    return re.sub(r"[\s`]+", " ", text)
