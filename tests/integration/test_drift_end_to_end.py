"""A model changed behind its alias, by real processes: the simulator over HTTP, the control
process with its eval workers.
"""

from pathlib import Path

import httpx
import pytest

from evals.sim import server
from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.control.drift import reports
from harness.control.operations import queries
from harness.domain.drift.watch import DriftCheckState
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alert_record import AlertRecord
from harness.domain.operations.alerts import AlertKind
from tests.support.providers import simulator_thread
from tests.support.router.router_process import eventually
from tests.support.site.processes import site

ITEMS = 180


def settings(provider: str) -> dict[str, object]:
    return {
        "control": {
            "reconcile_interval_s": 0.2,
            "drift_interval_s": 0.2,
            "eval_connections": 8,
        },
        "providers": {"sim": {"kind": "sim", "api_base": f"{provider}/v1"}},
        "suites": {"tickets": {"drift": {"items": ITEMS}}},
        "routes": {"chat": {"incumbent": "sim/sim-base", "suites": ["tickets"]}},
    }


def change(provider: str, **fields: str) -> None:
    done = httpx.post(f"{provider}/sim/profiles/sim-base", json=fields)
    assert done.status_code == 200, done.text


def measured(site: Installation, times: int) -> str:
    """The watch's state, once its model has been asked so often."""

    def done() -> bool:
        drift_runs = queries.list_drift_runs(site.context)
        return [run.state for _, run in drift_runs] == [DriftCheckState.COUNTED] * times

    eventually(done)
    (watch,) = reports.list_drift_status(site.context)
    return watch.state


def open_alerts(site: Installation) -> dict[AlertKind, AlertRecord]:
    with site.store.read() as tx:
        return {record.kind: record for record in tx.alerts.list(open_only=True)}


@pytest.mark.slow
@pytest.mark.verify
@pytest.mark.req("F6", "F7")
def test_another_name_is_told_as_news_and_a_silent_change_as_drift(tmp_path: Path) -> None:
    with (
        simulator_thread.serve_in_thread(server.simulator(time_scale=0)) as provider,
        site(tmp_path, settings(provider)) as place,
    ):
        installation = open_installation(place.config, create_secret=True)
        upgrade_database(installation.settings)
        ctx = installation.context
        place.start("control", "serve", "control", wait_for="/healthz")
        assert measured(installation, 1) == "watching"

        change(provider, serves="sim-base-2027", build="b1")  # and it answers as it did
        reports.start_checks(ctx, SYSTEM, "chat")
        assert measured(installation, 2) == "watching"
        assert set(open_alerts(installation)) == {AlertKind.SERVED_MODEL}

        change(provider, like="sim-worse", serves="sim-base-2027", build="b1")  # unsaid
        reports.start_checks(ctx, SYSTEM, "chat")
        assert measured(installation, 3) == "drifted"
        alerts = open_alerts(installation)
        installation.close()

    record, named = alerts[AlertKind.DRIFT], alerts[AlertKind.SERVED_MODEL]
    assert record.title.startswith("sim/sim-base answers tickets otherwise than it did: ")
    assert "points worse" in record.title
    assert "Before: “" in record.text
    assert named.title == "the provider of sim/sim-base serves another model: sim-base-2027"
    assert named.count == 1
