"""Many sessions hold their conversations at once, while processes are killed and started again.
Each client sends its messages one after the other and tries again what was not answered, under
the same idempotency key, as docs/reference/agents.md says; the provider checks the context of
each call.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import ReceivedRequest, completion, streamed
from tests.support.router.router_process import eventually
from tests.support.site.agents_site import AgentsSite, events, good

AGAIN_S: Final = 0.2
# Beside what says itself when to come back: a machine that is too busy for its clients.
TRY_AGAIN: Final = frozenset({408, 502, 503, 504})
# Requests that the provider remembers: nobody looks at the older ones.
REMEMBERED: Final = 200


def question(session: str, number: int) -> str:
    return f"{session} asks {number}"


def reply(text: str) -> str:
    return f"to what {text}"


@dataclass
class SessionLoad:
    """sessions, messages: how many, and how many a client sends in each."""

    site: AgentsSite
    sessions: int
    messages: int
    answered: int = 0
    tried_again: int = 0
    faults: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # by the session's own name
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.site.upstream.turns["sim-base"] = self.answer

    @property
    def total(self) -> int:
        return self.sessions * self.messages

    def answer(self, asked: ReceivedRequest) -> ScriptedTurn:
        """The provider's; every earlier message has to be there, once and in order."""
        given = [(message["role"], message["content"]) for message in asked.json["messages"]]
        session, asks, _ = str(given[-1][1]).partition(" asks ")
        if not asks:
            return completion("The router's health check, and no session's message.")
        expected = []
        for number in range(1, len(given) // 2 + 2):
            text = question(session, number)
            expected += [("user", text), ("assistant", reply(text))]
        if given != expected[:-1]:
            self.note(f"the context is {given}")
        if len(self.site.upstream.asked) > REMEMBERED:
            self.site.upstream.asked.clear()
        told = reply(str(given[-1][1]))
        if asked.json.get("stream"):
            return streamed(told[:4], told[4:])
        return completion(told)

    def note(self, fault: str) -> None:
        with self._lock:
            self.faults.append(fault)

    def run(self, clients: int, disturb: Callable[["SessionLoad"], None]) -> None:
        """Until every message is answered. disturb: what happens meanwhile, in this thread."""
        agent = self.site.create()
        with ThreadPoolExecutor(clients) as pool:
            futures = [
                pool.submit(self.converse, agent, f"s{number}")
                for number in range(self.sessions)
            ]
            disturb(self)
            for future in futures:
                future.result()
        assert self.faults == []

    def reached(self, answers: int) -> None:
        """Wait until so many were answered."""
        eventually(lambda: self.answered >= answers or bool(self.faults), timeout_s=7200)

    def converse(self, agent: str, name: str) -> None:
        with httpx.Client(base_url=self.site.world.url, timeout=120) as http:
            opened = self.insist(
                http, f"{agent}/sessions", {"userId": name}, key=f"open {name}"
            )
            place = self.places[name] = f"{agent}/sessions/{opened['id']}"
            for number in range(1, self.messages + 1):
                text = question(name, number)
                body = {"role": "user", "content": text, "stream": number % 2 == 0}
                answer = self.insist(http, f"{place}/messages", body, key=f"{name} {number}")
                if answer.get("content") != reply(text):
                    self.note(f"{text} was answered {answer}")
                with self._lock:
                    self.answered += 1

    def insist(self, http: httpx.Client, path: str, body: object, *, key: str) -> Any:
        """The answer, at last."""
        while not self.faults:
            answer = self.attempt(http, path, body, key)
            if answer is not None:
                return answer
            with self._lock:
                self.tried_again += 1
            time.sleep(AGAIN_S)
        raise AssertionError(self.faults[0])

    def attempt(self, http: httpx.Client, path: str, body: object, key: str) -> Any:
        """None where it is to be tried again."""
        try:
            answer = http.post(path, json=body, headers={"idempotency-key": key})
        except httpx.TransportError:
            return None
        if answer.status_code in TRY_AGAIN or "retry-after" in answer.headers:
            return None
        if answer.status_code not in (200, 201):
            self.note(f"{key}: {answer.status_code} {answer.text}")
            return None
        if not answer.headers["content-type"].startswith("text/event-stream"):
            return answer.json()
        told = events(answer)
        # A stream that breaks off has no such end.
        return told[-1][1] if told and told[-1][0] == "turn.completed" else None

    def assert_whole(self) -> None:
        """Nothing is lost, doubled or out of order."""
        assert self.faults == []
        assert self.answered == self.total
        client = self.site.client
        agent = next(iter(self.places.values())).partition("/sessions")[0]
        assert good(client.get(f"{agent}/sessions?limit=1"))["total"] == self.sessions
        for name, place in self.places.items():
            rows = good(client.get(f"{place}/messages?limit=1000"))["items"]
            assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
            assert {row["state"] for row in rows} <= {"complete", "interrupted", "failed"}
            assert not [row for row in rows if row["state"] != "complete" and row["content"]]
            told = [row["content"] for row in rows if row["state"] == "complete"]
            asked = [question(name, number) for number in range(1, self.messages + 1)]
            assert told == [text for one in asked for text in (one, reply(one))], name


@dataclass
class Kills:
    """Kills and restarts, spread over all that a load sends. seed: of their order."""

    count: int
    seed: int = 0
    done: list[str] = field(default_factory=list)

    def __call__(self, load: SessionLoad) -> None:
        kinds = ["kill agents", "kill router", "restart agents"]
        chance = random.Random(self.seed)
        drawn = kinds[: self.count] + [chance.choice(kinds) for _ in range(self.count - 3)]
        for number, kind in enumerate(drawn, 1):
            load.reached(number * load.total // (self.count + 1))
            if load.faults:
                return
            self.disturb(load.site, kind)

    def disturb(self, site: AgentsSite, kind: str) -> None:
        if kind == "kill router":
            site.world.kill()
            site.world.start()
        elif kind == "kill agents":
            site.world.place.kill("agents")
            site.start()
        else:
            assert site.world.place.terminate("agents") == 0
            site.start()
        self.done.append(kind)
