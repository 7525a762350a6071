"""What the database refuses of bakes and of used verdicts, in raw SQL."""

import pytest

from tests.support.store.raw_rows import (
    CANARY,
    PROMOTION,
    REFUSED,
    SETTINGS,
    Database,
)

PLAN = {"holdback_plan": '{"weight_bps": 100}'}
HELD = {"holdback": "t_old", **PLAN}
FOURTH = {"version": 4, "prev_version": 3, "revision": 5}
ROLLED_BACK = "UPDATE rollout SET state = 'rolled_back', version = version + 1"

pytestmark = [pytest.mark.req("F1", "F3"), pytest.mark.both_databases]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(PROMOTION | {"holdback": "t_third", **PLAN}, id="another target"),
        pytest.param(PROMOTION | {"holdback": "t_old"}, id="without a share"),
        pytest.param(PROMOTION | PLAN, id="a share of nothing"),
        pytest.param(SETTINGS | HELD, id="brought by settings"),
        pytest.param(CANARY | HELD, id="beside a canary"),
    ],
)
def test_a_holdback_is_the_last_incumbent_kept_by_its_promotion(
    database: Database, row: dict[str, object]
) -> None:
    if row["kind"] == "promotion":
        database.insert("route_version", CANARY)
    with pytest.raises(REFUSED, match="holdback"):
        database.insert("route_version", row)


def test_a_promotion_keeps_the_last_incumbent_and_settings_leave_it(
    database: Database,
) -> None:
    database.insert("route_version", CANARY, PROMOTION | HELD)
    new = {"incumbent": "t_new", "incumbent_evidence": "e_new", "prev_incumbent": "t_new"}
    other = HELD | {"holdback_plan": '{"weight_bps": 5000}'}
    with pytest.raises(REFUSED, match="holdback"):
        database.insert("route_version", SETTINGS | new | FOURTH | other)
    database.insert("route_version", SETTINGS | new | FOURTH | HELD)


@pytest.mark.parametrize("row", [CANARY, PROMOTION], ids=["canary", "promotion"])
def test_the_verdict_of_a_rollout_that_was_rolled_back_proves_nothing_more(
    database: Database, row: dict[str, object]
) -> None:
    if row is PROMOTION:
        database.insert("route_version", CANARY)
    database.run(ROLLED_BACK)
    with pytest.raises(REFUSED, match="verdict_used"):
        database.insert("route_version", row)
