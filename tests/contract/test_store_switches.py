"""Kill switches of every store, through the port."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from harness.domain.errors import Conflict, InputError, NotFound
from harness.domain.providers.credentials import Credential
from harness.domain.routing.kill_switch import (
    Force,
    ForceKind,
    KillSwitch,
    SwitchRecord,
    SwitchSource,
)
from harness.store.database_errors import RowRefused
from harness.store.store import Store
from tests.contract.conftest import Opener
from tests.support.store.records import LATER, NOW, PROVIDER

REWRITES = (
    "UPDATE switch SET name = 'another' WHERE id = 'sw_1'",
    "UPDATE switch SET route = 'chat', lifted_at = 1, lifted_by = 'eve' WHERE id = 'sw_1'",
    "UPDATE switch SET lifted_at = NULL, lifted_by = NULL WHERE id = 'sw_2'",
    "UPDATE switch SET lifted_by = 'eve' WHERE id = 'sw_2'",
    "DELETE FROM switch",
)

SWITCH = KillSwitch(
    id="sw_1",
    route=None,
    force=Force(ForceKind.PROVIDER, "spare"),
    reason="the other one is down",
    actor="ada",
    created_at=NOW,
    expires_at=LATER,
    source=SwitchSource.CLI,
)
ON_ROUTE = replace(
    SWITCH,
    id="sw_2",
    route="triage",
    force=Force(ForceKind.TARGET, "sim/old-1"),
    created_at=NOW + timedelta(seconds=1),
    expires_at=None,
    source=SwitchSource.REST,
)


@pytest.fixture
def thrown(store: Store) -> Store:
    with store.write() as tx:
        tx.switches.add(SWITCH)
        tx.switches.add(ON_ROUTE)
    return store


@pytest.mark.req("B11")
def test_the_snapshot_has_what_is_in_force_and_another_etag_each_time(store: Store) -> None:
    seen = [store.snapshot()]
    with store.write() as tx:
        tx.switches.add(SWITCH)
    seen.append(store.snapshot())
    with store.write() as tx:
        tx.switches.lift("sw_1", actor="ben", now=NOW)
    seen.append(store.snapshot())

    assert [view.switches for view in seen] == [(), (SWITCH,), ()]
    assert len({view.etag for view in seen}) == 3
    assert store.etag() == seen[-1].etag
    with store.write() as tx:
        tx.switches.add(replace(SWITCH, id="sw_3", expires_at=NOW + timedelta(minutes=1)))
    assert store.snapshot().switches == ()  # it has expired


def test_what_is_no_switch_or_unknown_is_refused(thrown: Store) -> None:
    with pytest.raises(NotFound, match="switch list"), thrown.write() as tx:
        tx.switches.lift("sw_9", actor="ada", now=NOW)
    wrong = [replace(SWITCH, reason=" "), replace(SWITCH, source=SwitchSource.ENVIRONMENT)]
    for switch in wrong:
        with pytest.raises(InputError), thrown.write() as tx:
            tx.switches.add(replace(switch, id="sw_9"))
    with pytest.raises(Conflict), thrown.write() as tx:
        tx.switches.add(SWITCH)


@pytest.mark.req("B11", "D3")
def test_a_waiter_on_another_connection_hears_of_a_switch_and_of_a_key(
    sql_stores: Opener,
) -> None:
    ours, theirs = sql_stores(), sql_stores()
    with ours.write() as tx:
        tx.providers.put(PROVIDER)
    key = Credential("sim", "default", "c1", 0, NOW, NOW, "ada")
    for of_switch in (True, False):
        theirs.wait_for_change(0.1)
        while theirs.wait_for_change(0.1):
            pass
        with ours.write() as tx:
            if of_switch:
                tx.switches.add(SWITCH)
            else:
                tx.credentials.put(key)

        assert theirs.wait_for_change(5)


@pytest.mark.req("B11")
def test_switches_come_back_the_newest_first_and_are_lifted_once(thrown: Store) -> None:
    assert list(thrown.lists.switches()) == [SwitchRecord(ON_ROUTE), SwitchRecord(SWITCH)]
    lifted = SwitchRecord(SWITCH, LATER, "ben")
    with thrown.write() as tx:
        assert tx.switches.get(SWITCH.id) == SwitchRecord(SWITCH)
        assert tx.switches.not_lifted() == [ON_ROUTE, SWITCH]
        assert tx.switches.lift("sw_1", actor="ben", now=LATER) == lifted
    before = thrown.etag()
    with thrown.write() as tx:
        assert tx.switches.lift("sw_1", actor="ada", now=NOW) == lifted
    assert thrown.etag() == before
    with thrown.read() as tx:
        assert tx.switches.not_lifted() == [ON_ROUTE]
        with pytest.raises(NotFound, match="sw_unknown"):
            tx.switches.get("sw_unknown")


def test_the_database_refuses_to_rewrite_a_switch(sql_stores: Opener) -> None:
    store = sql_stores()
    with store.write() as tx:
        tx.switches.add(SWITCH)
        tx.switches.add(ON_ROUTE)
        tx.switches.lift("sw_2", actor="ben", now=NOW)

    for statement in REWRITES:
        with pytest.raises(RowRefused, match="append_only"), store.write() as tx:
            tx.switches._unit.write(sa.text(statement))
