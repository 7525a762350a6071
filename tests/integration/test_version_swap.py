"""Real processes of the version before the newest migration beside this version's, on one
database: a swap goes through while half of them are old, and an open canary, a freeze, a
break-glass and a run that is held up go on under their own rules, over the upgrade and over the
way back by one step of the schema.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest
import yaml

from evals.sim import server as sim
from harness.store import migrate
from tests.integration.test_earlier_commits import code_of
from tests.integration.test_earlier_processes import commit_before_the_newest_schema
from tests.support.providers import simulator_thread
from tests.support.providers.scripted_chat import serving
from tests.support.router.router_fleet import RoundRobin
from tests.support.router.router_process import Load, eventually
from tests.support.site.two_versions import (
    HeldProvider,
    TwoVersions,
    two_versions,
)

pytestmark = [
    pytest.mark.verify,
    pytest.mark.both_databases,
    pytest.mark.req("F1", "F2", "G2", "G6"),
    pytest.mark.timeout(1_800),
]

ITEMS: Final = 40
CONNECTIONS: Final = 4
# How long the freeze and the break-glass last, at least and in times of what it took to start
# the first processes: over the change of versions, and not over the whole test.
HELD_S: Final = 240
HELD_TIMES: Final = 10
SKILLS: Final = {"base": 0.5, "better": 0.95}
RULES: Final[list[dict[str, Any]]] = [{"weight_bps": 2000, "min_exposures": 20, "min_s": 15.0},
                {"weight_bps": 5000, "min_exposures": 20, "certify": True}]  # fmt: skip
OTHER_RULES: Final[list[dict[str, Any]]] = [
    {**RULES[0], "weight_bps": 1000},
    {**RULES[1], "weight_bps": 3000},
]
DOWNGRADE: Final = ("db", "downgrade", "--reason", "it is slower")


def settings(folder: Path, sim_url: str, held_url: str, *, queue: bool) -> dict[str, object]:
    """Three routes: `chat` is swapped meanwhile, `open` has a canary, `glass` a break-glass."""
    replies = folder / "replies.jsonl"
    rows = [{"input": f"Say {number}.", "target": "fine"} for number in range(ITEMS)]
    replies.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    route = {"incumbent": "sim/base", "suites": ["tickets"], "policy": "quick"}
    limits = {"max_concurrent": CONNECTIONS, "requests_per_min": 100_000}
    return {
        "router": {"flush_interval_s": 0.2, "shutdown_delay_s": 1, "workers": 1},
        "control": {
            "reconcile_interval_s": 0.5,
            "eval_connections": CONNECTIONS,
            **({"queue": "procrastinate"} if queue else {}),
        },
        "providers": {
            "sim": {"kind": "sim", "api_base": f"{sim_url}/v1"},
            "held": {"kind": "openai", "api_base": held_url, "eval_limits": limits},
        },
        "suites": {"replies": {"path": str(replies), "scorer": "exact"}},
        "policies": {"quick": policy(RULES)},
        "routes": dict.fromkeys(("chat", "open", "glass"), route),
    }


def policy(steps: list[dict[str, Any]]) -> dict[str, object]:
    return {
        "promotion": "automatic",
        "gate": {"claim": "superior", "n_max": 200, "infra_pause_s": 2},
        "canary": {
            "unit": "request", "block_size": 20, "p0": 0.2, "bake_s": 0, "steps": steps,
            "evidence": "even", "warm_up": 0, "carried_share": 0, "segment_share": 0,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return code_of(commit_before_the_newest_schema(), tmp_path_factory.mktemp("code"))


@pytest.fixture
def held_provider() -> Iterator[HeldProvider]:
    provider = HeldProvider()
    yield provider
    provider.release()


@pytest.fixture
def world(
    earlier: Path, held_provider: HeldProvider, empty_database_url: str, tmp_path: Path
) -> Iterator[TwoVersions]:
    profiles = tmp_path / "profiles.yaml"
    models = {
        name: {"skill": skill, "seed": seed}
        for seed, (name, skill) in enumerate(SKILLS.items(), 1)
    }
    profiles.write_text(yaml.safe_dump(models), encoding="utf-8")
    queue = empty_database_url.startswith("postgresql")
    with (
        simulator_thread.serve_in_thread(
            sim.simulator(profiles=profiles, time_scale=0.0)
        ) as url,
        serving(held_provider) as served,
    ):
        given = settings(tmp_path, url, served.url, queue=queue)
        with two_versions(tmp_path, earlier, empty_database_url, given) as made:
            yield made


@dataclass
class Begun:
    """What is open in `world` when the version changes. ends_at: of the freeze and the
    break-glass, by `time.monotonic`.
    """

    world: TwoVersions
    key: str
    canary: str
    run: str
    ends_at: float
    asked: int = 0  # by itself, beside the callers

    def __post_init__(self) -> None:
        self.rules = self.world.rollout(self.canary)

    def holds(self, version: str) -> None:
        """All is as it was: the canary in its freeze, the break-glass, and the rules."""
        assert time.monotonic() < self.ends_at, "the machine is too slow for HELD_TIMES"
        assert self.world.rollout(self.canary) == self.rules
        step, state = self.world.step(self.canary)
        assert step == 0
        assert state in ("waiting", "measuring")
        assert self.world.weights("open") == [RULES[0]["weight_bps"]]
        assert self.world.serves("glass") == "better"
        assert self.glass_header(f"router-{version}")
        assert "it is release week" in self.world.run(version, "route", "freezes")

    def has_ended(self, version: str) -> None:
        """The freeze and the break-glass are over, and the canary went its own way."""
        world = self.world
        eventually(lambda: time.monotonic() > self.ends_at, timeout_s=1_200)
        eventually(lambda: world.serves("glass") == "base")
        eventually(lambda: not self.glass_header(f"router-{version}"))
        eventually(lambda: world.phase(self.canary) == "promoted", timeout_s=600)
        assert world.rollout(self.canary) == self.rules
        assert world.weights("open") == [step["weight_bps"] for step in RULES]
        assert world.serves("open") == "better"

    def glass_header(self, router: str) -> str | None:
        """What a router says of the break-glass in its answers."""
        with openai.OpenAI(
            base_url=f"{self.world.place.url(router)}/v1", api_key=self.key, max_retries=0
        ) as client:
            answer = client.chat.completions.with_raw_response.create(
                model="glass", messages=[{"role": "user", "content": "Now?"}]
            )
        self.asked += 1
        header: str | None = answer.headers.get("x-swapgate-break-glass")
        return header


def processes(world: TwoVersions, version: str) -> list[str]:
    kinds = ["router", "control", *(["worker"] if world.several_hosts else [])]
    return [f"{kind}-{version}" for kind in kinds]


@contextmanager
def load_on(world: TwoVersions, key: str, *routers: str) -> Iterator[Load]:
    """Callers whose client takes the routers in turn, and passes over one that refuses."""
    for router in routers:
        world.port(router)
    urls = [world.place.url(router) for router in routers]
    load = Load(routes=("chat", "open", "glass"), pause_s=0.05)
    with load.running(urls[0], key, 3, lambda: httpx.Client(transport=RoundRobin(urls))):
        yield load


def prepare(world: TwoVersions, version: str) -> tuple[str, int]:
    """Sets the installation up and starts its processes.

    Returns the key of the callers, and how long a freeze shall last, in seconds.
    """
    began = time.monotonic()
    world.run(version, "init")
    made = world.run(version, "key", "create", "users", "--json")
    world.run(version, "model", "add", "sim/better")
    for model in ("first", "second"):
        world.run(version, "model", "add", f"held/{model}")
    world.start(*processes(world, version))
    took_s = time.monotonic() - began
    return str(json.JSONDecoder().raw_decode(made)[0]["text"]), max(
        HELD_S, round(HELD_TIMES * took_s)
    )


def admin_key(world: TwoVersions, version: str, name: str) -> str:
    """The file of a new admin's key."""
    made = world.run(version, "key", "create", name, "--role", "admin", "--json")
    file = world.place.folder / f"{name}.key"
    file.touch(mode=0o600)
    file.write_text(json.JSONDecoder().raw_decode(made)[0]["text"], encoding="utf-8")
    return str(file)


