"""Rows that look honest, written past Swapgate under a router that serves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.sim import server as sim
from harness.app.database import sql_store
from harness.app.installation import Installation
from harness.control.operations import integrity
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from tests.support.control.control_plane import SmallInstallation
from tests.support.providers import simulator_thread
from tests.support.router.router_process import ROUTE, eventually, routed
from tests.support.store import forged_promotion


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.0)) as url:
        yield url


@pytest.mark.req("F1")
def test_a_router_under_traffic_serves_no_forged_promotion_and_says_so(
    provider: str, tmp_path: Path
) -> None:
    with routed(tmp_path, provider) as world:
        proposal = SmallInstallation(tmp_path, world.installation.store).propose(
            "sim/sim-worse"
        )
        world.start()
        with world.load() as load:
            load.more()
            refusal = forged_promotion.forge_promotion(
                tmp_path / "swapgate.db",
                route=ROUTE,
                candidate=proposal.candidate,
                proposal=proposal.id,
            )
            assert refusal is None, "the database alone cannot tell; else forge them better"
            eventually(lambda: world.readyz() == "degraded")
            load.more(60)
        assert load.errors == []
        # Nor after a restart: the disk has the last good table.
        assert world.place.terminate("router") == 0
        world.start()
        with world.load() as again:
            again.more(60)
        assert again.errors == []

        store = sql_store(world.installation)
        eventually(
            lambda: _open_alert_kinds(world.installation) >= {AlertKind.REVISION_REFUSED}
        )
        integrity.check_snapshot(world.installation.context)
        assert AlertKind.AUDIT_BROKEN in _open_alert_kinds(world.installation)
        faults = store.signature_faults()
        named = {fault.table for fault in faults}
        assert named == {
            "verdict",
            "evidence",
            "rollout",
            "approval",
            "route_version",
            "manifest",
        }
        store.remove_forged(faults, actor=SYSTEM, reason="forged")
        eventually(lambda: world.readyz() == "ok")
        # Whatever was asked meanwhile, the old model answered.
        eventually(lambda: world.recorded() == load.answered + again.answered)
        assert {row.target for row in world.traffic()} == {proposal.incumbent}


def _open_alert_kinds(installation: Installation) -> set[AlertKind]:
    with installation.store.read() as tx:
        return {alert.kind for alert in tx.alerts.list(open_only=True)}
