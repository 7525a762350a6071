from dataclasses import replace
from datetime import date, timedelta

import pytest

from harness.domain.errors import Conflict, NotFound
from harness.domain.shadow import Shadow, ShadowLimits, ShadowTally
from harness.store.store import Store
from tests.support.store.records import LATER, NEW, NOW, OLD, ROUTE

pytestmark = pytest.mark.req("F8")

SHADOW = Shadow(
    id="sh_1",
    route=ROUTE,
    incumbent=OLD.id,
    candidate=NEW,
    data_class="personal",
    limits=ShadowLimits(500, 2, 100, 0.5),
    proposal=None,
    reason="a look before it is proposed",
    started_by="ada",
    started_at=NOW,
    expires_at=LATER,
)
DAY = date(2026, 11, 20)
TALLY = ShadowTally("sh_1", DAY, "w-1", {"mirrored": 2, "pairs": 1}, {"similarity": 0.5})


@pytest.fixture
def started(store: Store) -> Store:
    with store.write() as tx:
        for target in (OLD, NEW):
            tx.routing.add_target(target)
        tx.shadows.add(SHADOW)
    return store


def test_a_route_has_one_at_a_time_and_ending_it_tells_the_routers(started: Store) -> None:
    assert started.snapshot().shadows == (SHADOW,)
    second = replace(SHADOW, id="sh_2", started_at=NOW + timedelta(seconds=1))
    with pytest.raises(Conflict, match="shadow stop"), started.write() as tx:
        tx.shadows.add(second)

    with started.write() as tx:
        ended = tx.shadows.end("sh_1", actor="kim", because="enough seen", now=NOW)
    with started.write() as tx:
        again = tx.shadows.end("sh_1", actor="ada", because="late", now=LATER)
        tx.shadows.add(second)

    assert again == ended
    assert ended == replace(SHADOW, ended_at=NOW, ended_by="kim", ended_because="enough seen")
    assert [shadow.id for shadow in started.snapshot().shadows] == ["sh_2"]
    with started.read() as tx:
        assert [shadow.id for shadow in tx.shadows.list()] == ["sh_2", "sh_1"]
        assert tx.shadows.list(route="another") == []
    with pytest.raises(NotFound, match="sh_9"), started.write() as tx:
        tx.shadows.end("sh_9", actor="kim", because="", now=NOW)


def test_what_workers_add_up_is_added_to_what_is_there(started: Store) -> None:
    more = replace(TALLY, counts={"pairs": 3, "slower": 1}, sums={"similarity": 1.0})
    other = replace(TALLY, worker="w-2", day=DAY - timedelta(days=1))
    with started.write() as tx:
        tx.shadows.append([TALLY, other])
    with started.write() as tx:
        tx.shadows.append([more])

    with started.read() as tx:
        today = tx.shadows.tallies(["sh_1"], since=DAY)
        assert len(tx.shadows.tallies(["sh_1"])) == 2
        assert tx.shadows.tallies([]) == []

    counts = {"mirrored": 2, "pairs": 4, "slower": 1}
    assert today == [replace(TALLY, counts=counts, sums={"similarity": 1.5})]