def begin(
    world: TwoVersions, version: str, key: str, held_provider: HeldProvider, lasts_s: int
) -> Begun:
    """Opens a canary in a freeze, a break-glass, and a run that its provider holds up."""
    canary = world.id_from(version, "p", "proposal", "create", "open", "sim/better")
    eventually(lambda: world.phase(canary) == "canary", timeout_s=600)
    lasts = ("--for", f"{lasts_s}s", "--reason", "it is release week")
    world.run(version, "route", "freeze", "open", *lasts)
    ann, bo = (admin_key(world, version, name) for name in ("ann", "bo"))
    asked = ("propose", "glass", "sim/better", *lasts, "--key-file", ann)
    glass = world.id_from(version, "bg", "route", "break-glass", *asked)
    world.run(version, "route", "break-glass", "confirm", glass, "--key-file", bo)
    ends_at = time.monotonic() + lasts_s
    run = hold_run(world, version, held_provider, "first")
    return Begun(world, key, canary, run, ends_at)


def hold_run(world: TwoVersions, version: str, held_provider: HeldProvider, model: str) -> str:
    """A run that has some of its samples, and waits for others."""
    held_provider.hold(ITEMS // 4)
    run = world.id_from(version, "run", "eval", "run", "replies", f"held/{model}")
    eventually(lambda: sum(held_provider.calls(model).values()) > ITEMS // 4, timeout_s=600)
    eventually(lambda: world.samples(run), timeout_s=600)
    return run


def complete(world: TwoVersions, run: str) -> None:
    """The run ends, with each sample once."""
    eventually(lambda: world.run_state(run) == "done", timeout_s=600)
    samples = world.samples(run)
    assert len(samples) == len(set(samples)) == ITEMS


def test_a_swap_goes_through_while_half_of_the_processes_are_of_the_version_before(
    world: TwoVersions, held_provider: HeldProvider
) -> None:
    key, lasts_s = prepare(world, "old")
    before = migrate.current(world.url)
    with load_on(world, key, "router-old", "router-new") as load:
        begun = begin(world, "old", key, held_provider, lasts_s)
        load.more(30)
        world.run("new", "db", "upgrade")
        assert (before, migrate.current(world.url)) == tuple(migrate.revisions()[-2:])
        begun.holds("old")
        assert "goes on" in world.run("old", "db", "check")
        assert world.run_state(begun.run) == "running"
        held_provider.release()
        complete(world, begun.run)
        # No process ended meanwhile: nothing was asked twice.
        assert set(held_provider.calls("first").values()) == {1}

        # What these read of the rules is for what begins under them.
        world.change_file(policies={"quick": policy(OTHER_RULES)})
        world.start(*processes(world, "new"))
        world.change_file(policies={"quick": policy(RULES)})
        load.more(30)
        begun.holds("new")
        swap = world.id_from("new", "p", "proposal", "create", "chat", "sim/better")
        eventually(lambda: world.phase(swap) == "promoted", timeout_s=600)
        assert world.leader() == "control-old"
        assert world.serves("chat") == "better"

        run = hold_run(world, "old", held_provider, "second")
        for name in processes(world, "old"):
            world.stop(name)
            load.more(30)
        eventually(lambda: world.leader() == "control-new", timeout_s=600)
        held_provider.release()
        complete(world, run)
        # At most what was under way is asked again.
        assert sum(held_provider.calls("second").values()) <= ITEMS + CONNECTIONS
        begun.has_ended("new")
        load.more(30)
    assert load.errors == []
    for name in processes(world, "new"):
        world.stop(name)
    assert world.value("SELECT SUM(requests) FROM traffic") == load.answered + begun.asked
    assert "every row is as it was signed" in world.run("new", "db", "check")
    world.run("new", "audit", "verify")
    assert migrate.check(world.url) == []
    world.logs_are_clean()


def test_what_is_open_goes_on_over_the_way_back_to_the_version_before(
    world: TwoVersions, held_provider: HeldProvider
) -> None:
    key, lasts_s = prepare(world, "new")
    with load_on(world, key, "router-new", "router-old") as load:
        begun = begin(world, "new", key, held_provider, lasts_s)
        begun.holds("new")
        for name in processes(world, "new")[1:]:
            world.stop(name)
        held_provider.release()
        asked = dict(held_provider.calls("first"))
        lost = world.run("new", *DOWNGRADE, "--dry-run")
        assert "would go back" in lost
        world.run("new", *DOWNGRADE, "--yes")
        load.more(30)  # the router serves what it has
        world.run("old", "db", "upgrade")
        assert migrate.current(world.url) == migrate.revisions()[-2]

        world.start(*processes(world, "old"))
        load.more(30)
        begun.holds("old")
        complete(world, begun.run)
        again = [n - asked.get(prompt, 0) for prompt, n in held_provider.calls("first").items()]
        assert sum(again) <= ITEMS
        assert sum(held_provider.calls("first").values()) <= ITEMS + CONNECTIONS
        # What the newer router counted meanwhile is in its home, for the older one.
        world.stop("router-new")
        world.start("router-old-again", home_of="router-new")
        load.more(30)
        begun.has_ended("old")
    assert load.errors == []
    for name in (*processes(world, "old"), "router-old-again"):
        world.stop(name)
    assert world.value("SELECT SUM(requests) FROM traffic") == load.answered + begun.asked
    assert "every row is as it was signed" in world.run("old", "db", "check")
    world.run("old", "audit", "verify")
    world.logs_are_clean()
