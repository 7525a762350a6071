"""Kill switches of every store, through the port."""

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.domain.errors import InputError, NotFound
from harness.domain.routing.kill_switch import (
    Force,
    ForceKind,
    KillSwitch,
    SwitchRecord,
    SwitchSource,
)
from harness.store.store import Store
from tests.support.store.records import LATER, NOW

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
    force=Force(ForceKind.AVOID_TARGET, "sim/old-1"),
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
    with pytest.raises(NotFound, match="switch list"), thrown.write() as tx:
        tx.switches.lift("sw_9", actor="ada", now=NOW)
    with pytest.raises(InputError), thrown.write() as tx:
        tx.switches.add(SWITCH)
