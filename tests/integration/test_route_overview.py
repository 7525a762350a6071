from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from harness.control.canary import operations
from harness.control.canary.status import list_canaries
from harness.control.operations import queries
from harness.control.routing import fallback_chain, kill_switch, routes
from harness.control.routing import queries as route_queries
from harness.control.routing.fallback_chain import FallbackRequest, WaiverRequest
from harness.control.routing.kill_switch import SwitchRequest
from harness.control.routing.route_status import describe_needs
from harness.domain.canary.rollout import RolloutSignal
from harness.domain.errors import NotFound, SignatureInvalid
from harness.domain.operations.access import SYSTEM
from harness.domain.pagination import PageRequest
from harness.domain.routing.kill_switch import SwitchSource, parse_force
from harness.domain.routing.table import RouteSettings, RouteSuite
from tests.support.control.control_plane import BEN, SmallInstallation
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

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
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


@pytest.mark.req("F1")
@pytest.mark.both_databases
def test_an_ended_canary_of_a_route_with_a_proposal_is_read_where_it_is_shown(
    world: SmallInstallation,
) -> None:
    ctx = world.context()
    world.decided()
    world.run_once()
    with ctx.store.read() as tx:
        (rollout,) = tx.rollouts.live()
    operations.operate(ctx, BEN, "chat", RolloutSignal.ABORT, "enough")
    world.run_once()
    world.propose("sim/worse")
    overview = route_queries.load_overview(ctx)
    (listed,) = overview.active
    (shown,) = route_queries.load_statuses(ctx, overview, overview.names)
    assert shown == route_queries.load_status(ctx, "chat")
    assert (listed.state, listed.urgency(overview.at)) == (
        shown.state,
        shown.urgency(overview.at),
    )
    assert shown.last_rollout is not None
    assert shown.last_rollout.id == rollout.id
    assert shown.changed_at == shown.last_rollout.updated_at

    with owned(world.store) as db:
        db.execute(sa.text("UPDATE rollout SET ended_because = 'it was fine'"))
    overview = route_queries.load_overview(ctx)
    page = route_queries.load_statuses(ctx, overview, overview.names)
    assert list(page) == []
    assert ["chat" in str(fault.key) for fault in page.invalid] == [True]


@pytest.mark.req("F1")
def test_canaries_are_not_listed_with_a_forged_proof(world: SmallInstallation) -> None:
    open_canary(world, "chat")
    assert len(list_canaries(world.context())) == 1
    with owned(world.store) as db:
        assert db.execute(sa.text("UPDATE verdict SET reason = 'It is better.'")).rowcount
    with pytest.raises(SignatureInvalid, match="verdict"):
        list_canaries(world.context())


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
        thrown = kill_switch.throw_switch(ctx, BEN, wanted, source=SwitchSource.CLI)
        serves = route_queries.load_status(ctx, "chat").serves
        kill_switch.lift_switch(ctx, BEN, thrown.id, reason="a test")
        return serves

    assert throw("avoid:target:sim/base") == "sim/good"
    assert throw("target:sim/good") == "sim/good"
    assert throw("avoid:target:sim/good") == "sim/base"
    assert route_queries.load_status(ctx, "chat").serves == "sim/base"
