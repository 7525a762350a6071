"""Users who ask a router over HTTP, many at once, with what each got."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from tests.acceptance.installation import REQUEST_S, Installation

NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True)
class Answer:
    """What a user got. status: 0 where the connection failed."""

    user: str
    status: int
    arm: str = ""
    target: str = ""
    body: str = ""


@dataclass
class Traffic:
    """Sends requests of new users to a route until it is stopped."""

    installation: Installation
    route: str
    users: Iterator[str]
    threads: int = 2
    headers: Mapping[str, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._running: list[threading.Thread] = []

    def start(self) -> None:
        self._running = [threading.Thread(target=self._ask_on) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._running:
            thread.join()

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in list(self.answers) if answer.status != http.client.OK]

    def _next_user(self) -> str | None:
        with self._lock:
            return next(self.users, None)

    def _ask_on(self) -> None:
        asking = Asking(self.installation, self.route, self.headers)
        while not self._over.is_set() and (user := self._next_user()) is not None:
            self.answers.append(asking.ask(user))
        asking.close()


class Asking:
    """One connection to the router. headers: further ones of each request."""

    def __init__(
        self,
        installation: Installation,
        route: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        self._headers = headers
        self._port = installation.ports["router"]
        self._key = installation.data_key
        self._route = route
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_S)

    def ask(self, user: str) -> Answer:
        question = {
            "model": self._route,
            "user": user,
            "messages": [
                {
                    "role": "user",
                    "content": "Where is my parcel, in 4 words?",
                }
            ],
        }
        headers = {
            "authorization": f"Bearer {self._key}",
            "content-type": "application/json",
            **self._headers,
        }
        try:
            self._connection.request(
                "POST", "/v1/chat/completions", json.dumps(question), headers
            )
            answer = self._connection.getresponse()
            body = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            self._connection = self._connect()
            return Answer(user, 0, body=repr(error))
        arm, target = (
            answer.headers.get(f"x-swapproof-{name}", "") for name in ("arm", "target")
        )
        kept = "" if answer.status == http.client.OK else body
        return Answer(user, answer.status, arm, target, kept)

    def close(self) -> None:
        with suppress(OSError):
            self._connection.close()


def new_users(prefix: str = "user", pause_s: float = 0.0) -> Iterator[str]:
    """Yields names without end. pause_s: before each name."""
    for number in itertools.count():
        time.sleep(pause_s)
        yield f"{prefix}-{number}"


@contextmanager
def traffic(
    installation: Installation,
    route: str,
    prefix: str = "user",
    headers: Mapping[str, str] = NO_HEADERS,
    pause_s: float = 0.0,
) -> Iterator[Traffic]:
    """New users ask without end until the block does. pause_s: before each new user."""
    asking = Traffic(installation, route, new_users(prefix, pause_s), headers=headers)
    asking.start()
    try:
        yield asking
    finally:
        asking.stop()


def ask_all(
    installation: Installation,
    route: str,
    users: list[str],
) -> dict[str, Answer]:
    """What each of these users gets, asked once."""
    asking = Traffic(installation, route, iter(users))
    asking.start()
    for thread in asking._running:
        thread.join()
    return {answer.user: answer for answer in asking.answers}
