"""Runs Swapproof as users do: `serve router` with one worker, keys, a sticky canary at 1 %,
recording, metrics and SQLite.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import yaml

from benchmarks.router.processes import Ask, Peer, Site
from harness.app.store import migrate
from harness.app.store.store import Store
from harness.frame.people.access import ApiKey, key_hash
from harness.frame.people.records import ApiKeys
from harness.frame.records.transaction import Transaction
from harness.frame.runtime.clock import SystemClock
from harness.gate.policy import CanaryPolicy, CanaryStep, Policy
from harness.gate.verdict import Passed
from harness.providers.records import Providers, Targets
from harness.providers.target import Price, Provider, Target
from harness.routing.proposal import ProposalPhase
from harness.routing.records.proposals import Proposals, Rollouts
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.route_changes import CreateRoute, StartCanary
from tests.support.site.signing_keys import CONTROL, ENVIRONMENT
from tests.support.store import records

SECRET = b"benchmark"
KEY = "sk-sg-benchmark"
WEIGHT_BPS = 100


def put_route(
    tx: Transaction,
    name: str,
    port: int,
    clock: SystemClock,
    weight_bps: int = WEIGHT_BPS,
) -> None:
    """Stores a route with a live canary of the same provider; without one for 0."""
    now = clock.now()
    prices = {model: Price(1.0, 2.0) for model in ("m", "m2")}
    Providers(tx).put(Provider(name, "custom", f"http://127.0.0.1:{port}/v1", prices=prices))
    incumbent = Targets(tx).add(Target(name, "m"))
    candidate = Targets(tx).add(Target(name, "m2"))
    commit = partial(
        Routing(tx).commit,
        actor="bench",
        reason="bench",
        now=now,
    )
    commit(CreateRoute(name, incumbent), expected_version=0)
    if not weight_bps:
        return
    sides = {
        "route": name,
        "incumbent": incumbent,
        "candidate": candidate,
    }
    proposal = records.proposal(
        f"p_{name}",
        policy=Policy("bench", canary=CanaryPolicy((CanaryStep(weight_bps, 1_000),))),
        plans=(),
        runs={},
        phase=ProposalPhase.CANARY,
        created_at=now,
        updated_at=now,
        retry_at=None,
        **sides,
    )
    Proposals(tx).add(proposal)
    lasts = {"decided_at": now, "expires_at": now + timedelta(days=1)}
    proof = records.verdict(
        Passed,
        f"v_{name}",
        suites=(),
        inputs={},
        **lasts,
        **sides,
    )
    Verdicts(tx).store(proof, proposal.id)
    started = dict.fromkeys(("started_at", "step_started_at", "updated_at"), now)
    parts = {
        "proposal": proposal.id,
        "verdict": proof.id,
        "policy": proposal.policy.canary,
    }
    Rollouts(tx).add(
        records.rollout(
            f"ro_{name}",
            **parts,
            **started,
            **sides,
        )
    )
    canary = StartCanary(name, proof, f"ro_{name}", weight_bps, "salt")
    commit(canary, expected_version=1)


def seeded(
    folder: Path,
    ports: Mapping[str, int],
    weights_bps: Mapping[str, int] | None = None,
) -> Store:
    """Creates a database with a route before each port, and a key.

    Args:
        weights_bps: the share of each route's canary; by default WEIGHT_BPS.
    """
    clock = SystemClock()
    url = f"sqlite:///{folder / 'swapproof.db'}"
    migrate.upgrade(url)
    store = Store(
        url,
        secret=SECRET,
        clock=clock,
        signatures=CONTROL,
    )
    with store.write() as tx:
        for name, port in ports.items():
            put_route(tx, name, port, clock, (weights_bps or {}).get(name, WEIGHT_BPS))
        hashed = key_hash(KEY, SECRET)
        ApiKeys(tx).add(
            ApiKey(
                "k_1",
                "bench",
                hashed,
                "mark",
                None,
                frozenset(),
                clock.now(),
            )
        )
    return store


ENV = {"SWAPPROOF_SECRET": SECRET.decode(), **ENVIRONMENT}


def command(site: Site) -> Sequence[str]:
    """Writes a home with its database, and returns the router's command line."""
    seeded(site.folder, site.upstreams).close()
    config = site.folder / "swapproof.yaml"
    settings = {"home": str(site.folder), "router": {"port": site.port}}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    main = [sys.executable, "-m", "swapproof", "--config", str(config)]
    return [*main, "serve", "router", "--workers", "1"]


def ask(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(model=kind, headers={"authorization": f"Bearer {KEY}"})


PEER = Peer(
    "Swapproof",
    command,
    ask,
    env=ENV,
    start_s=60.0,
)
