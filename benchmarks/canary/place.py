"""An installation with its provider, its database and its processes."""

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.canary.wall_time import TooLate, until
from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.control.canary import status as canary_status
from harness.control.canary.status import CanaryStatus
from harness.control.operations import keys
from harness.control.proposals import submission
from harness.control.proposals.submission import ProposalRequest
from harness.control.routing import seed
from harness.domain.canary.rollout import Rollout
from harness.domain.operations.access import SYSTEM, Actor, Role
from harness.domain.proposals.proposal import ProposalPhase
from tests.support.site.processes import Site, free_port, site

PERSON: Final = Actor("bench", Role.PROPOSER, "bench")
OPENS_WITHIN_S: Final = 900.0
INCUMBENT: Final = "old"
# Half a second for an answer would fill a small machine with waiting requests.
LATENCY: Final = {"first_token_median_ms": 60, "sigma": 0.35, "tokens_per_s": 200}
PRICE: Final = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}


@dataclass
class Place:
    """routes: by route its candidate, a model of the simulator."""

    site: Site
    installation: Installation
    key: str
    workers: int
    routes: Mapping[str, str]
    rollouts: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.site.ports["router"]

    @property
    def guard(self) -> Path:
        return self.site.folder / "home" / "guard"

    def start(self, *parts: str) -> None:
        for part in parts:
            words = ["serve", part]
            if part == "router":
                words += ["--workers", str(self.workers)]
            self.site.start(part, *words, wait_for="/readyz")

    def open(self, routes: Sequence[str]) -> None:
        """A proposal for each, its evals, its verdict, its canary; by the control process."""
        ctx = self.installation.context
        made = {
            route: submission.create_proposal(
                ctx, PERSON, ProposalRequest(route, f"sim/{self.routes[route]}", "bench")
            )
            for route in routes
        }
        until(
            lambda: all(self._opened(proposal.id) for proposal in made.values()),
            OPENS_WITHIN_S,
            0.5,
        )
        for route, proposal in made.items():
            rollout = submission.get_proposal(ctx, proposal.id).rollout
            if rollout is None:
                raise TooLate(
                    f"{route} has no canary: {submission.get_proposal(ctx, proposal.id)}"
                )
            self.rollouts[route] = rollout

    def _opened(self, proposal: str) -> bool:
        found = submission.get_proposal(self.installation.context, proposal)
        return found.phase is ProposalPhase.CANARY or not found.open

    def break_(self, model: str, fault: Mapping[str, object]) -> None:
        self._switch("PUT", f"faults/{model}", fault)

    def change(self, model: str, profile: Mapping[str, object]) -> None:
        self._switch("POST", f"profiles/{model}", profile)

    def _switch(self, method: str, path: str, body: Mapping[str, object]) -> None:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.site.url('sim')}/sim/{path}", json.dumps(body).encode(), method=method
        )
        with urllib.request.urlopen(request, timeout=60):  # noqa: S310
            return

    def weight_bps(self, route: str) -> int:
        """In the routing table; 0 without a canary."""
        with self.installation.store.read() as tx:
            canary = tx.routing.table().routes[route].canary
        return canary.weight_bps if canary else 0

    def rollout(self, route: str) -> Rollout:
        with self.installation.store.read() as tx:
            return tx.rollouts.get(self.rollouts[route])

    def status(self, route: str) -> CanaryStatus:
        return canary_status.list_canaries(self.installation.context, route=route)[0]

    def local_stop(self, route: str) -> Mapping[str, Any] | None:
        """What a worker's guard kept of its stop; None before, and once it is over."""
        try:
            kept = json.loads((self.guard / f"{self.rollouts[route]}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return kept.get("aborted") if isinstance(kept, dict) else None


@contextmanager
def placed(
    folder: Path,
    routes: Mapping[str, str],
    policy: Mapping[str, object],
    *,
    workers: int,
    database_url: str = "",
) -> Iterator[Place]:
    """The simulator runs; control plane and router are to be started."""
    sim = free_port()
    with site(folder, _settings(sim, routes, policy, database_url)) as made:
        made.ports["sim"] = sim
        models = folder / "models.yaml"
        models.write_text(yaml.safe_dump(_models(routes)), encoding="utf-8")
        words = ["sim", "--port", str(sim), "--profiles", str(models)]
        made.start("sim", *words, wait_for="/healthz")
        installation = open_installation(made.config, create_secret=True)
        try:
            upgrade_database(installation.settings)
            seed.apply_seed(installation.context, installation.settings)
            _, key = keys.create_key(
                installation.context, SYSTEM, "bench", secret=installation.secret
            )
            yield Place(made, installation, key, workers, routes)
        finally:
            installation.close()


def _settings(
    sim: int, routes: Mapping[str, str], policy: Mapping[str, object], database_url: str
) -> dict[str, object]:
    prices = dict.fromkeys((INCUMBENT, *routes.values()), PRICE)
    database = {"database_url": database_url} if database_url else {}
    return {
        **database,
        "providers": {
            "sim": {"kind": "sim", "api_base": f"http://127.0.0.1:{sim}/v1", "prices": prices}
        },
        "policies": {"live": {"promotion": "automatic", **policy}},
        "routes": {
            route: {"incumbent": f"sim/{INCUMBENT}", "policy": "live", "suites": ["tickets"]}
            for route in routes
        },
    }


def _models(routes: Mapping[str, str]) -> dict[str, object]:
    """Candidates that are far better in the suite: their evals are over soon."""
    common = {"latency": LATENCY, "price": PRICE}
    candidates = {name: {"skill": 0.95, "seed": 2, **common} for name in routes.values()}
    return {INCUMBENT: {"skill": 0.5, "seed": 1, **common}, **candidates}
