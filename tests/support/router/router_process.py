"""Runs a router as processes in front of the simulator, under load, with kill -9."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import openai
import psutil

from evals.suites.items import Item
from harness.app import seed
from harness.app.database import upgrade_database
from harness.app.installation import Installation, open_installation
from harness.frame.people.access import SYSTEM
from harness.gate.online.observation import ObservationBlock, TrafficMinute
from harness.gate.policy import CanaryPolicy, CanaryStep
from harness.operations import keys
from harness.providers.target import Target
from harness.routing.control import routes
from harness.routing.proposal import ProposalPhase
from harness.routing.records.observations import Observations
from harness.routing.records.proposals import Rollouts
from tests.support.control.colours_suite import suite_file
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.short_policies import CANARY, POLICY
from tests.support.site.processes import Site, site
from tests.support.store.sqlite_store import migrated_file

ROUTE = "chat"
EVER = datetime(2000, 1, 1, tzinfo=UTC)


def ask(
    client: openai.OpenAI,
    *,
    stream: bool = False,
    user: str = "u",
    route: str = ROUTE,
) -> str:
    if not stream:
        done = client.chat.completions.create(
            model=route,
            messages=[{"role": "user", "content": "Colour number 3?"}],
            user=user,
        )
        assert done.model == route
        return done.choices[0].message.content or ""
    chunks = client.chat.completions.create(
        model=route,
        messages=[{"role": "user", "content": "Colour number 3?"}],
        user=user,
        stream=True,
    )
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@dataclass
class Load:
    """What a few callers got, one request after the other, until they were stopped."""

    answered: int = 0
    errors: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    # Users that each caller speaks for, by turns; and all that were answered.
    users_each: int = sys.maxsize
    users: set[str] = field(default_factory=set)
    pause_s: float = 0.0
    routes: Sequence[str] = (ROUTE,)  # by turns
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(
        self,
        url: str,
        key: str,
        number: int,
        http: httpx.Client | None = None,
    ) -> None:
        with openai.OpenAI(
            base_url=f"{url}/v1",
            api_key=key,
            max_retries=0,
            http_client=http,
        ) as client:
            turn = number
            while not self.stopping.is_set():
                turn += 1
                user = f"user-{number}-{turn % self.users_each}"
                try:
                    route = self.routes[turn // 2 % len(self.routes)]
                    assert ask(
                        client,
                        stream=turn % 2 == 0,
                        user=user,
                        route=route,
                    )
                except Exception as error:  # noqa: BLE001 - every kind is a failed request
                    with self._lock:
                        self.errors.append(repr(error))
                    if self.stopping.wait(0.02):
                        return
                else:
                    with self._lock:
                        self.answered += 1
                        self.users.add(user)
                    if self.pause_s:
                        self.stopping.wait(self.pause_s)

    @contextmanager
    def running(
        self,
        url: str,
        key: str,
        callers: int,
        http: Callable[[], httpx.Client | None] = lambda: None,
    ) -> Iterator[None]:
        threads = [
            threading.Thread(target=self.call, args=(url, key, number, http()))
            for number in range(callers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join(120)

    def more(
        self,
        answers: int = 20,
        *,
        known: int = 0,
        timeout_s: float = 240.0,
    ) -> None:
        """Wait until so many more were answered, or one failed besides the `known`."""
        wanted = self.answered + answers
        eventually(
            lambda: self.answered >= wanted or len(self.errors) > known,
            timeout_s=timeout_s,
        )


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended while it was looked at
        return False


def eventually(condition: object, *, timeout_s: float = 240.0) -> None:
    assert callable(condition)
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


@dataclass
class Routed:
    place: Site
    installation: Installation
    key: str

    @property
    def url(self) -> str:
        return self.place.url("router")

    def start(self, *words: str) -> None:
        self.place.start("router", "serve", "router", *words, wait_for="/readyz")

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.place.pid("router")).children()
        return [child for child in children if _runs(child)]

    def kill(self) -> None:
        """kill -9 of the router's parent; its workers end by themselves."""
        workers = self.workers()
        self.place.kill("router")
        assert not psutil.wait_procs(workers, timeout=60)[1]

    def client(self, key: str | None = None) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=key or self.key,
            max_retries=0,
            timeout=60,
        )

    def counter(self, name: str) -> float:
        with self.client() as client:
            bearer = {"authorization": f"Bearer {self.key}"}
            text = client._client.get(f"{self.url}/metrics", headers=bearer).text
        lines = (line for line in text.splitlines() if line.startswith(f"{name} "))
        return sum(float(line.split()[1]) for line in lines)

    def readyz(self) -> str:
        with self.client() as client:
            return str(client._client.get(f"{self.url}/readyz").json()["status"])

    @contextmanager
    def load(
        self,
        callers: int = 3,
        *,
        url: str | None = None,
        http: Callable[[], httpx.Client | None] = lambda: None,
        users_each: int = sys.maxsize,
        pause_s: float = 0.0,
    ) -> Iterator[Load]:
        """Callers who never try again, and rest for pause_s after an answer.

        Args:
            url: instead of the router's own.
            http: makes each caller's client, in place of the official one's.
        """
        load = Load(users_each=users_each, pause_s=pause_s)
        with load.running(url or self.url, self.key, callers, http):
            yield load

    def traffic(self) -> list[TrafficMinute]:
        with self.installation.store.read() as tx:
            return list(Observations(tx).traffic(since=EVER, route=ROUTE))

    def blocks(self) -> list[ObservationBlock]:
        with self.installation.store.read() as tx:
            (rollout,) = Rollouts(tx).live()
            return list(Observations(tx).blocks(rollout.id))

    def revision(self) -> int:
        return routes.load_table(self.installation.context).revision

    def recorded(self) -> int:
        return sum(row.requests for row in self.traffic())


