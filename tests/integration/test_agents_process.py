"""Conversations survive their process, killed or ended in the middle of an answer."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.providers.scripted_transport import ScriptedEvent, ScriptedTurn
from tests.support.providers.scripted_upstream import (
    ROLE,
    ReceivedRequest,
    broken_stream,
    completion,
    event,
)
from tests.support.router.router_process import eventually
from tests.support.site.agents_site import AgentsSite, agents_site, error_of, good

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
    site: AgentsSite, pool: ThreadPoolExecutor, session: str, **fields: object
) -> Future[httpx.Response]:
    """A message that is under way: the provider has been asked for it."""
    before = len(site.upstream.asked)
    future = pool.submit(site.send, session, "Take your time", **fields)
    eventually(lambda: len(site.upstream.asked) > before)
    return future


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.verify), True])
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
        cut = sending(site, pool, session, stream=stream, headers=headers)
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
        gate, session = Gate.closed(), site.session()
        site.upstream.turns[BASE] = gate.reply
        with ThreadPoolExecutor(2) as pool:
            answer = sending(site, pool, session)
            ended = pool.submit(site.world.place.terminate, "agents")
            eventually(lambda: refuses(site))
            gate.opened.set()
            assert good(answer.result())["content"] == "late"
            assert ended.result() == 0
        site.start()
        assert [row["state"] for row in site.messages(session)] == ["complete", "complete"]


def refuses(site: AgentsSite) -> bool:
    """The process answers no new connection any more."""
    try:
        httpx.get(f"{site.world.place.url('agents')}/healthz", timeout=10)
    except httpx.TransportError:
        return True
    return False


def test_a_second_message_is_refused_until_the_first_has_its_answer(site: AgentsSite) -> None:
    gate, session = Gate.closed(), site.session()
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
    gate, session = Gate.closed(), site.session()
    site.upstream.turns[BASE] = gate.reply
    body = {"role": "user", "content": "Hi"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{site.world.url}{session}/messages", json=body, timeout=3)
    gate.opened.set()

    eventually(lambda: [row["state"] for row in site.messages(session)] == ["complete"] * 2)


@pytest.mark.verify
def test_many_sessions_at_once_keep_their_own_conversations(site: AgentsSite) -> None:
    def echo(asked: ReceivedRequest) -> ScriptedTurn:
        return completion(f"you said {asked.json['messages'][-1]['content']}")

    site.upstream.turns[BASE] = echo
    agent = site.create()

    def talk(number: int) -> str:
        session = good(site.client.post(f"{agent}/sessions", json={"userId": f"u-{number}"}))
        place = f"{agent}/sessions/{session['id']}"
        for turn in range(3):
            text = f"{number}.{turn}"
            assert good(site.send(place, text))["content"] == f"you said {text}"
        return place

    with ThreadPoolExecutor(20) as pool:
        places = list(pool.map(talk, range(20)))

    for number, place in enumerate(places):
        told = [row["content"] for row in site.messages(place)]
        expected = [(f"{number}.{turn}", f"you said {number}.{turn}") for turn in range(3)]
        assert told == [text for pair in expected for text in pair]
    assert good(site.client.get(f"{agent}/sessions?limit=5"))["total"] == 20
