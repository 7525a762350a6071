"""Versions side by side on one database: this one's processes and users go on while the next
one's `db upgrade` runs and afterwards, and again after `db downgrade`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.sim import server as sim
from harness.store import migrate, schema_revisions
from tests.support.providers import simulator_thread
from tests.support.router.router_process import Routed, routed, start_canary
from tests.support.store.next_version import NEXT, make_next_version

pytestmark = [
    pytest.mark.slow,
    pytest.mark.req("G6"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as url:
        yield url


def start_control(world: Routed) -> None:
    world.place.start("control", "serve", "control", wait_for="/readyz")


def restart_control(world: Routed) -> None:
    assert world.place.terminate("control") == 0
    start_control(world)


def open_rollout(world: Routed) -> tuple[object, ...]:
    """The open rollout as this version stores it: its rules, its evidence, its salt."""
    with world.installation.store.read() as tx:
        (rollout,) = tx.rollouts.live()
        proposal = tx.proposals.get(rollout.proposal)
        return rollout.id, rollout.started_at, rollout.salt, rollout.policy, proposal


def test_users_notice_neither_the_next_versions_upgrade_nor_the_way_back(
    provider: str, database_url: str, tmp_path: Path
) -> None:
    later = make_next_version(tmp_path)
    control = {"reconcile_interval_s": 0.3}
    with routed(tmp_path, provider, database_url, control=control) as world:
        start_canary(world, tmp_path)
        before = open_rollout(world)
        world.start("--workers", "1")
        start_control(world)
        with world.load(callers=2) as load:
            load.more(20)
            world.place.run("db", "upgrade", code=later)
            assert migrate.current(database_url) == NEXT
            load.more(20)
            # A process of this version that starts meanwhile goes on, too.
            restart_control(world)
            load.more(20)
            assert open_rollout(world) == before
            assert "goes on" in world.place.run("db", "check").stderr

            done = world.place.run(
                "db", "downgrade", "--reason", "x", "--yes", expect=6, code=later
            )
            assert "a control process leads" in done.stderr
            assert world.place.terminate("control") == 0
            lost = world.place.run("db", "downgrade", "--reason", "x", "--yes", code=later)
            assert "table next_table, of 0 rows" in lost.stdout
            start_control(world)
            load.more(20)
        assert load.errors == []
        assert migrate.current(database_url) == schema_revisions.needed()
        assert open_rollout(world) == before
        assert world.place.terminate("router") == 0
        assert world.place.terminate("control") == 0
        assert world.recorded() == load.answered
        log = world.place.log("control") + world.place.log("router")
    assert "job_failed" not in log
    assert "does not answer" not in log
