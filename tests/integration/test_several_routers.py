import itertools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest
import yaml
from psycopg import sql

from evals.sim import server as sim
from harness.frame.people.access import SYSTEM
from harness.frame.people.limits import KeyLimits
from harness.operations import integrity, keys
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.table import Arm, choose_arm
from tests.support.providers import simulator_thread
from tests.support.router.router_fleet import (
    RoundRobin,
    RouterFleet,
    balancer,
    documented_block,
    router_fleet,
)
from tests.support.router.router_process import (
    EVER,
    ROUTE,
    Load,
    Routed,
    eventually,
    start_canary,
)
from tests.support.store.postgres_cluster import PostgresNode, postgres_node

pytestmark = [
    pytest.mark.req("G5"),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

AWAY_S = 60.0
# Of 8 tokens, which is what the simulator counts for the question of `ask_once`.
PRICES = {"sim-base": {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 0.0}}
COST_USD = 0.008


@pytest.fixture(scope="module")
def slow_provider() -> Iterator[str]:
    with simulator_thread.serve_in_thread(sim.simulator(time_scale=0.5)) as url:
        yield url


@pytest.mark.verify
@pytest.mark.req("F1", "F3")
@pytest.mark.parametrize("entrance", ["round robin", "nginx", "envoy"])
def test_a_rolling_restart_fails_no_request_and_counts_no_caller_twice(
    entrance: str,
    slow_provider: str,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    settings = yaml.safe_load(documented_block("yaml", "trusted_proxies"))["router"]
    router = {
        **settings,
        "host": "127.0.0.1",
        "trusted_proxies": ["127.0.0.1"],
    }
    with router_fleet(tmp_path, slow_provider, postgres_url, router=router) as fleet:
        fleet.start()
        start_canary(fleet.world, tmp_path)
        eventually(fleet.in_force)
        route = fleet.route()
        with entered(
            fleet,
            entrance,
            tmp_path,
            callers=8,
            users_each=20,
        ) as load:
            for name in fleet.names:
                load.more(100)
                restart(fleet, name)
            load.more(100)
        assert load.errors == []
        assert fleet.stop() == [0, 0, 0]
        assert fleet.world.recorded() == load.answered
        assert load.answered > len(load.users)  # callers came back, to other routers
        blocks = fleet.world.blocks()
        assert sum(block.units for block in blocks) == len(load.users)
        arms = [choose_arm(route, f"user:{user}") for user in load.users]
        assert sum(block.canary_units for block in blocks) == arms.count(Arm.CANARY) > 0
        assert sum(block.failures + block.missing for block in blocks) == 0


@pytest.mark.verify
def test_routers_grant_a_keys_rate_and_its_budget_together(
    provider: str,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    router = {"flush_interval_s": 0.2, "rate_share": 1 / 3}
    priced = {
        "sim": {
            "kind": "sim",
            "api_base": f"{provider}/v1",
            "prices": PRICES,
        }
    }
    with router_fleet(
        tmp_path,
        provider,
        postgres_url,
        router=router,
        providers=priced,
    ) as fleet:
        fleet.start()
        _, rated = limited_key(
            fleet,
            "rated",
            KeyLimits(requests_per_min=60),
        )
        begun = time.monotonic()
        answers = [ask_once(url, rated) for url in fleet.urls for _ in range(30)]
        granted = answers.count("")
        assert 60 <= granted <= 60 + (time.monotonic() - begun)
        assert set(answers) == {"", "rate_limit_exceeded"}

        key, budgeted = limited_key(
            fleet,
            "budgeted",
            KeyLimits(budget_day_usd=19.5 * COST_USD),
        )
        first, *others = fleet.urls
        answered = [answers_until_refused(first, budgeted)]
        # The others hear of it some 1.3 s later: of 20 each, they grant a few.
        answered += [answers_until_refused(url, budgeted, pause_s=0.5) for url in others]
        assert answered[0] == 20
        assert max(answered[1:]) < 10
        assert fleet.stop() == [0, 0, 0]
        assert requests_of(fleet, key) == sum(answered)


@pytest.mark.verify
@pytest.mark.postgres
def test_routers_serve_through_a_bad_hour_of_postgresql_and_record_all_of_it_once(
    provider: str, tmp_path: Path
) -> None:
    with (
        postgres_node(migrated=True) as server,
        router_fleet(tmp_path, provider, server.dsn) as fleet,
    ):
        fleet.start()
        start_canary(fleet.world, tmp_path)
        eventually(fleet.in_force)
        with entered(
            fleet,
            "round robin",
            tmp_path,
            callers=3,
            users_each=40,
        ) as load:
            server.stop()
            eventually(lambda: states(fleet) == {"degraded"})
            until = time.monotonic() + AWAY_S
            while time.monotonic() < until and not load.errors:
                load.more(20)
            # Fewer than the routers' processes ask for.
            server.settings = {"max_connections": 4}
            server.start(wait=False)
            load.more(200)
            assert "degraded" in states(fleet)
            server.stop()
            # What waits for a lock is ended by the server.
            server.settings = {"statement_timeout": "100ms"}
            server.start()
            with locked(server, "traffic", "seen_keys", "key_spend"):
                load.more(200)
            load.more(20)
        assert load.errors == []
        eventually(lambda: states(fleet) == {"ok"})
        eventually(lambda: fleet.world.recorded() >= load.answered)
        assert fleet.stop() == [0, 0, 0]

        assert fleet.world.recorded() == load.answered
        assert requests_of(fleet) == load.answered
        blocks = fleet.world.blocks()
        assert sum(block.units for block in blocks) == len(load.users)
        assert sum(block.failures + block.missing for block in blocks) == 0


@pytest.mark.verify
@pytest.mark.req("F4")
def test_routers_on_one_sqlite_file_serve_on_while_it_is_away_and_refuse_an_older_one(
    provider: str, tmp_path: Path
) -> None:
    file = tmp_path / "swapproof.db"
    backup = tmp_path / "backup.db"
    away = tmp_path / "away.db"
    with router_fleet(tmp_path, provider, f"sqlite:///{file}") as fleet:
        world = fleet.world
        fleet.start()
        copy_sqlite(file, backup)
        describe_route(world, "newer than the backup")
        eventually(fleet.in_force)
        served = world.revision()
        with entered(
            fleet,
            "round robin",
            tmp_path,
            callers=3,
            users_each=40,
        ) as load:
            file.rename(away)
            eventually(lambda: states(fleet) == {"degraded"})
            load.more(20)
            away.rename(file)
            eventually(lambda: states(fleet) == {"ok"})
            eventually(lambda: world.recorded() == load.answered)

            backup.rename(file)
            eventually(lambda: states(fleet) == {"degraded"})
            load.more(20)
            assert revisions(fleet) == {served}
            integrity.accept_restore(
                world.installation.context,
                SYSTEM,
                reason="a drill",
                above=served,
            )
            eventually(lambda: states(fleet) == {"ok"})
            describe_route(world, "after it")
            eventually(fleet.in_force)
            load.more(20)
        assert load.errors == []
        assert fleet.stop() == [0, 0, 0]
        assert world.revision() > served


def copy_sqlite(file: Path, to: Path) -> None:
    with (
        closing(sqlite3.connect(file)) as source,
        closing(sqlite3.connect(to)) as target,
    ):
        source.backup(target)


def describe_route(world: Routed, description: str) -> None:
    context = world.installation.context
    routes.change_settings(
        context,
        SYSTEM,
        ROUTE,
        lambda now: replace(now, description=description),
    )


def revisions(fleet: RouterFleet) -> set[float]:
    prefix = "swapproof_routing_revision{"
    return {value for name in fleet.names for value in fleet.metric(name, prefix)}


def states(fleet: RouterFleet) -> set[str]:
    return {httpx.get(f"{url}/readyz", timeout=60).json()["status"] for url in fleet.urls}


@contextmanager
def locked(server: PostgresNode, *tables: str) -> Iterator[None]:
    names = sql.SQL(", ").join(map(sql.Identifier, tables))
    with psycopg.connect(server.dsn) as db:
        db.execute("SET statement_timeout = 0")
        db.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
        yield


def limited_key(
    fleet: RouterFleet,
    name: str,
    limits: KeyLimits,
) -> tuple[str, str]:
    context = fleet.world.installation.context
    secret = fleet.world.installation.secret
    key, text = keys.create_key(
        context,
        SYSTEM,
        name,
        secret=secret,
        limits=limits,
    )
    headers = {"authorization": f"Bearer {text}"}
    for url in fleet.urls:
        eventually(partial(knows, f"{url}/v1/models", headers))
    return key.id, text


def knows(url: str, headers: dict[str, str]) -> bool:
    return httpx.get(url, headers=headers, timeout=60).status_code == httpx.codes.OK


def ask_once(url: str, key: str) -> str:
    """Why it was refused; empty for an answer."""
    answer = httpx.post(
        f"{url}/v1/chat/completions",
        json={
            "model": ROUTE,
            "messages": [{"role": "user", "content": "Colour number 3?"}],
        },
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
    )
    return "" if answer.status_code == httpx.codes.OK else str(answer.json()["error"]["code"])


def answers_until_refused(
    url: str,
    key: str,
    pause_s: float = 0.0,
) -> int:
    """How many requests were answered until the key's budget was used up."""
    for count in itertools.count():
        if refusal := ask_once(url, key):
            assert refusal == "insufficient_quota"
            return count
        time.sleep(pause_s)
    raise AssertionError


def requests_of(fleet: RouterFleet, key: str = "") -> int:
    with fleet.world.installation.store.read() as tx:
        rows = Observations(tx).spends(since=EVER.date())
    return sum(row.requests for row in rows if key in ("", row.key))


@contextmanager
def entered(
    fleet: RouterFleet,
    entrance: str,
    folder: Path,
    *,
    callers: int,
    users_each: int,
) -> Iterator[Load]:
    load = partial(fleet.world.load, callers, users_each=users_each)
    if entrance == "round robin":
        with load(
            url=fleet.urls[0],
            http=lambda: httpx.Client(transport=RoundRobin(fleet.urls)),
        ) as found:
            yield found
        return
    with (
        balancer(entrance, folder, fleet.ports) as url,
        load(url=url) as found,
    ):
        yield found


def restart(fleet: RouterFleet, name: str) -> None:
    """SIGTERM, and a start once the process has ended."""
    assert fleet.world.place.terminate(name) == 0, fleet.world.place.log(name)
    fleet.start(name)
