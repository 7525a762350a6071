import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest
import sqlalchemy as sa

from harness.agents.records import (
    AgentGrants,
    Agents,
    SessionMessages,
    Sessions,
    SwitchRequests,
)
from harness.app.store.store import Store
from harness.frame.alerts.records import Alerts
from harness.frame.errors import InputError, NotFound
from harness.frame.pagination import Page, PageRequest, read_all
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.people.records import ApiKeys
from harness.frame.records.repository import PageReader
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import AuditFilter
from harness.frame.signing.audit_log import AuditLog
from harness.gate.run import RunState
from harness.operations.listings import Listings
from harness.operations.records import Captures
from harness.providers.records import Targets
from harness.providers.target import Target
from harness.routing.proposal import ProposalPhase
from harness.routing.records.failovers import Failovers
from harness.routing.records.interventions import (
    BreakGlasses,
    Shadows,
    Switches,
)
from harness.routing.records.proposals import Proposals
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns
from harness.routing.route_changes import ChangeSettings
from tests.contract import test_store_alerts as alerts
from tests.contract import test_store_observations as observations
from tests.contract import test_store_routing as switches
from tests.contract import test_store_shadows as shadows
from tests.contract.test_store_signatures import BROKEN
from tests.support.control.manual_clock import ManualClock
from tests.support.store import agent_records as agents
from tests.support.store.records import (
    KEY,
    LATER,
    NEW,
    NOW,
    OLD,
    ROUTE,
    RUN,
    SAMPLE,
    SETTINGS,
    create_route,
    proposal,
)
from tests.support.store.tampering import owned

pytestmark = [pytest.mark.req("F5"), pytest.mark.both_databases]


