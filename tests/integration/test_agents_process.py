"""Conversations survive their process, killed or ended in the middle of an answer, and their
database's absence.
"""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.providers.scripted_transport import (
    ScriptedEvent,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import (
    ROLE,
    ReceivedRequest,
    broken_stream,
    completion,
    event,
)
from tests.support.router.router_process import ask, eventually
from tests.support.site.agents_site import (
    AgentsSite,
    agents_site,
    error_of,
    good,
)
from tests.support.store.postgres_cluster import postgres_node

pytestmark = pytest.mark.req("E2", "C5")

BASE = "sim-base"
HANGS = ScriptedTurn(hang=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsSite]:
    with agents_site(tmp_path_factory.mktemp("agents")) as made:
        yield made


@pytest.fixture
def site(shared: AgentsSite) -> AgentsSite:
    shared.upstream.turns[BASE] = completion("hello")
    return shared


class Gate(tuple[Any, ...]):  # noqa: SLOT001 - it has an attribute
    """The steps of a provider's answer, which waits until the test lets it come."""

    opened: threading.Event

    @classmethod
    def closed(cls) -> "Gate":
        made = cls(completion("late").steps)
        made.opened = threading.Event()
        return made

    def __iter__(self) -> Iterator[Any]:
        while not self.opened.is_set():
            yield 0.05
        yield from super().__iter__()

    def reply(self, request: ReceivedRequest) -> ScriptedTurn:  # noqa: ARG002 - the upstream's signature
        if self.opened.is_set():
            return completion("hello")
        return ScriptedTurn(steps=self)


def sending(
    site: AgentsSite,
    pool: ThreadPoolExecutor,
    session: str,
    **fields: object,
) -> Future[httpx.Response]:
    """A message that is under way: the provider has been asked for it."""
    before = len(site.upstream.asked)
    future = pool.submit(site.send, session, "Take your time", **fields)
    eventually(lambda: len(site.upstream.asked) > before)
    return future


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.verify), True])
@pytest.mark.spine
def test_an_answer_whose_process_was_killed_is_interrupted_and_the_key_goes_on(
    site: AgentsSite,
    stream: bool,  # noqa: FBT001 - drawn
) -> None:
    half = broken_stream(ROLE, event({"content": "half"}), ScriptedEvent.HANG)
    session = site.session()
    good(site.send(session, "First"))
    site.upstream.turns[BASE] = half if stream else HANGS
    headers = {"Idempotency-Key": "k-1"}
    with ThreadPoolExecutor(1) as pool:
        cut = sending(
            site,
            pool,
            session,
            stream=stream,
            headers=headers,
        )
        site.world.place.kill("agents")
        assert cut.exception() is not None or cut.result().status_code >= 200

    gone = site.client.get("/agents")
    assert gone.status_code == 503
    assert "retry-after" in gone.headers
    site.upstream.turns[BASE] = completion("hello again")
    site.start()
    eventually(lambda: site.messages(session)[-1]["state"] == "interrupted")
    states = [(row["role"], row["state"]) for row in site.messages(session)]
    assert states[2:] == [("user", "complete"), ("assistant", "interrupted")]
    assert site.messages(session)[-1]["content"] == ""

    again = good(site.send(session, "Take your time", headers=headers))

    assert again["content"] == "hello again"
    sent = [row["content"] for row in site.upstream.asked[-1].json["messages"]]
    # Neither the half answer, nor the message twice.
    assert sent == ["First", "hello", "Take your time"]
    places = [row["position"] for row in site.messages(session)]
    assert places == list(range(1, 6))


def test_an_answer_under_way_ends_before_its_process_does(tmp_path: Path) -> None:
    # However busy this machine is: the answer comes while the process still waits for it.
    router = {"flush_interval_s": 0.2, "drain_s": 600.0}
    with agents_site(tmp_path, sections={"router": router}) as site:
        gate = Gate.closed()
        session = site.session()
        site.upstream.turns[BASE] = gate.reply
        with ThreadPoolExecutor(2) as pool:
            answer = sending(site, pool, session)
            ended = pool.submit(site.world.place.terminate, "agents")
            eventually(lambda: refuses(site))
            gate.opened.set()
            assert good(answer.result())["content"] == "late"
            assert ended.result() == 0
        site.start()
        assert [row["state"] for row in site.messages(session)] == [
            "complete",
            "complete",
        ]


def refuses(site: AgentsSite) -> bool:
    """The process answers no new connection any more."""
    try:
        httpx.get(f"{site.world.place.url('agents')}/healthz", timeout=10)
    except httpx.TransportError:
        return True
    return False


def test_a_second_message_is_refused_until_the_first_has_its_answer(site: AgentsSite) -> None:
    gate = Gate.closed()
    session = site.session()
    site.upstream.turns[BASE] = gate.reply
    with ThreadPoolExecutor(1) as pool:
        first = sending(site, pool, session)
        refused = site.send(session, "Second")
        assert error_of(refused, 409)["code"] == "session_busy"
        assert "retry-after" in refused.headers
        gate.opened.set()
        good(first.result())
    good(site.send(session, "Second"))
    told = [row["content"] for row in site.messages(session)]
    assert told == ["Take your time", "late", "Second", "hello"]
    assert [row["position"] for row in site.messages(session)] == [1, 2, 3, 4]


def test_a_client_that_leaves_takes_no_answer_away(site: AgentsSite) -> None:
    gate = Gate.closed()
    session = site.session()
    site.upstream.turns[BASE] = gate.reply
    before = len(site.upstream.asked)
    leaving = HTTPConnection("127.0.0.1", site.world.place.ports["router"], timeout=60)
    body = json.dumps({"role": "user", "content": "Hi"})
    leaving.request("POST", f"{session}/messages", body, {"content-type": "application/json"})
    eventually(lambda: len(site.upstream.asked) > before)
    leaving.close()
    gate.opened.set()

    eventually(lambda: [row["state"] for row in site.messages(session)] == ["complete"] * 2)


Outage = tuple[AgentsSite, Callable[[], object], Callable[[], object]]


@contextmanager
def sqlite_outage(folder: Path) -> Iterator[Outage]:
    file = folder / "swapproof.db"
    away = folder / "elsewhere.db"
    with agents_site(folder) as site:
        yield site, lambda: file.rename(away), lambda: away.rename(file)


@contextmanager
def postgres_outage(folder: Path) -> Iterator[Outage]:
    with (
        postgres_node(migrated=True) as server,
        agents_site(folder, database_url=server.dsn) as site,
    ):
        yield site, server.stop, server.start


@pytest.mark.verify
@pytest.mark.parametrize(
    "outage",
    [
        sqlite_outage,
        pytest.param(postgres_outage, marks=pytest.mark.postgres),
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
        assert [row["content"] for row in rows] == [
            "First",
            "hello",
            "Take your time",
            "hello",
        ]
        assert {row["state"] for row in site.messages(session)} <= {
            "complete",
            "interrupted",
        }
