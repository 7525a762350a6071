"""While the database is away, agents say so and models are served; nothing is lost."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.test_agents_process import Gate, sending
from tests.support.providers.scripted_upstream import completion
from tests.support.router.router_process import ask, eventually
from tests.support.site.agents_site import AgentsSite, agents_site, error_of, good
from tests.support.store.postgres_cluster import postgres_node

pytestmark = [pytest.mark.req("E1", "E2"), pytest.mark.slow]

Outage = tuple[AgentsSite, Callable[[], object], Callable[[], object]]


@contextmanager
def sqlite_outage(folder: Path) -> Iterator[Outage]:
    file, away = folder / "swapgate.db", folder / "elsewhere.db"
    with agents_site(folder) as site:
        yield site, lambda: file.rename(away), lambda: away.rename(file)


@contextmanager
def postgres_outage(folder: Path) -> Iterator[Outage]:
    with (
        postgres_node(migrated=True) as server,
        agents_site(folder, database_url=server.dsn) as site,
    ):
        yield site, server.stop, server.start


@pytest.mark.parametrize(
    "outage",
    [
        sqlite_outage,
        pytest.param(postgres_outage, marks=[pytest.mark.postgres, pytest.mark.verify]),
    ],
)
def test_while_the_database_is_away_agents_say_so_and_models_are_served(
    outage: Callable[[Path], Iterator[Outage]], tmp_path: Path
) -> None:
    with outage(tmp_path) as (site, leave, come_back):  # type: ignore[attr-defined]  # a context manager
        site.upstream.turns["sim-base"] = completion("hello")
        session = site.session()
        good(site.send(session, "First"))
        gate = Gate.closed()
        site.upstream.turns["sim-base"] = gate.reply
        headers = {"idempotency-key": "k-2"}
        with ThreadPoolExecutor(1) as pool:
            cut = sending(site, pool, session, headers=headers)
            leave()
            gate.opened.set()
            error_of(cut.result(), 503)

        for answer in (
            site.client.get("/agents"),
            site.client.get(f"{session}/messages"),
            site.send(session, "Second"),
            site.client.post("/agents", json={"name": "x", "model": "chat"}),
        ):
            assert error_of(answer, 503)["code"] == "store_unavailable"
            assert int(answer.headers["retry-after"]) >= 1
        with site.world.client() as client:
            assert ask(client) == "hello"
        come_back()

        eventually(lambda: site.client.get("/agents").status_code == 200)
        # Until the lease of the turn that could not be stored has ended, the session is busy.
        eventually(
            lambda: site.send(session, "Take your time", headers=headers).status_code == 200
        )
        again = good(site.send(session, "Take your time", headers=headers))
        assert again["content"] == "hello"
        rows = [row for row in site.messages(session) if row["state"] == "complete"]
        assert [row["content"] for row in rows] == ["First", "hello", "Take your time", "hello"]
        assert {row["state"] for row in site.messages(session)} <= {"complete", "interrupted"}


@pytest.mark.verify
def test_serve_all_serves_agents_and_starts_them_again(tmp_path: Path) -> None:
    with agents_site(tmp_path) as site:
        site.upstream.turns["sim-base"] = completion("hello")
        place = site.world.place
        for name in ("agents", "router"):
            assert place.terminate(name) == 0
        place.start("all", "serve", "all")
        place.children["router"] = place.children["agents"] = place.children["all"]
        for name in ("router", "agents"):
            place.answers(name, "/readyz")
        session = site.session()
        good(site.send(session, "First"))
        parts = psutil.Process(place.pid("all")).children(recursive=True)
        [agents] = [part for part in parts if part.name() == "serve agents"]

        agents.kill()

        eventually(lambda: not agents.is_running() or agents.status() == psutil.STATUS_ZOMBIE)
        eventually(lambda: site.client.get("/agents").status_code == 200)
        good(site.send(session, "Second"))
        assert len(site.messages(session)) == 4
        children = psutil.Process(place.pid("all")).children(recursive=True)
        assert place.terminate("all") == 0
        assert not psutil.wait_procs(children, timeout=60)[1]