def at(number: int) -> datetime:
    """Several of one moment: what comes after the time decides."""
    return NOW + timedelta(seconds=number // 3)


def nothing(tx: Transaction) -> None:
    """What a list's rows need."""


def two_targets(tx: Transaction) -> None:
    Targets(tx).add(OLD)
    Targets(tx).add(NEW)


def a_run(tx: Transaction) -> None:
    two_targets(tx)
    EvalRuns(tx).add(RUN)


def a_route(tx: Transaction) -> None:
    create_route(tx)


def an_agent(tx: Transaction) -> None:
    Targets(tx).add(NEW)
    agents.add_agent(tx)


def add_shadow(tx: Transaction, n: int) -> None:
    Shadows(tx).add(replace(shadows.SHADOW, id=f"sh_{n:02}", started_at=at(n)))
    Shadows(tx).end(
        f"sh_{n:02}",
        actor="ada",
        because="seen",
        now=LATER,
    )


def add_version(tx: Transaction, n: int) -> None:
    before = Routing(tx).route(ROUTE)
    assert before is not None
    change = ChangeSettings(ROUTE, replace(SETTINGS, description=f"the {n}th"))
    Routing(tx).commit(
        change,
        expected_version=before.version,
        actor="ada",
        reason="so",
        now=at(n),
    )


def add_event(tx: Transaction, n: int) -> None:
    tx._clock = ManualClock(at(n))
    AuditLog(tx).append(SYSTEM, "a", str(n), {})


@dataclass(frozen=True)
class Listed:
    """read: a page. add: the row of that number. before: what rows need. id_: of a row."""

    read: Callable[[Listings, PageRequest], Page[Any]]
    add: Callable[[Transaction, int], object]
    before: Callable[[Transaction], None] = nothing
    id_: Callable[[Any], object] = lambda row: row.id


LISTS: Final[Mapping[str, Listed]] = {
    "proposals": Listed(
        lambda stored, page: stored.proposals(page, route=ROUTE),
        lambda tx, n: Proposals(tx).add(
            proposal(f"p_{n:02}", created_at=at(n), phase=ProposalPhase.REJECTED)
        ),
        two_targets,
    ),
    "runs": Listed(
        lambda stored, page: stored.runs(page, states=[RunState.DONE]),
        lambda tx, n: EvalRuns(tx).add(
            replace(
                RUN,
                id=f"r_{n:02}",
                created_at=at(n),
                state=RunState.DONE,
            )
        ),
        two_targets,
    ),
    "samples": Listed(
        lambda stored, page: stored.samples(page, run=RUN.id),
        lambda tx, n: EvalRuns(tx).store_sample(
            replace(
                SAMPLE,
                item=f"a, b/{n}",
                position=n // 3,
                epoch=n % 2,
            )
        ),
        a_run,
        lambda row: row.item,
    ),
    "targets": Listed(
        lambda stored, page: stored.targets(page),
        lambda tx, n: Targets(tx).add(Target("sim", f"m-{n // 3}", {"seed": n})),
    ),
    "routes": Listed(
        lambda stored, page: stored.routes(page),
        lambda tx, n: create_route(tx, f"route-{n:02}"),
        id_=lambda row: row.name,
    ),
    "versions": Listed(
        lambda stored, page: stored.versions(page, route=ROUTE),
        add_version,
        a_route,
        lambda row: row.route.version,
    ),
    "keys": Listed(
        lambda stored, page: stored.keys(page),
        lambda tx, n: ApiKeys(tx).add(
            replace(
                KEY,
                id=f"k_{n:02}",
                hash=f"{n:064}",
                created_at=at(n),
            )
        ),
    ),
    "switches": Listed(
        lambda stored, page: stored.switches(page),
        lambda tx, n: Switches(tx).add(
            replace(switches.SWITCH, id=f"sw_{n:02}", created_at=at(n))
        ),
        id_=lambda row: row.switch.id,
    ),
    "break_glasses": Listed(
        lambda stored, page: stored.break_glasses(page),
        lambda tx, n: BreakGlasses(tx).add(
            replace(
                BROKEN,
                id=f"bg_{n:02}",
                route=f"r{n}",
                created_at=at(n),
            )
        ),
        two_targets,
    ),
    "shadows": Listed(
        lambda stored, page: stored.shadows(page, route=ROUTE),
        add_shadow,
        two_targets,
    ),
    "alerts": Listed(
        lambda stored, page: stored.alerts(page, open_only=True),
        lambda tx, n: Alerts(tx).fold([replace(alerts.OPENED, key=f"k:{n}", at=at(n))]),
    ),
    "failovers": Listed(
        lambda stored, page: stored.failovers(page, since=NOW),
        lambda tx, n: Failovers(tx).append(
            [
                replace(
                    alerts.ROW,
                    worker=f"w,{n % 2}",
                    number=n + 1,
                    at=at(n),
                )
            ]
        ),
        id_=lambda row: row.number,
    ),
    "captures": Listed(
        lambda stored, page: stored.captures(page, route="triage"),
        lambda tx, n: Captures(tx).store(
            replace(observations.ONE, id=f"cap_{n}", at=at(n)),
            most_per_day=100,
        ),
    ),
    "agents": Listed(
        lambda stored, page: stored.agents(page, owner_key=agents.AGENT.owner_key),
        lambda tx, n: Agents(tx).add(
            replace(
                agents.AGENT,
                id=f"ag_{n:02}",
                created_at=at(n),
                updated_at=at(n),
            )
        ),
    ),
    "sessions": Listed(
        lambda stored, page: stored.sessions(page, agent=agents.AGENT.id),
        lambda tx, n: Sessions(tx).add(
            replace(
                agents.SESSION,
                id=f"se_{n:02}",
                created_at=at(n),
                last_at=at(n),
            )
        ),
        an_agent,
    ),
    "session_messages": Listed(
        lambda stored, page: stored.session_messages(page, session=agents.SESSION.id),
        lambda tx, n: SessionMessages(tx).add(agents.message(n + 1)),
        an_agent,
    ),
    "switch_requests": Listed(
        lambda stored, page: stored.switch_requests(page, session=agents.SESSION.id),
        lambda tx, n: SwitchRequests(tx).add(
            replace(agents.REQUEST, id=f"sw_{n:02}", asked_at=at(n))
        ),
        an_agent,
    ),
    "agent_grants": Listed(
        lambda stored, page: stored.agent_grants(page, agent=agents.AGENT.id),
        lambda tx, n: AgentGrants(tx).add(
            replace(agents.GRANT, id=f"gr_{n:02}", created_at=at(n))
        ),
        an_agent,
    ),
    "events": Listed(
        lambda stored, page: stored.events(page),
        add_event,
        id_=lambda row: row.number,
    ),
}


def test_every_list_is_held_to_this() -> None:
    paged = {
        name
        for name, method in inspect.getmembers(Listings, inspect.isfunction)
        if "page_request" in inspect.signature(method).parameters
        and not hasattr(PageReader, name)
    }
    assert paged == LISTS.keys()


@pytest.mark.parametrize("listed", LISTS.values(), ids=LISTS)
def test_pages_are_complete_and_without_doubles_while_rows_are_added(
    store: Store, listed: Listed
) -> None:
    with store.write() as tx:
        listed.before(tx)
        for number in range(11):
            listed.add(tx, number)
    with store.listings() as stored:
        whole = listed.read(stored, PageRequest(1000))
        everything = [listed.id_(row) for row in whole]
        with pytest.raises((NotFound, InputError)):
            listed.read(stored, PageRequest(2, "no such, row"))
    assert len(everything) == whole.total >= 11
    assert whole.next is None

    found: list[object] = []
    request = PageRequest(3)
    for number in range(11, 100):
        with store.listings() as stored:
            page = listed.read(stored, request)
        assert 0 < len(page) <= 3
        assert not page.invalid
        found += [listed.id_(row) for row in page]
        if page.next is None:
            break
        request = PageRequest(3, page.next)
        with store.write() as tx:
            # The newest: in front of what was read, or at the very end.
            listed.add(tx, number)
    assert len(set(found)) == len(found)
    assert [row for row in found if row in everything] == everything


def test_a_page_is_filled_with_the_switches_of_a_route_before_its_limit(store: Store) -> None:
    """The newest is another route's."""
    with store.write() as tx:
        for number, route in enumerate(("chat", "chat", None, "mail")):
            at = NOW + timedelta(minutes=number)
            thrown = replace(
                switches.SWITCH,
                id=f"sw_{number}",
                route=route,
                created_at=at,
            )
            Switches(tx).add(thrown)
    with store.listings() as stored:
        page = stored.switches(PageRequest(2), route="chat")
    assert [row.switch.id for row in page] == ["sw_2", "sw_1"]
    assert page.total == 3


def raw(store: Store, statement: str) -> None:
    with owned(store) as db:
        db.execute(sa.text(statement))


@pytest.mark.req("F1")
def test_a_forged_version_key_switch_run_sample_or_model_hides_no_other(
    sql_stores: Callable[[], Store],
) -> None:
    store = sql_stores()
    with store.write() as tx:
        a_route(tx)
        EvalRuns(tx).add(RUN)
        for number in range(3):
            add_version(tx, number)
            LISTS["keys"].add(tx, number)
            LISTS["switches"].add(tx, number)
            LISTS["runs"].add(tx, number)
            LISTS["samples"].add(tx, number)
        add_shadow(tx, 1)
    for statement in (
        "UPDATE route_version SET reason = 'no' WHERE version = 2",
        "UPDATE api_key SET name = 'no' WHERE id = 'k_01'",
        "UPDATE switch SET reason = 'no' WHERE id = 'sw_01'",
        "UPDATE eval_run SET suite = 'no' WHERE id = 'r_01'",
        "UPDATE sample SET strict = 0.5 WHERE position = 0 AND epoch = 1",
        "UPDATE target SET model = 'no' WHERE model = 'new-1'",
    ):
        raw(store, statement)

    with store.listings() as stored:
        lists: dict[str, Page[Any]] = {
            "versions": stored.versions(route=ROUTE),
            "keys": stored.keys(),
            "switches": stored.switches(),
            "runs": stored.runs(),
            "samples": stored.samples(run=RUN.id),
            "targets": stored.targets(),
            # Whose candidate is the forged model.
            "shadows": stored.shadows(),
        }
        assert {name for name, page in lists.items() if len(page.invalid) == 1} == lists.keys()
        assert {name: len(page) for name, page in lists.items()} == {
            "versions": 3,
            "keys": 2,
            "switches": 2,
            "runs": 3,
            "samples": 2,
            "targets": 2,
            "shadows": 0,
        }
        assert stored.targets_of([NEW.id, OLD.id]) == {OLD.id: OLD}
        assert [route.name for route in stored.routes()] == [ROUTE]


SELECTIONS: Final[Mapping[AuditFilter, list[int]]] = {
    AuditFilter(): [3, 2, 1],
    AuditFilter(actor="AN"): [2],
    AuditFilter(actor="key_ana"): [2],
    AuditFilter(actor="key_an"): [],
    AuditFilter(actor="a"): [3, 2, 1],
    AuditFilter(actor="a", action="ROUTE"): [3, 2],
    AuditFilter(actor="a", since=NOW + timedelta(seconds=2)): [3, 2],
    AuditFilter(actor="a", until=NOW + timedelta(seconds=2)): [1],
    AuditFilter(actor="a", subject="nothing"): [],
    AuditFilter(action="rollback"): [3],
    AuditFilter(action="1%"): [],
    AuditFilter(subject="chat"): [3, 2],
    AuditFilter(since=NOW + timedelta(seconds=2)): [3, 2],
    AuditFilter(until=NOW + timedelta(seconds=2)): [1],
    AuditFilter(subject="chat", until=NOW + timedelta(seconds=3)): [2],
}


def test_audit_events_are_selected_by_who_what_and_when(store: Store) -> None:
    ana = Actor("Ana", Role.ADMIN, "pr_ana", "key_ana")
    with store.write() as tx:
        for number, actor, action, subject in (
            (1, SYSTEM, "1000 things", "alert al_1"),
            (2, ana, "route.create", "route chat"),
            (3, SYSTEM, "route.rollback", "route chat"),
        ):
            tx._clock = ManualClock(NOW + timedelta(seconds=number))
            AuditLog(tx).append(actor, action, subject, {})

    with store.listings() as stored:
        for selection, numbers in SELECTIONS.items():
            page = stored.events(PageRequest(1), selection=selection)
            found = list(read_all(partial(stored.events, selection=selection)))
            assert [event.number for event in found] == numbers, selection
            assert page.total == len(numbers)
            one_by_one = [event.number for event in page]
            while page.next is not None:
                page = stored.events(PageRequest(1, page.next), selection=selection)
                one_by_one += [event.number for event in page]
            assert one_by_one == numbers, selection
