from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest
import sqlalchemy as sa

from harness.app.store.store import Store
from harness.frame.alerts.records import Alerts
from harness.frame.errors import NotFound, SignatureInvalid
from harness.frame.records.transaction import Transaction
from harness.gate.online.rollout import RolloutState
from harness.routing.records.observations import Observations
from harness.routing.records.preload import Preload
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import ChangeSettings, RestoreIncumbent
from tests.contract import test_store_alerts as alerts
from tests.contract.conftest import Opener
from tests.support.store.records import (
    BLOCK,
    FAILED,
    LATER,
    NOW,
    OLD,
    PASSED,
    ROUTE,
    SETTINGS,
    create_route,
    promote,
    seeded,
    start_canary,
)
from tests.support.store.tampering import owned

pytestmark = pytest.mark.both_databases

OTHER: Final = "answers"
UNKNOWN: Final = "unknown"


def lived(store: Store) -> None:
    """A route whose promotion somebody took back, and one where nothing ever happened."""
    seeded(store)
    with store.write() as tx:
        start_canary(tx)
        Observations(tx).append([BLOCK, replace(BLOCK, sequence=BLOCK.sequence + 1)], [])
        promote(tx)
        Rollouts(tx).save(replace(Rollouts(tx).get("ro_1"), state=RolloutState.PROMOTED))
        back = RestoreIncumbent(ROUTE, OLD.id)
        Routing(tx).commit(
            back,
            expected_version=3,
            actor="ada",
            reason="chatty",
            now=LATER,
        )
        Verdicts(tx).store(replace(FAILED, decided_at=LATER), "p_1")
        create_route(tx, OTHER)
        for hours in range(2):
            at = NOW + timedelta(hours=hours)
            Alerts(tx).fold([replace(alerts.OPENED, key="k:1", at=at)])


Ask = Callable[[Transaction, str], Any]
# Of each preload: what is asked one by one, and of which names.
PRELOADS: Final[dict[str, tuple[Ask, tuple[str, ...]]]] = {
    "routes": (
        lambda tx, name: (
            Routing(tx).route(name),
            Routing(tx).changed_at(name),
        ),
        (ROUTE, OTHER, UNKNOWN),
    ),
    "newest_verdicts": (
        lambda tx, name: Verdicts(tx).newest(name),
        (ROUTE, OTHER, UNKNOWN),
    ),
    "newest_rollouts": (
        lambda tx, name: Rollouts(tx).newest(name),
        (ROUTE, OTHER, UNKNOWN),
    ),
    "verdicts": (
        lambda tx, id_: Verdicts(tx).get(id_),
        (PASSED.id, FAILED.id),
    ),
    "newest_alerts": (
        lambda tx, key: Alerts(tx).newest(key),
        ("k:1", UNKNOWN),
    ),
    "blocks": (
        lambda tx, id_: Observations(tx).blocks(id_),
        ("ro_1", UNKNOWN),
    ),
}


def test_what_was_read_for_many_is_what_is_read_one_by_one(store: Store) -> None:
    lived(store)
    for what, (ask, names) in PRELOADS.items():
        with store.read() as tx:
            alone = [ask(tx, name) for name in names]
        with store.read() as tx:
            getattr(Preload(tx), what)(names)
            assert [ask(tx, name) for name in names] == alone, what
        assert any(alone), what


def test_a_unit_of_work_that_writes_reads_what_it_wrote(store: Store) -> None:
    lived(store)
    with store.write() as tx:
        Preload(tx).routes([ROUTE])
        Preload(tx).newest_alerts(["k:1"])
        before = Routing(tx).route(ROUTE)
        known = Alerts(tx).newest("k:1")
        assert before is not None
        assert known is not None
        change = ChangeSettings(ROUTE, replace(SETTINGS, description="another"))
        Routing(tx).commit(
            change,
            expected_version=before.version,
            actor="ada",
            reason="so",
            now=LATER,
        )
        Alerts(tx).fold([replace(alerts.OPENED, key="k:1", at=LATER)])
        after = Routing(tx).route(ROUTE)
        folded = Alerts(tx).newest("k:1")
    assert after is not None
    assert folded is not None
    assert (after.version, after.settings.description) == (
        before.version + 1,
        "another",
    )
    assert folded.count == known.count + 1


@pytest.mark.req("F1")
@pytest.mark.parametrize("table", ["route_version", "verdict", "rollout"])
def test_a_forged_row_that_was_read_with_others_is_refused(
    sql_stores: Opener, table: str
) -> None:
    sql_store = sql_stores()
    lived(sql_store)
    column = {
        "route_version": "reason",
        "verdict": "reason",
        "rollout": "ended_because",
    }[table]
    with owned(sql_store) as db:
        db.execute(sa.text(f"UPDATE {table} SET {column} = 'no' WHERE route = '{ROUTE}'"))  # noqa: S608 - a name of above
    with sql_store.read() as tx:
        for preload in (Preload(tx).routes, Preload(tx).newest_verdicts):
            preload([ROUTE, OTHER])
        Preload(tx).newest_rollouts([ROUTE, OTHER])
        ask = {
            "route_version": Routing(tx).route,
            "verdict": Verdicts(tx).newest,
            "rollout": Rollouts(tx).newest,
        }[table]
        for _ in range(2):  # nor is it believed when it is asked for again
            with pytest.raises(SignatureInvalid, match=table):
                ask(ROUTE)
        assert Routing(tx).route(OTHER) is not None
        with pytest.raises(NotFound):
            Verdicts(tx).get(UNKNOWN)


@pytest.mark.req("F1")
@pytest.mark.parametrize(
    ("change", "is_believed"),
    [
        ("policy = ' ' || policy", True),
        ("policy = replace(policy, ':true', ':false')", False),
        ("policy = 'no JSON'", False),
        ("self_approval = NOT self_approval", False),
        ("created_at = created_at + 1", False),
        ("signature = NULL", False),
    ],
)
def test_a_row_is_believed_by_its_values_however_these_are_written(
    sql_stores: Opener,
    change: str,
    *,
    is_believed: bool,
) -> None:
    sql_store = sql_stores()
    seeded(sql_store)
    with sql_store.read() as tx:
        (signed,) = Proposals(tx).open()
    with owned(sql_store) as db:
        changed = db.exec_driver_sql(f"UPDATE proposal SET {change}")  # noqa: S608 - one of above
        assert changed.rowcount == 1
    with sql_store.read() as tx:
        assert list(Proposals(tx).open()) == ([signed] if is_believed else [])
