"""Fault 19: the disk takes nothing more. The router serves on, counts, tells, and recovers."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from evals.sim import server
from harness.domain.operations.alert_record import AlertRecord
from harness.domain.operations.alerts import AlertKind
from tests.support.providers import simulator_thread
from tests.support.router.router_process import Routed, eventually, routed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")


@contextmanager
def full_disk(world: Routed) -> Iterator[None]:
    """No file of the router's processes can grow: what a full disk is like, for them alone."""
    router = psutil.Process(world.place.pid("router"))
    pids = [router.pid, *(child.pid for child in router.children(recursive=True))]
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def alerts(world: Routed) -> list[AlertRecord]:
    with world.installation.store.read() as tx:
        return list(tx.alerts.list())


@pytest.mark.slow
@pytest.mark.req("B9", "F3")
def test_with_the_disk_full_no_request_fails_and_afterwards_everything_is_there(
    tmp_path: Path,
) -> None:
    simulator = server.simulator(time_scale=0.0)
    with (
        simulator_thread.serve_in_thread(simulator) as provider,
        routed(tmp_path, provider) as world,
    ):
        world.start()
        with world.load() as load:
            load.more(20)
            with full_disk(world):
                load.more(60)
                load.more(60)
            load.more(20)
        assert load.errors == []
        eventually(lambda: world.recorded() == load.answered)
        eventually(
            lambda: bool(alerts(world)) and not any(alert.open for alert in alerts(world))
        )

        assert [alert.kind for alert in alerts(world)] == [AlertKind.SPOOL_FULL]
        assert world.place.terminate("router") == 0
        assert not list((tmp_path / "home").glob("*.refused"))
