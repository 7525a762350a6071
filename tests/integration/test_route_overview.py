import json
from collections.abc import Callable
from datetime import timedelta
from typing import Final, get_origin

import pytest
import sqlalchemy as sa

from dashboard import markup
from harness.canary.status import list_canaries
from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.pagination import INVALID_ROWS_HINT, Page, PageRequest
from harness.frame.people.access import SYSTEM
from harness.interfaces.api.app import PREFIX, documented_answers
from harness.operations import proposal_rows, queries, route_queries
from harness.operations.route_status import describe_needs
from harness.proposals import (
    decisions,
    fallback_chain,
    recomputation,
    submission,
)
from harness.proposals.fallback_chain import FallbackRequest, WaiverRequest
from harness.providers.force import SwitchSource, parse_force
from harness.routing.control import freezes, routes
from harness.routing.control.freezes import SwitchRequest
from harness.routing.route_settings import RouteSettings, RouteSuite
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.people import BEN
from tests.support.site.command_line import CommandLine
from tests.support.site.management_api import Door
from tests.support.store.tampering import owned

pytestmark = pytest.mark.req("F5")


def create(world: SmallInstallation, *names: str) -> None:
    settings = RouteSettings(suites=(RouteSuite("colours"),))
    for name in names:
        routes.create_route(world.context(), SYSTEM, name, "sim/base", settings=settings)


def open_canary(world: SmallInstallation, route: str) -> None:
    world.decided(route=route)


def count_statements(read: Callable[[], object]) -> int:
    read()
    sent = []

    def note(
        _connection: object,
        _cursor: object,
        statement: str,
        *_: object,
    ) -> None:
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        read()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    return len(sent)


def names(world: SmallInstallation, limit: int) -> list[str]:
    found: list[str] = []
    request = PageRequest(limit)
    while True:
        page = route_queries.load_page(world.context(), request)
        assert len(page) <= limit
        found += [status.route.name for status in page]
        if page.next is None:
            assert page.total == len(found)
            return found
        request = PageRequest(limit, page.next)


