"""Eval runs on the workers of two hosts, as processes, with a queue in PostgreSQL."""

import shutil
from pathlib import Path

import psutil
import pytest

from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.control.routing import targets
from harness.domain.evals.run import EvalRun
from harness.domain.operations.access import SYSTEM
from tests.integration.test_eval_workers import (
    AT_ONCE,
    CONNECTIONS,
    ITEMS,
    Counting,
    queued,
    settings,
    until,
)
from tests.support.providers.scripted_chat import serving
from tests.support.site.processes import Site, site

HOSTS = ("one", "two")


def start_hosts(place: Site, home: Path) -> None:
    """Each has a folder of its own, as on another machine: they share the database alone."""
    for name in HOSTS:
        own = place.folder / name
        shutil.copytree(home, own)
        place.environment[name] = {"SWAPGATE__HOME": str(own)}
        place.start(name, "worker", "--slots", "1")


def run_now(installation: Installation, run: str) -> EvalRun:
    with installation.store.read() as tx:
        return tx.runs.get(run)


def kill_host_of(place: Site, installation: Installation, run: str) -> str:
    """SIGKILL to the host that has the run and to its process, as when a machine dies."""
    owner = run_now(installation, run).lease_owner or ""
    [name] = [name for name in HOSTS if owner.startswith(f"worker-{place.pid(name)}-")]
    children = psutil.Process(place.pid(name)).children(recursive=True)
    place.kill(name)
    for child in children:
        child.kill()
    return name


@pytest.mark.slow
@pytest.mark.req("F2")
@pytest.mark.timeout(900)
def test_a_killed_hosts_run_ends_on_another_one_and_both_keep_a_providers_limit(
    tmp_path: Path, postgres_url: str
) -> None:
    counting = Counting()
    with serving(counting) as served:
        given = settings(tmp_path, served.url)
        given["database_url"] = postgres_url
        given["control"] = {
            "queue": "procrastinate",
            "eval_connections": CONNECTIONS,
            "reconcile_interval_s": 0.2,
        }
        with site(tmp_path, given) as place:
            installation = open_installation(place.config, create_secret=True)
            upgrade_database(installation.settings)
            for provider in installation.settings.providers.values():
                targets.put_provider(installation.context, SYSTEM, provider)
            runs = {name: queued(installation, name) for name in ("incumbent", "candidate")}
            start_hosts(place, installation.settings.home)
            place.start("control", "serve", "control", wait_for="/readyz")
            until(lambda: counting.calls("candidate") >= ITEMS // 3)
            before_the_kill = counting.most
            killed = kill_host_of(place, installation, runs["candidate"])
            with installation.store.read() as tx:
                stored = len(tx.runs.done(runs["candidate"]))
            until(lambda: run_now(installation, runs["candidate"]).lease_owner is None)
            # By now the provider is done with what the dead host had asked.
            killed_at = counting.calls("candidate")
            until(lambda: all(_is_over(installation, run) for run in runs.values()))
            ended = [run_now(installation, run) for run in runs.values()]
            with installation.store.read() as tx:
                samples = [tx.runs.samples(run) for run in runs.values()]
            [left] = set(HOSTS) - {killed}
            assert place.terminate(left) == 0
            installation.close()

    assert [(run.state.value, run.message) for run in ended] == [("done", ""), ("done", "")]
    for scored in samples:
        assert len({sample.item for sample in scored}) == len(scored) == ITEMS
    assert 0 < stored < ITEMS
    assert counting.calls("incumbent") == ITEMS
    # What was stored is not asked again; what was under way is at most one call a connection.
    assert counting.calls("candidate") - killed_at == ITEMS - stored
    assert killed_at - stored <= CONNECTIONS
    # Both hosts and their judges together.
    assert 1 < before_the_kill <= AT_ONCE


def _is_over(installation: Installation, run: str) -> bool:
    return run_now(installation, run).state.value in ("done", "failed", "over_budget")
