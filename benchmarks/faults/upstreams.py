"""Runs the two providers as processes, and sets their faults and reads their counts by HTTP."""

import asyncio
import json
import re
import sys
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.faults.catalogue import (
    PRIMARY,
    SPARE,
    Place,
    Route,
    routes,
    rows,
)
from benchmarks.faults.client import words
from benchmarks.router.processes import free_port, start, wait_for
from evals.sim import profiles
from evals.sim import server as serve
from evals.sim.chat_completions import ChatRequest, Completion
from evals.sim.faults import TRANSPORT, HttpExchange
from evals.sim.server import build_app, server
from evals.sim.simulated_model import ItemBank, SimulatedModel
from evals.sim.simulator import Simulator

# The number is in the prompt, because every gateway passes the prompt on.
NUMBER: Final = re.compile(rb"request-([0-9a-z.-]+)")
CALLS: Final = "/calls"
LARGE: Final = re.compile(rb'"model": ?"p\.f12-(huge|gzip|header)')
MIB: Final = 2**20


class Numbered(Simulator):
    """A simulator that answers every request with `words(letter)`."""

    def __init__(self, letter: str, models: Iterable[str]) -> None:
        plain = next(iter(profiles.load_profiles(profiles.DEFAULT_PROFILES).values()))
        super().__init__(
            dict.fromkeys(models, plain),
            ItemBank({}),
            time_scale=0,
        )
        self._text = " ".join(words(letter))

    def _complete(self, request: ChatRequest, model: SimulatedModel) -> Completion:
        return replace(super()._complete(request, model), text=self._text)


def counting(app: ASGIApp) -> ASGIApp:
    """Wraps the application. CALLS returns the number of calls by the request's number, and the
    numbers of the requests whose client hung up.
    """
    calls: Counter[str] = Counter()
    left: set[str] = set()

    async def counted(
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["path"] == CALLS:
            told = {"calls": calls, "left": sorted(left)}
            await HttpExchange(scope, receive, send).reply(200, told)
            return
        body = await HttpExchange(scope, receive, send).body()
        found = NUMBER.search(body)
        number = found[1].decode() if found else ""
        calls[number] += 1
        unread = [
            {
                "type": "http.request",
                "body": body,
                "more_body": False,
            }
        ]

        async def replay_body() -> MutableMapping[str, Any]:
            if unread:
                return unread.pop()
            message = await receive()
            if message["type"] == "http.disconnect":
                left.add(number)
            return message

        if large := LARGE.search(body):
            await send_too_much(scope, send, large[1].decode())
        else:
            await app(scope, replay_body, send)

    return counted


async def send_too_much(
    scope: Scope,
    send: Send,
    what: str,
) -> None:
    """Sends 80 MiB of blanks, 256 MiB of compressed blanks, or 64 MiB of headers, until the
    client hangs up.
    """
    transport = scope["extensions"][TRANSPORT]
    if what == "header":
        line = b"x-endless: " + b"a" * 4096 + b"\r\n"
        transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
        for _ in range(64 * MIB // len(line)):
            transport.write(line)
            while transport.get_write_buffer_size() > MIB and not transport.is_closing():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        transport.close()
        return
    headers = [(b"content-type", b"application/json")]
    blanks = b" " * 65_536
    packer = zlib.compressobj(wbits=31)
    parts: Iterable[bytes] = repeat(blanks, 80 * MIB // len(blanks))
    if what == "gzip":
        headers.append((b"content-encoding", b"gzip"))
        parts = map(packer.compress, repeat(blanks, 256 * MIB // len(blanks)))
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": headers,
        }
    )
    for part in parts:
        await send(
            {
                "type": "http.response.body",
                "body": part,
                "more_body": True,
            }
        )
        await asyncio.sleep(0)
        if transport.is_closing():
            return
    end = packer.compress(b"{}") + packer.flush() if what == "gzip" else b"{}"
    await send({"type": "http.response.body", "body": end})


def main() -> None:
    letter, port = sys.argv[1:]
    models = [f"{letter}.{route.name}" for route in routes(rows())]
    app = counting(build_app(Numbered(letter, models)))
    with serve.open_listener("127.0.0.1", int(port)) as listener:
        server(app).run(sockets=[listener])


if __name__ == "__main__":
    main()


FALLBACK: Final = "spare"
LETTERS: Final = {Place.PRIMARY.value: PRIMARY, FALLBACK: SPARE}
START_S: Final = 60.0


class Upstreams(NamedTuple):
    """The provider processes. ports: by provider's name."""

    ports: Mapping[str, int]
    pids: tuple[int, ...]

    @classmethod
    def started(cls, folder: Path, stack: ExitStack) -> Self:
        """Starts the processes; the end of `stack` ends them. Raises DidNotStart."""
        ports = {}
        pids = []
        for name, letter in LETTERS.items():
            ports[name] = port = free_port()
            module = [sys.executable, "-m", "benchmarks.faults.upstreams"]
            command = [*module, letter, str(port)]
            process = start(command, stack, log=folder / f"{name}.log")
            wait_for(port, process, START_S)
            pids.append(process.pid)
        return cls(ports, tuple(pids))

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def break_(self, routes: Iterable[Route]) -> None:
        """Sets each route's fault once, because every route has its own models."""
        for route in routes:
            if route.variant.fault is None:
                continue
            self._put(Place.PRIMARY.value, route.primary, route.variant.fault)
            if route.variant.both:
                self._put(FALLBACK, route.spare, route.variant.fault)

    def _put(
        self,
        name: str,
        model: str,
        fault: Mapping[str, Any],
    ) -> None:
        request = urllib.request.Request(  # noqa: S310 - http, to ourselves
            f"{self.url(name)}/sim/faults/{model}",
            data=json.dumps(fault).encode(),
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - as above
            pass

    def calls(self) -> Counter[str]:
        """Counts the calls by the request's number. Calls without a connection are missing."""
        found: Counter[str] = Counter()
        for name in self.ports:
            found.update(self._call_record(name)["calls"])
        return found

    def left(self) -> set[str]:
        """Returns the numbers of the requests whose client hung up."""
        return {number for name in self.ports for number in self._call_record(name)["left"]}

    def _call_record(self, name: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url(name) + CALLS, timeout=30) as answer:  # noqa: S310
            told: dict[str, Any] = json.load(answer)
        return told
