import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest

from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.domain.evals.run import EvalRun, Sample
from harness.domain.evals.verdict import SuiteReport
from harness.domain.operations.access import SYSTEM
from harness.gate.offline.verdicts import replay_verdict
from harness.store.sql.evals import EvalRuns
from harness.store.sql.proposals import Verdicts
from harness.store.sql.routing import Routing
from tests.integration.test_eval_workers import (
    AT_ONCE,
    CONNECTIONS,
    END_S,
    ITEMS,
    Counting,
    queued,
)
from tests.support.providers.scripted_chat import serving
from tests.support.router.router_process import eventually
from tests.support.site.network_hosts import NetworkHost, network_hosts, require_namespaces
from tests.support.site.processes import Site, site
from tests.support.store.postgres_cluster import PostgresNode, postgres_node

pytestmark = [
    pytest.mark.slow,
    pytest.mark.verify,
    pytest.mark.postgres,
    pytest.mark.req("F2"),
    pytest.mark.timeout(900),
]
NAMES = ("one", "two", "three")
ROUTES = ("chat", "mail")
OVER = ("done", "failed", "over_budget", "stopped")
QUEUED = "SELECT count(*) FROM swapgate_queue.procrastinate_jobs WHERE status = 'todo'"


@dataclass
class WorkerHosts:
    """Hosts with a folder of their own, as on other machines: they share the database alone."""

    place: Site
    installation: Installation
    names: Sequence[str]
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
            return EvalRuns(tx).get(self.runs[model])

    def samples_of(self, model: str) -> Sequence[Sample]:
        with self.installation.store.read() as tx:
            return EvalRuns(tx).samples(self.runs[model])

    def is_over(self, model: str) -> bool:
        return self.run_of(model).state.value in OVER

    def host_of(self, model: str) -> str:
        owner = self.run_of(model).lease_owner or ""
        names = (n for n in self.names if owner.startswith(f"worker-{self.place.pid(n)}-"))
        return next(names, "")

    def leased(self) -> list[str]:
        return [model for model in self.runs if self.host_of(model)]

    def processes(self, name: str) -> list[psutil.Process]:
        first = psutil.Process(self.place.pid(name))
        return [first, *first.children(recursive=True)]


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


def settings(folder: Path, provider: str) -> dict[str, object]:
    suites = {}
    for route in ROUTES:
        data = folder / f"{route}.jsonl"
        rows = [{"input": f"{route}: say {n}.", "target": "fine"} for n in range(ITEMS)]
        data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        suites[route] = {"path": str(data), "scorer": "exact"}
    limits = {"max_concurrent": AT_ONCE, "requests_per_min": 100_000}
    return {
        "control": {
            "queue": "procrastinate",
            "eval_connections": CONNECTIONS,
            "reconcile_interval_s": 0.2,
        },
        "providers": {"sim": {"kind": "openai", "api_base": provider, "eval_limits": limits}},
        "suites": suites,
        "policies": {"default": {"gate": {"claim": "superior", "n_max": ITEMS}}},
        "routes": {
            route: {"incumbent": f"sim/{route}-old", "suites": [route]} for route in ROUTES
        },
    }


@contextmanager
def hosts_in_namespaces(
    folder: Path, counting: Counting, networks: Sequence[NetworkHost], database: PostgresNode
) -> Iterator[WorkerHosts]:
    """The last of the networks is never cut: provider and database have their address there."""
    *networks, server = networks
    url = f"postgresql://postgres@{server.gateway}:{database.port}/postgres"
    with (
        serving(counting, server.gateway) as served,
        site(folder, {**settings(folder, served.url), "database_url": url}) as place,
        closing(open_installation(place.config, create_secret=True)) as installation,
    ):
        upgrade_database(installation.settings)
        place.hosts.update(zip(NAMES, networks, strict=True))
        yield WorkerHosts(place, installation, NAMES)


def propose(hosts: WorkerHosts) -> dict[str, str]:
    hosts.place.start("control", "serve", "control", wait_for="/readyz")
    hosts.queue("by-hand", suite="chat")
    requests = (ProposalRequest(route, f"sim/{route}-new", "a test") for route in ROUTES)
    context = hosts.installation.context
    made = [submission.create_proposal(context, SYSTEM, request) for request in requests]
    with psycopg.connect(hosts.installation.settings.database_url, autocommit=True) as db:
        eventually(lambda: db.execute(QUEUED).fetchone() == (1 + 2 * len(ROUTES),))
    with hosts.installation.store.read() as tx:
        targets = Routing(tx).targets()
        for run in EvalRuns(tx).list():
            hosts.runs.setdefault(targets[run.target].model, run.id)
    return dict(zip(ROUTES, (proposal.id for proposal in made), strict=True))


def test_a_host_that_is_cut_off_and_comes_back_stores_nothing_more_and_verdicts_are_whole(
    tmp_path: Path,
) -> None:
    require_namespaces()
    counting = Counting()
    counting.hold = gates = TwoGates(counting, "chat-new", after=3)
    with (
        network_hosts(len(NAMES) + 1) as networks,
        postgres_node(host="0.0.0.0") as database,  # noqa: S104 - namespaces reach it
        hosts_in_namespaces(tmp_path, counting, networks, database) as hosts,
        gates,
    ):
        proposals = propose(hosts)
        hosts.start()
        eventually(lambda: len(hosts.leased()) == len(NAMES))
        models = hosts.leased()
        assert "by-hand" not in models
        assert {model.partition("-")[0] for model in models} == set(ROUTES)

        eventually(lambda: gates.waiting["first"] == AT_ONCE)
        lost = hosts.host_of("chat-new")
        [worker] = (p for p in hosts.processes(lost) if not p.children())
        stored = hosts.samples_of("chat-new")
        hosts.place.hosts[lost].cut()
        gates.first.set()
        eventually(lambda: gates.waiting["again"] == AT_ONCE)
        assert hosts.host_of("chat-new") not in ("", lost)
        hosts.place.hosts[lost].mend()
        psutil.wait_procs([worker], timeout=END_S)
        assert not worker.is_running()
        assert hosts.samples_of("chat-new") == stored

        gates.again.set()
        eventually(lambda: all(map(hosts.is_over, hosts.runs)))
        for route, proposal in proposals.items():
            report = verdict_on(hosts, proposal)
            old, new = (hosts.samples_of(f"{route}-{which}") for which in ("old", "new"))
            both = {sample.item for sample in old} & {sample.item for sample in new}
            assert report.n_used == report.wins + report.ties + report.losses
            # A verdict may need fewer pairs than there are, and ends its runs then.
            assert 0 < report.n_used <= len(both)
            assert all(
                len(hosts.samples_of(model)) == ITEMS
                or hosts.run_of(model).state.value == "stopped"
                for model in (f"{route}-old", f"{route}-new")
            )
        others = set(NAMES) - {lost}
        assert [hosts.place.terminate(name) for name in others] == [0, 0]
        hosts.queue("next", suite="mail")
        eventually(lambda: hosts.is_over("next"))
        assert len(hosts.samples_of("next")) == len(hosts.samples_of("by-hand")) == ITEMS
        assert hosts.place.terminate(lost) == 0
    assert counting.most <= len(NAMES) * AT_ONCE


def verdict_on(hosts: WorkerHosts, proposal: str) -> SuiteReport:
    with hosts.installation.store.read() as tx:
        [verdict] = Verdicts(tx).for_proposal(proposal)
    assert replay_verdict(verdict) == verdict
    [report] = verdict.suites
    return report