def test_the_statements_are_as_many_for_more_routes_and_canaries(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    create(world, "a", "b")
    open_canary(world, "chat")
    reads: list[Callable[[], object]] = [
        lambda: route_queries.load_page(ctx),
        lambda: list_canaries(ctx),
        lambda: queries.list_alerts(ctx),
    ]
    before = [count_statements(read) for read in reads]
    create(world, *(f"more-{number}" for number in range(5)))
    open_canary(world, "a")
    assert len(route_queries.load_page(ctx)) == 8
    assert len(list_canaries(ctx)) == 2
    assert [count_statements(read) for read in reads] == before


@pytest.mark.both_databases
def test_pages_have_the_most_urgent_routes_first_each_as_it_is_shown_alone(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    create(world, "a", "b", "z")
    open_canary(world, "z")
    whole = route_queries.load_page(ctx)
    alone = [route_queries.load_status(ctx, name) for name in ("a", "b", "chat", "z")]
    assert list(whole) == sorted(alone, key=lambda status: status.urgency(ctx.clock.now()))
    assert [status.route.name for status in whole] == ["z", "a", "b", "chat"]
    assert names(world, 1) == names(world, 3) == ["z", "a", "b", "chat"]
    with pytest.raises(NotFound, match="no such"):
        route_queries.load_page(ctx, PageRequest(2, "no such"))


def test_a_route_at_rest_is_known_to_be_there_without_being_read(
    world: SmallInstallation,
) -> None:
    overview = route_queries.load_overview(world.context())
    assert list(overview.active) == []
    assert (overview.names, overview.others) == (["chat"], 1)
    needs = describe_needs(overview.active, 0, overview.at, others=overview.others)
    assert needs == "No route needs you now"


@pytest.mark.req("F1")
@pytest.mark.both_databases
@pytest.mark.parametrize("route", ["z", "b"])
def test_a_forged_route_is_named_on_its_page_and_first_while_something_goes_on(
    world: SmallInstallation, route: str
) -> None:
    ctx = world.context()
    create(world, "a", "b", "z")
    open_canary(world, "z")
    with owned(world.store) as db:
        forge = "UPDATE route_version SET reason = 'no' WHERE route = :route"
        db.execute(sa.text(forge), {"route": route})

    whole = route_queries.load_page(ctx)
    assert route not in {status.route.name for status in whole}
    assert (len(whole), whole.total) == (3, 4)
    [fault] = whole.invalid
    assert fault.key[0] == route
    first = route_queries.load_page(ctx, PageRequest(2))
    # What goes on on "z" comes first, whatever its row says; "b" stands second behind it.
    assert list(first.invalid) == ([fault] if route == "z" else [])
    rest = route_queries.load_page(ctx, PageRequest(2, first.next))
    assert list(rest.invalid) == ([] if route == "z" else [fault])


@pytest.mark.req("B11")
def test_a_route_names_the_fallback_that_a_kill_switch_puts_in_its_models_place(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    waiver = WaiverRequest("a test", timedelta(days=1))
    wish = FallbackRequest("sim/good", waive=waiver)
    fallback_chain.add_fallback(ctx, SYSTEM, "chat", wish, reason="a test")

    def throw(force: str) -> str:
        wanted = SwitchRequest(parse_force(force), "a test")
        thrown = freezes.set_switch(ctx, BEN, wanted, source=SwitchSource.CLI)
        serves = route_queries.load_status(ctx, "chat").serves
        freezes.lift_switch(ctx, BEN, thrown.id, reason="a test")
        return serves

    assert throw("avoid:target:sim/base") == "sim/good"
    assert throw("target:sim/good") == "sim/good"
    assert throw("avoid:target:sim/good") == "sim/base"
    assert route_queries.load_status(ctx, "chat").serves == "sim/base"


# Path → why the whole of it is short. docs/reference/api.md says it in a sentence.
SMALL: Final = {
    "/canaries": "at most one per route",
    "/canaries/{route}/callers": "at most 10,000 hashes of one canary",
    "/credentials/providers": "one per provider",
    "/dashboard-sessions": "who is signed in now",
    "/drift": "one per route and suite",
    "/labellings": "the newest 50",
    "/models/ending": "models in use that end within 90 days",
    "/people": "people and services, not their keys",
    "/policies": "those of the file",
    "/proposals/{proposal}/approvals": "of one proposal",
    "/providers": "those that somebody configured",
    "/providers/matrix": "one per provider",
    "/providers/{provider}/models": "at most 5,000",
    "/routes/{route}/drift": "one per suite of a route",
    "/routes/{route}/fallbacks": "one chain",
    "/routes/{route}/spares": "one chain",
    "/suites": "those of the file",
}


def test_every_list_of_the_api_is_paged_or_named_as_small(cli: CommandLine) -> None:
    paths = Door(cli.world).document["paths"]
    lists = {
        path: {parameter["name"] for parameter in paths[path]["get"].get("parameters", ())}
        for (path, method), kind in documented_answers().items()
        if method == "get" and get_origin(kind) is Page
    }
    whole = {path.removeprefix(PREFIX) for path in lists if "limit" not in lists[path]}
    assert whole == SMALL.keys()
    paged = [lists[path] for path in lists if path.removeprefix(PREFIX) not in SMALL]
    assert all({"limit", "after"} <= names for names in paged)


def forged(world: CommandLine) -> tuple[str, str]:
    """Two proposals that are over, the older one with another reason than was signed."""
    ids = []
    for _ in range(2):
        made = world.world.propose("sim/better")
        decisions.cancel_proposal(world.world.context(), BEN, made.id)
        ids.append(made.id)
    with owned(world.world.store) as db:
        statement = sa.text("UPDATE proposal SET reason = 'so they say' WHERE id = :id")
        db.execute(statement, {"id": ids[0]})
    return ids[0], ids[1]


@pytest.mark.req("F1")
def test_a_forged_proposal_is_named_in_every_list_and_hides_no_other(cli: CommandLine) -> None:
    bad, good = forged(cli)
    said = f"proposal {bad}: {INVALID_ROWS_HINT}"

    for words in (("proposal", "list"), ("proposal", "list", "--json")):
        done = cli.run(*words)
        assert good in done.stdout
        assert bad not in done.stdout
        assert said in done.stderr
    answer = Door(cli.world).send("GET", "/proposals").json()
    assert [item["id"] for item in answer["items"]] == [good]
    assert [(row["table"], row["key"]) for row in answer["invalid"]] == [("proposal", [bad])]
    assert answer["total"] == 2

    page = proposal_rows.list_rows(cli.world.context())
    assert [row.proposal.id for row in page] == [good]
    assert f"proposal {bad}." in markup.invalid(page.invalid)
    assert "swapproof db check" in markup.invalid(page.invalid)
    # A decision reads the row in another way.
    with pytest.raises(SignatureInvalid, match=bad):
        submission.get_proposal(cli.world.context(), bad)


def test_pages_of_the_terminal_and_of_the_api_end_in_a_cursor(cli: CommandLine) -> None:
    for number in range(5):
        cli.run("key", "create", f"shop {number}")
    door = Door(cli.world)

    first = cli.run("key", "list", "--limit", "2", "--json")
    shown = json.loads(first.stdout)
    cursor = shown[-1]["id"]
    assert f"2 of 11: `--after {cursor}` shows the next" in first.stderr
    rest = cli.json("key", "list", "--after", cursor)
    assert len(rest) == 9

    everything: list[str] = []
    path = "/keys?limit=4"
    after: str | None = ""
    while after is not None:
        answer = door.send("GET", path + (f"&after={after}" if after else "")).json()
        everything += [item["id"] for item in answer["items"]]
        after = answer["next"]
    assert everything == [row["id"] for row in (*shown, *rest)]
    assert door.send("GET", "/audit?after=nonsense").status_code == 422
    assert door.send("GET", "/proposals?after=p_unknown").status_code == 404


def test_an_open_proposal_has_nothing_to_replay(world: SmallInstallation) -> None:
    proposal = world.propose()

    with pytest.raises(NotFound, match="has no verdict yet"):
        recomputation.replay_verdict(world.context(), proposal.id)
    with pytest.raises(NotFound):
        recomputation.replay_verdict(world.context(), "v_nobody")
