from dataclasses import replace
from datetime import date, timedelta

import pytest

from harness.app.store.store import Store
from harness.frame.errors import Conflict, NotFound
from harness.providers.records import Targets
from harness.routing.records.interventions import Shadows
from harness.routing.shadow import Shadow, ShadowLimits, ShadowTally
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
            Targets(tx).add(target)
        Shadows(tx).add(SHADOW)
    return store


def test_a_route_has_one_at_a_time_and_ending_it_tells_the_routers(started: Store) -> None:
    assert started.snapshot().shadows == (SHADOW,)
    second = replace(SHADOW, id="sh_2", started_at=NOW + timedelta(seconds=1))
    with pytest.raises(Conflict, match="shadow stop"), started.write() as tx:
        Shadows(tx).add(second)

    with started.write() as tx:
        ended = Shadows(tx).end(
            "sh_1",
            actor="kim",
            because="enough seen",
            now=NOW,
        )
    with started.write() as tx:
        again = Shadows(tx).end(
            "sh_1",
            actor="ada",
            because="late",
            now=LATER,
        )
        Shadows(tx).add(second)

    assert again == ended
    assert ended == replace(
        SHADOW,
        ended_at=NOW,
        ended_by="kim",
        ended_because="enough seen",
    )
    assert [shadow.id for shadow in started.snapshot().shadows] == ["sh_2"]
    with started.read() as tx:
        assert [shadow.id for shadow in Shadows(tx).list()] == [
            "sh_2",
            "sh_1",
        ]
        assert Shadows(tx).list(route="another") == []
    with pytest.raises(NotFound, match="sh_9"), started.write() as tx:
        Shadows(tx).end(
            "sh_9",
            actor="kim",
            because="",
            now=NOW,
        )


def test_what_workers_add_up_is_added_to_what_is_there(started: Store) -> None:
    more = replace(TALLY, counts={"pairs": 3, "slower": 1}, sums={"similarity": 1.0})
    other = replace(TALLY, worker="w-2", day=DAY - timedelta(days=1))
    with started.write() as tx:
        Shadows(tx).append([TALLY, other])
    with started.write() as tx:
        Shadows(tx).append([more])

    with started.read() as tx:
        today = Shadows(tx).tallies(["sh_1"], since=DAY)
        assert len(Shadows(tx).tallies(["sh_1"])) == 2
        assert Shadows(tx).tallies([]) == []

    counts = {
        "mirrored": 2,
        "pairs": 4,
        "slower": 1,
    }
    assert today == [replace(TALLY, counts=counts, sums={"similarity": 1.5})]
