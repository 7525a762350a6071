"""The demo says of a failing candidate that the incumbent answered each of its callers."""

from datetime import timedelta

import pytest

from harness.app.demo.rescued import count_rescued_callers
from harness.gate.online.observation import TrafficMinute
from harness.providers.target import Target
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from tests.support.control.control_plane import SmallInstallation

pytestmark = pytest.mark.req("F3")


@pytest.mark.parametrize(
    ("by_candidate", "by_incumbent", "by_other", "all_rescued"),
    [
        # Requests whose candidate failed, and of these the requests that failed, by the target
        # that the router called last.
        ((0, 0), (4, 0), (0, 0), True),
        ((0, 0), (0, 0), (0, 0), False),
        ((0, 0), (4, 1), (0, 0), False),
        ((1, 1), (4, 0), (0, 0), False),
        ((0, 0), (4, 0), (1, 0), False),
    ],
)
def test_all_callers_are_rescued_only_if_the_incumbent_answered_each(
    plain_world: SmallInstallation,
    by_candidate: tuple[int, int],
    by_incumbent: tuple[int, int],
    by_other: tuple[int, int],
    *,
    all_rescued: bool,
) -> None:
    world = plain_world
    candidate = Target("prov", "silent")
    with world.store.read() as tx:
        table = Routing(tx).table()
    incumbent = table.targets[table.routes["chat"].incumbent]
    minute = world.clock.now().replace(second=0, microsecond=0)
    last = {candidate.id: by_candidate, incumbent.id: by_incumbent, "t_other": by_other}
    rows = [
        TrafficMinute(
            "chat", minute, "w", "canary", target, 1, 9, failed, charged, 0, 0, 0, 0.0
        )
        for target, (charged, failed) in last.items()
    ]
    # The incumbent's own callers do not count.
    rows.append(
        TrafficMinute("chat", minute, "w", "incumbent", incumbent.id, 1, 9, 2, 2, 0, 0, 0, 0.0)
    )
    with world.store.write() as tx:
        Observations(tx).append([], rows)

    found = count_rescued_callers(
        world.context(),
        "chat",
        candidate=candidate,
        incumbent=incumbent,
        since=minute - timedelta(minutes=1),
    )

    assert found.all_rescued is all_rescued
