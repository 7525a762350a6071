"""Eval runs on the workers of several hosts, as processes, with a queue in PostgreSQL."""

import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.control.routing import targets
from harness.domain.evals.run import EvalRun, Sample
from harness.domain.operations.access import SYSTEM
from tests.integration.test_eval_workers import (
    AT_ONCE,
    CONNECTIONS,
    END_S,
    ITEMS,
    Counting,
    queued,
    settings,
    until,
)
from tests.support.providers.scripted_chat import serving
from tests.support.site.processes import Site, site

pytestmark = [pytest.mark.slow, pytest.mark.req("F2"), pytest.mark.timeout(900)]
HOSTS = ("one", "two")
OVER = ("done", "failed", "over_budget", "stopped")


@dataclass
class WorkerHosts:
    """Hosts with a folder of their own, as on other machines: they share the database alone."""

    place: Site
    installation: Installation
    names: Sequence[str] = HOSTS
    runs: dict[str, str] = field(default_factory=dict)  # by model

    def start(self) -> None:
        for name in self.names:
            own = self.place.folder / name
            shutil.copytree(self.installation.settings.home, own)
            self.place.environment[name] = {"SWAPGATE__HOME": str(own)}
            self.place.start(name, "worker", "--slots", "1")

    def queue(self, model: str, suite: str = "replies") -> None:
        self.runs[model] = queued(self.installation, model, suite)

    def run_of(self, model: str) -> EvalRun:
        with self.installation.store.read() as tx:
            return tx.runs.get(self.runs[model])

    def samples_of(self, model: str) -> Sequence[Sample]:
        with self.installation.store.read() as tx:
            return tx.runs.samples(self.runs[model])

    def is_over(self, model: str) -> bool:
        return self.run_of(model).state.value in OVER

    def host_of(self, model: str) -> str:
        """Who has its run; empty for nobody."""
        owner = self.run_of(model).lease_owner or ""
        names = (n for n in self.names if owner.startswith(f"worker-{self.place.pid(n)}-"))
        return next(names, "")

    def leased(self) -> list[str]:
        """The models whose runs a host has."""
        return [model for model in self.runs if self.host_of(model)]

    def processes(self, name: str) -> list[psutil.Process]:
        """The host's first process, and those below it."""
        first = psutil.Process(self.place.pid(name))
        return [first, *first.children(recursive=True)]


@contextmanager
def worker_hosts(
    folder: Path, url: str, counting: Counting, *, judged: bool = True
) -> Iterator[WorkerHosts]:
    """Two hosts that have a run each, `incumbent` and `candidate`, and their control plane."""
    with serving(counting) as served:
        given = settings(folder, served.url, judged=judged)
        given["database_url"] = url
        given["control"] = {
            "queue": "procrastinate",
            "eval_connections": CONNECTIONS,
            "reconcile_interval_s": 0.2,
        }
        with (
            site(folder, given) as place,
            closing(open_installation(place.config, create_secret=True)) as installation,
        ):
            upgrade_database(installation.settings)
            for provider in installation.settings.providers.values():
                targets.put_provider(installation.context, SYSTEM, provider)
            hosts = WorkerHosts(place, installation)
            for model in ("incumbent", "candidate"):
                hosts.queue(model)
            hosts.start()
            place.start("control", "serve", "control", wait_for="/readyz")
            yield hosts


def assert_whole(hosts: WorkerHosts) -> None:
    """Every run is done, and has each sample once."""
    for model in hosts.runs:
        run, samples = hosts.run_of(model), hosts.samples_of(model)
        assert (run.state.value, run.message) == ("done", "")
        assert len({sample.item for sample in samples}) == len(samples) == ITEMS


class TwoGates:
    """Holds a model's answers back: those after so many until `first` is set, and those that
    are asked for a second time until `again` is; at its end, none.
    """

    def __init__(self, counting: Counting, model: str, after: int) -> None:
        self._counting, self._model, self._after = counting, model, after
        self.first, self.again = threading.Event(), threading.Event()
        self.waiting = Counter[str]()
        self._lock = threading.Lock()

    def __call__(self, model: str, times: int) -> None:
        if model == self._model and times > 1:
            self._wait_at("again", self.again)
        elif model == self._model and self._counting.calls(model) > self._after:
            self._wait_at("first", self.first)

    def _wait_at(self, name: str, gate: threading.Event) -> None:
        with self._lock:
            self.waiting[name] += 1
        gate.wait(END_S)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.first.set()
        self.again.set()


@pytest.mark.verify
def test_a_frozen_hosts_run_ends_on_another_one_and_the_first_stores_nothing_more_of_it(
    tmp_path: Path, postgres_url: str
) -> None:
    counting = Counting()
    counting.hold = gates = TwoGates(counting, "candidate", after=ITEMS // 3)
    with (
        worker_hosts(tmp_path, postgres_url, counting, judged=False) as hosts,
        gates,
        ExitStack() as stack,
    ):
        # All of the provider's slots are this host's, when it freezes.
        until(lambda: gates.waiting["first"] == AT_ONCE)
        frozen = hosts.host_of("candidate")
        [other] = set(HOSTS) - {frozen}
        processes = hosts.processes(frozen)
        [worker] = (process for process in processes if not process.children())
        for process in processes:
            process.suspend()
            stack.callback(_resume, process)
        stored = hosts.samples_of("candidate")
        gates.first.set()

        until(lambda: gates.waiting["again"] == AT_ONCE)
        assert hosts.host_of("candidate") == other
        for process in processes:
            process.resume()
        # It has the answers, and nowhere to put them.
        psutil.wait_procs([worker], timeout=END_S)
        assert not worker.is_running()
        assert hosts.samples_of("candidate") == stored
        gates.again.set()
        until(lambda: all(map(hosts.is_over, hosts.runs)))
        assert_whole(hosts)

        # The host that was frozen is as good as any other again.
        assert hosts.place.terminate(other) == 0
        hosts.queue("next")
        until(lambda: hosts.is_over("next"))
        assert_whole(hosts)
        assert hosts.place.terminate(frozen) == 0

    assert 0 < len(stored) < ITEMS
    assert [counting.calls(model) for model in ("incumbent", "next")] == [ITEMS, ITEMS]
    # Asked twice: what was under way; the one that was frozen may ask once more in each of its
    # connections before it hears that the run is another's.
    assert ITEMS + AT_ONCE <= counting.calls("candidate") <= ITEMS + AT_ONCE + CONNECTIONS
    # Each host counts for itself.
    assert counting.most <= len(HOSTS) * AT_ONCE


def _resume(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.resume()