@contextmanager
def routed(
    folder: Path,
    provider: str,
    database_url: str | None = None,
    **sections: object,
) -> Iterator[Routed]:
    """A migrated, seeded installation whose router is not running yet.

    Args:
        provider: the simulator's base URL.
        database_url: by default SQLite in the folder.
        sections: of the file, instead of those here; `router` adds to the settings here.
    """
    router = sections.pop("router", {})
    assert isinstance(router, dict)
    settings: dict[str, object] = {
        "database_url": database_url or f"sqlite:///{folder / 'swapproof.db'}",
        # Without health checks, so that a provider gets the clients' requests alone.
        "router": {"flush_interval_s": 0.2, "health_check_interval_s": 0, **router},
        "providers": {"sim": {"kind": "sim", "api_base": f"{provider}/v1"}},
        "suites": {"colours": {"path": str(suite_file(folder)), "scorer": "exact"}},
        "routes": {ROUTE: {"incumbent": "sim/sim-base", "suites": ["colours"]}},
        **sections,
    }
    if database_url is None:
        # The upgrade has its triggers to sign; to migrate takes four times as long.
        (folder / "swapproof.db").write_bytes(migrated_file())
    with site(folder, settings) as place:
        installation = open_installation(place.config, create_secret=True)
        try:
            upgrade_database(installation.settings)
            seed.apply_seed(installation.context, installation.settings)
            made = keys.create_key(
                installation.context,
                SYSTEM,
                "test",
                secret=installation.secret,
            )
            yield Routed(place, installation, made[1])
        finally:
            installation.close()


def start_canary(
    world: Routed,
    folder: Path,
    *,
    canary: CanaryPolicy = CANARY,
) -> SmallInstallation:
    """Brings a better candidate to a canary at one half; returns the control plane."""
    steps = (CanaryStep(5000, 1000, certify=True),)
    policy = replace(POLICY, canary=replace(canary, steps=steps))

    def answer(
        target: Target,
        item: Item,
        _epoch: int,
    ) -> str:
        number = int(item.id.rpartition("-")[2])
        right = target.model == "sim-better" or number % 2 == 0
        return str(item.target) if right else "wrong"

    control = SmallInstallation(
        folder,
        world.installation.store,
        policy=policy,
        script=answer,
    )
    proposal = control.propose("sim/sim-better")
    for _ in range(10):
        control.run_once()
        if control.get(proposal.id).phase is ProposalPhase.CANARY:
            return control
    raise AssertionError(control.get(proposal.id))
