"""Versions side by side on one database: this one's processes and users go on while the next
one's `db upgrade` runs and afterwards, and again after `db downgrade`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals.sim import server as sim
from harness.app.database import upgrade_database
from harness.cli.program import program
from harness.store import migrate, schema_revisions
from tests.support.providers import simulator_thread
from tests.support.router.router_process import Routed, routed, start_canary
from tests.support.site.forked_commands import forked_commands
from tests.support.store.next_version import NEXT, make_next_version

pytestmark = [
    pytest.mark.slow,
    pytest.mark.req("G6"),
    pytest.mark.timeout(900),
]
# Callers who never rested took more of the machine than what they watch.
PAUSE_S, ANSWERS = 0.5, 6


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
    with (
        routed(tmp_path, provider, database_url) as world,
        forked_commands(world.place, later) as its,
    ):
        start_canary(world, tmp_path)
        before = open_rollout(world)
        world.start("--workers", "1")
        start_control(world)
        with world.load(callers=2, pause_s=PAUSE_S) as load:
            load.more(ANSWERS)
            its.run("db", "upgrade")
            assert migrate.current(database_url) == NEXT
            load.more(ANSWERS)
            # A process of this version that starts meanwhile goes on, too.
            restart_control(world)
            load.more(ANSWERS)
            assert open_rollout(world) == before
            check = ["--config", str(world.place.config), "db", "check"]
            assert "goes on" in CliRunner().invoke(program, check).stderr

            downgrade = ("db", "downgrade", "--reason", "x", "--yes")
            assert "a control process leads" in its.run(*downgrade, expect=6)
            assert world.place.terminate("control") == 0
            assert "table next_table, of 0 rows" in its.run(*downgrade)
            # As this version's control would at its start.
            upgrade_database(world.installation.settings)
            load.more(ANSWERS)
        assert load.errors == []
        assert migrate.current(database_url) == schema_revisions.needed()
        assert migrate.check(database_url) == []
        assert world.installation.store.signature_faults() == []
        assert open_rollout(world) == before
        assert world.place.terminate("router") == 0
        assert world.recorded() == load.answered
        log = world.place.log("control") + world.place.log("router")
    assert "job_failed" not in log
    assert "does not answer" not in log
