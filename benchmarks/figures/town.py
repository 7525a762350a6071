"""`Town`: an installation in processes of its own, on a PostgreSQL server of its own, with
callers who never rest and proposals under way, in which processes are killed and started again.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import httpx

from evals.sim import server as sim
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import routes
from harness.domain.errors import SwapgateError
from harness.domain.operations.access import SYSTEM
from harness.domain.proposals.proposal import Proposal, ProposalPhase
from harness.domain.routing.table import RouteSettings, RouteSuite
from harness.gate.offline.verdicts import replay_verdict
from tests.support.providers import simulator_thread
from tests.support.router.router_process import Routed, routed
from tests.support.site.processes import kill_nine
from tests.support.store.private_postgres import OwnPostgres, own_postgres

Result = TypeVar("Result")

KINDS: Final = ("control", "eval worker", "router worker", "router parent", "database")
CALLERS: Final = 3
# A busy machine takes its time, and that is no loss.
ROUND_ENDS_S: Final = 3600.0
# Until a database that was killed takes connections again.
RETURNS_S: Final = 900.0
POLICY: Final = {
    "promotion": "automatic",
    "gate": {"claim": "superior", "alpha": 0.05, "n_max": 200, "infra_pause_s": 2},
    "canary": {
        "unit": "request",
        "block_size": 20,
        "p0": 0.2,
        "bake_s": 0,
        "steps": [
            {"weight_bps": 1000, "min_exposures": 5},
            {"weight_bps": 5000, "min_exposures": 40, "certify": True},
        ],
    },
}


@dataclass
class Callers:
    """Callers of the router, over all routes that are open. answered, broken: requests."""

    world: Routed
    routes: list[str] = field(default_factory=list)
    answered: int = 0
    broken: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)

    def call(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - seeded
        headers = {"authorization": f"Bearer {self.world.key}"}
        with httpx.Client(headers=headers, timeout=60) as http:
            while not self._stopping.wait(0.02):
                for route in list(self.routes):
                    self._ask(http, route, f"user-{chance.randrange(10_000)}")

    def _ask(self, http: httpx.Client, route: str, user: str) -> None:
        messages = [{"role": "user", "content": "Where does my ticket go?"}]
        body = {"model": route, "user": user, "messages": messages}
        try:
            answer = http.post(f"{self.world.url}/v1/chat/completions", json=body)
        except httpx.TransportError:
            self.broken += 1
            return
        if answer.status_code == httpx.codes.OK:
            self.answered += 1
        else:
            self.broken += 1

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.call, args=(n,)) for n in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join(120)


@dataclass
class Town:
    """done: kills by kind. faults: what was lost, torn or doubled."""

    world: Routed
    server: OwnPostgres
    callers: Callers
    chance: random.Random
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    faults: list[str] = field(default_factory=list)
    proposals: int = 0

    def start_control(self) -> None:
        self.world.place.start("control", "serve", "control", wait_for="/healthz")

    def propose(self) -> Proposal:
        """On a route of its own, which gets traffic from now on."""
        self.proposals += 1
        name = f"route-{self.proposals}"
        settings = RouteSettings(policy="kills", suites=(RouteSuite("tickets"),))
        ctx = self.world.installation.context
        persist(
            lambda: routes.create_route(ctx, SYSTEM, name, "sim/sim-base", settings=settings)
        )
        self.callers.routes.append(name)
        request = ProposalRequest(name, "sim/sim-better", "kills")
        return persist(lambda: submission.create_proposal(ctx, SYSTEM, request))

    def load(self, proposal: str) -> Proposal:
        ctx = self.world.installation.context
        return persist(lambda: submission.get_proposal(ctx, proposal))

    def kill_next(self) -> str:
        """Kills one of the kind that was killed least; what is gone is started again."""
        kinds: Mapping[str, Callable[[], bool]] = {
            "eval worker": self._kill_eval_worker,
            "control": self._kill_control,
            "router worker": self._kill_router_worker,
            "router parent": self._kill_router,
            "database": self._kill_database,
        }
        for kind in sorted(kinds, key=lambda kind: self.done[kind]):
            if kinds[kind]():
                self.done[kind] += 1
                return kind
        raise AssertionError("there was nothing to kill")

    def _kill_eval_worker(self) -> bool:
        workers = self.world.place.workers()
        if workers:
            kill_nine(self.chance.choice(workers))
        return bool(workers)

    def _kill_control(self) -> bool:
        self.world.place.kill("control")
        self.start_control()
        return True

    def _kill_router_worker(self) -> bool:
        workers = self.world.workers()
        if workers:
            self.chance.choice(workers).kill()
        return bool(workers)

    def _kill_router(self) -> bool:
        self.world.kill()
        self.world.start()
        return True

    def _kill_database(self) -> bool:
        self.server.kill()
        self.server.start()
        return True

    def check(self, proposal: str) -> None:
        """Notes what is lost, torn or doubled of a proposal that should have ended well."""
        self.faults += persist(lambda: list(self._find_faults(self.load(proposal))))

    def _find_faults(self, proposal: Proposal) -> Iterator[str]:
        if proposal.phase is not ProposalPhase.PROMOTED:
            yield f"lost: {proposal.id} is {proposal.phase}: {proposal.closed_because}"
            return
        ctx = self.world.installation.context
        route = routes.load_table(ctx).routes[proposal.route]
        if route.incumbent != proposal.candidate or route.canary is not None:
            yield f"torn: {proposal.route} is {route}"
        kinds = [record.kind for record in routes.load_history(ctx, proposal.route)]
        if kinds != ["promotion", "weight", "canary", "baseline"]:
            yield f"torn or doubled: the history of {proposal.route} is {kinds}"
        with ctx.store.read() as tx:
            verdicts = tx.verdicts.for_proposal(proposal.id)
            if len(verdicts) != 1 or replay_verdict(verdicts[0]) != verdicts[0]:
                yield f"doubled: {proposal.id} has {len(verdicts)} verdicts"
            if (broken := tx.audit.first_break()) is not None:
                yield f"torn: the audit chain at {broken}"
            for run in tx.runs.list():
                asked = [(s.item, s.epoch) for s in tx.runs.samples(run.id)]
                if len(asked) != len(set(asked)) or len(asked) > run.wanted:
                    yield f"doubled: samples of {run.id}"

    def round(self, kills: int, until: float) -> None:
        """Two proposals, with kills while one of them is open."""
        opened = [self.propose().id for _ in range(2)]
        late = time.monotonic() + ROUND_ENDS_S
        left = kills
        while open_ := [id_ for id_ in opened if self.load(id_).open]:
            if time.monotonic() > late:
                self.faults.append(f"lost: {open_} did not end in {ROUND_ENDS_S:.0f} s")
                return
            time.sleep(self.chance.uniform(0.1, 1.5))
            if left and time.monotonic() < until:
                self.kill_next()
                left -= 1
        for id_ in opened:
            self.check(id_)
        self.callers.routes.clear()


def persist(act: Callable[[], Result]) -> Result:
    """The result, once the database is back. An act that raised has not happened."""
    late = time.monotonic() + RETURNS_S
    while True:
        try:
            return act()
        except SwapgateError as error:
            if not error.retryable or time.monotonic() > late:
                raise
            time.sleep(0.2)


@contextmanager
def town(folder: Path, seed: int) -> Iterator[Town]:
    with ExitStack() as stack:
        # Answers take some time, so that there is something to be killed in.
        provider = stack.enter_context(
            simulator_thread.serve_in_thread(sim.simulator(time_scale=0.3))
        )
        server = stack.enter_context(own_postgres())
        world = stack.enter_context(
            routed(
                folder,
                provider,
                server.url("postgres"),
                control={"reconcile_interval_s": 0.3, "eval_connections": 2},
                router={"flush_interval_s": 0.2, "workers": 2},
                policies={"kills": POLICY},
            )
        )
        made = Town(world, server, Callers(world), random.Random(seed))  # noqa: S311 - seeded
        made.start_control()
        world.start()
        with made.callers.calling():
            yield made
