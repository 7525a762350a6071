"""The game day's installation (`Town`): its hosts, processes and addresses, and the swaps that
it proposes (`Swaps`). Routers and balancer are configured as in docs/how-to/several-routers.md.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import SubprocessError
from typing import Any, Final

import psycopg
import yaml

from benchmarks.faults.stage import metrics
from benchmarks.gameday.processes import Network, NotReady, Processes, now_s
from tests.support.router.router_fleet import (
    HELD_BY_ROUTERS,
    documented_block,
)
from tests.support.store.postgres_cluster import PostgresCluster

ROUTERS: Final = ("router-1", "router-2", "router-3")
CONTROLS: Final = ("control-1", "control-2")
LEADER = (
    "SELECT max(a.application_name) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND a.application_name LIKE 'control-%'"
)
DATABASES: Final = ("database-1", "database-2")
WORKERS: Final = ("worker-1", "worker-2", "worker-3")
PROVIDERS: Final = ("near", "far")
NUMBERS: Final = {
    "balancer": 10,
    **{name: 11 + place for place, name in enumerate(ROUTERS)},
    **{name: 21 + place for place, name in enumerate(CONTROLS)},
    **{name: 31 + place for place, name in enumerate(WORKERS)},
    **{name: 41 + place for place, name in enumerate(PROVIDERS)},
    **{name: 51 + place for place, name in enumerate(DATABASES)},
    "users": 71,
}
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - inside a network namespace
STARTS_WITHIN_S: Final = 300.0
PRICE: Final = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}
LATENCY: Final = {
    "first_token_median_ms": 60,
    "sigma": 0.35,
    "tokens_per_s": 200,
}
# Models by provider. Candidates are far better or worse, so that each verdict is certain.
SKILLS: Final = {
    "near": {
        "old": 0.5,
        "better": 0.95,
        "worse": 0.2,
        "fragile": 0.95,
    },
    "far": {"spare": 0.5},
}
ROUTES: Final = ("support", "orders")


def eventually(
    condition: Callable[[], bool],
    within_s: float,
    what: str,
) -> float:
    """Waits until the condition is true, and returns the seconds. Retries after errors of
    connections and of the database. Raises NotReady.
    """
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        try:
            if condition():
                return time.monotonic() - began
        except (OSError, psycopg.Error, urllib.error.URLError):
            pass
        time.sleep(0.1)
    raise NotReady(f"{what}: not within {within_s:.0f} s")


@dataclass
class Town:
    network: Network
    processes: Processes
    database: PostgresCluster
    folder: Path
    seconds: float

    @property
    def config(self) -> Path:
        return self.folder / "swapproof.yaml"

    @property
    def _main(self) -> tuple[str, ...]:
        return (
            sys.executable,
            "-m",
            "swapproof",
            "--config",
            str(self.config),
        )

    def build(self, envoy: str) -> str:
        """Starts all processes, without the traffic. Returns the users' key."""
        self._write_files()
        self.command("init")
        key = str(self._json("key", "create", "users")["text"])
        self._keep_token("router.token", "metrics")
        for name in PROVIDERS:
            profiles = str(self.folder / f"{name}.yaml")
            self._serve(name, "sim", "--host", EVERYWHERE, "--profiles", profiles)
        for name in (
            *ROUTERS,
            *CONTROLS,
            *WORKERS,
        ):
            self._make_home(name)
        for name in (
            *CONTROLS,
            *ROUTERS,
            *WORKERS,
        ):
            self.start(name)
        for name in (*CONTROLS, *ROUTERS):
            self.wait_ready(name)
        self.processes.start(
            "balancer",
            envoy,
            "-c",
            str(self.folder / "envoy.yaml"),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "warn",
        )
        eventually(
            lambda: self.status("balancer", 8000) == "ok",
            STARTS_WITHIN_S,
            "Envoy",
        )
        return key

    def _write_files(self) -> None:
        block = yaml.safe_load(documented_block("yaml", "trusted_proxies"))["router"]
        providers = {
            name: {
                "kind": "sim",
                "api_base": f"http://{self.network.address(name)}:9000/v1",
                "prices": dict.fromkeys(SKILLS[name], PRICE),
            }
            for name in PROVIDERS
        }
        route = {
            "incumbent": "near/old",
            "fallbacks": ["far/spare"],
            "policy": "gameday",
        }
        settings = {
            "home": str(self.folder / "home"),
            "database_url": self.database.url(),
            "router": block,
            "control": {
                "host": EVERYWHERE,
                "queue": "procrastinate",
                "eval_connections": 2,
            },
            "providers": providers,
            "policies": {"gameday": policy(self.seconds)},
            "routes": {name: {**route, "suites": ["tickets"]} for name in ROUTES},
        }
        self.config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        for provider, models in SKILLS.items():
            profiles = {
                name: {
                    "skill": skill,
                    "seed": seed,
                    "latency": LATENCY,
                }
                for seed, (name, skill) in enumerate(models.items(), 1)
            }
            file = self.folder / f"{provider}.yaml"
            file.write_text(yaml.safe_dump(profiles), encoding="utf-8")
        envoy = documented_block("yaml", "static_resources")
        (self.folder / "envoy.yaml").write_text(envoy, encoding="utf-8")

    def command(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Runs a `swapproof` command of the operator. Raises NotReady for another exit code."""
        done = subprocess.run(  # noqa: S603 - our own command
            [*self._main, *words],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if expect is not None and done.returncode != expect:
            raise NotReady(f"swapproof {' '.join(words)}:\n{done.stdout}{done.stderr}")
        return done

    def _json(self, *words: str) -> dict[str, Any]:
        return dict(json.loads(self.command("--json", *words).stdout))

    def _keep_token(self, file: str, *words: str) -> None:
        text = str(self._json("key", "create", *words)["text"])
        (self.folder / file).write_text(text, encoding="utf-8")

    def _make_home(self, name: str) -> None:
        home = self.folder / "home"
        own = self.folder / name
        if name not in ROUTERS:
            shutil.copytree(home, own)
            return
        own.mkdir()
        for held in HELD_BY_ROUTERS:
            if (home / held).exists():
                shutil.copy(home / held, own)

    def start(self, name: str) -> None:
        """Starts a router, a control plane or a worker host, each with its own home."""
        words = ["worker", "--slots", "1"]
        if name not in WORKERS:
            words = ["serve", "router" if name in ROUTERS else "control"]
        self._serve(name, *words)

    def _serve(self, name: str, *words: str) -> None:
        home = {"SWAPPROOF__HOME": str(self.folder / name)}
        self.processes.start(name, *self._main, *words, environment=home)

    def wait_ready(self, name: str) -> float:
        """Waits until the process is ready. Raises NotReady with the end of its log."""
        try:
            return eventually(lambda: self.status(name) == "ok", STARTS_WITHIN_S, name)
        except NotReady as error:
            raise NotReady(f"{error}\n{self.processes.log_end(name)}") from None

    def status(self, name: str, port: int = 0) -> str:
        """Returns the status of `/readyz`. Raises URLError."""
        port = port or (8081 if name in CONTROLS else 8080)
        url = f"http://{self.network.address(name)}:{port}/readyz"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(json.load(answer)["status"])

    def breakers(self, name: str) -> list[float]:
        """Returns the states of a router's circuits. Raises URLError."""
        token = (self.folder / "router.token").read_text(encoding="utf-8")
        found = metrics(f"{self.network.address(name)}:8080", f"Bearer {token}")
        return [
            n for series, n in found.items() if series.startswith("swapproof_breaker_state{")
        ]

    def switch(
        self,
        method: str,
        model: str,
        fault: Mapping[str, object] | None = None,
    ) -> None:
        """Sets or removes a fault of the near provider, from the provider's host."""
        url = f"http://127.0.0.1:9000/sim/faults/{model}"
        words = ["curl", "-fsS", "-m", "20", "-X", method, url]
        if fault:
            words += ["-d", json.dumps(fault)]
        command = self.network.command("near", *words)
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - curl

    def leader(self) -> tuple[str, str]:
        """Returns the names of the leading process and of its host. The first is empty without
        a leader, the second after the process has ended. Raises psycopg.Error.
        """
        owner = self.leading()
        pid = owner.rpartition("-")[2]
        live = self.processes.running
        names = (n for n in CONTROLS if n in live and str(live[n].pid) == pid)
        return owner, next(names, "")

    def leading(self) -> str:
        """Returns the name of the process that holds the leader's lock; empty without one."""
        ((owner,),) = self.rows(LEADER)
        return str(owner or "")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Raises psycopg.OperationalError while no host of the database accepts writes."""
        with psycopg.connect(self.database.url(), connect_timeout=5) as db:
            return db.execute(query.encode(), values or None).fetchall()


def policy(seconds: float) -> dict[str, object]:
    """Builds a policy whose canary lasts most of the run, so that the acts happen during it."""
    return {
        "promotion": "automatic",
        "gate": {
            "claim": "superior",
            "alpha": 0.05,
            "n_max": 200,
            "infra_patience_s": 600,
        },
        "canary": {
            "block_size": 100,
            "p0": 0.05,
            "bake_s": round(seconds / 40),
            "steps": [
                {
                    "weight_bps": 1000,
                    "min_exposures": 50,
                    "min_s": round(seconds / 5),
                },
                {
                    "weight_bps": 2500,
                    "min_exposures": 150,
                    "certify": True,
                    "min_s": round(seconds / 3),
                },
            ],
        },
    }


PHASES: Final = "SELECT id, phase FROM proposal"
OVER: Final = frozenset({"promoted", "rejected", "rolled_back", "cancelled"})
# The expected end of each candidate's proposal.
WANTED: Final[Mapping[str, str]] = {
    "better": "promoted",
    "worse": "rejected",
    "fragile": "rolled_back",
}


@dataclass
class Swaps:
    """Proposes the swaps and follows them. phases: by candidate, the time (Unix) at which each
    phase was first seen. leaders: the leading processes in order, without repetitions.
    """

    town: Town
    proposals: dict[str, str] = field(default_factory=dict)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    leaders: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    _spoiled: bool = False

    def run(self) -> None:
        """Runs a turn each second until `stopping` is set. An error ends only its turn."""
        while not self.stopping.wait(1.0):
            try:
                self._note_and_propose()
            except (psycopg.Error, NotReady, OSError, SubprocessError):
                continue

    def _note_and_propose(self) -> None:
        self._note_leader()
        if "better" not in self.proposals:
            self._propose("support", "better")
        elif "worse" not in self.proposals:
            self._propose("orders", "worse")
        elif self.phase("worse") in OVER and "fragile" not in self.proposals:
            self._propose("orders", "fragile")
        phases = dict(self.town.rows(PHASES))
        for candidate, proposal in self.proposals.items():
            seen = self.phases.setdefault(candidate, {})
            seen.setdefault(phases[proposal], now_s())
        if self.phase("fragile") == "canary" and not self._spoiled:
            self.town.switch("PUT", "fragile", {"kind": "status", "status": 500})
            self._spoiled = True
        if self.phase("fragile") == "rolled_back" and self._spoiled:
            self.town.switch("DELETE", "fragile")
            self._spoiled = False

    def _note_leader(self) -> None:
        leader = self.town.leading()
        if leader and leader != (self.leaders or [""])[-1]:
            self.leaders.append(leader)

    def _propose(self, route: str, candidate: str) -> None:
        words = (
            "proposal",
            "create",
            route,
            f"near/{candidate}",
            "--reason",
            "game day",
        )
        made = self.town.command(*words).stdout
        self.proposals[candidate] = next(
            line.partition(" ")[0] for line in made.splitlines() if line.endswith(" proposed")
        )

    def phase(self, candidate: str) -> str:
        """Returns the proposal's last seen phase; empty before the proposal."""
        return next(reversed([*self.phases.get(candidate, {})]), "")

    def over(self) -> bool:
        return all(self.phase(candidate) in OVER for candidate in WANTED)
