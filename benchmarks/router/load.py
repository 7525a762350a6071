"""Load from one core: wrk at full throttle, our own generator at a set rate and for streams."""

import asyncio
import json
import math
import re
import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import cast

import httptools
import uvloop

from benchmarks.router.processes import LOAD_CORE, Ask

# Every request has a user of its own, so that a sticky choice is made for each.
BODY = (
    '{"model":"%s","user":"user-#",%s"messages":[{"role":"system","content":"Be brief."},'
    '{"role":"user","content":"' + "What is the answer? " * 20 + '"}],"temperature":0.2}'
)
MARK = "user-#"
SCRIPT = """
local before, after, n = %s, %s, 0
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
%s
request = function()
  n = n + 1
  return wrk.format(nil, nil, nil, before .. "user-" .. n .. after)
end
"""


def body(ask: Ask, *, stream: bool) -> str:
    return BODY % (ask.model, '"stream":true,' if stream else "")


@dataclass(frozen=True)
class Throttle:
    """At full throttle: how many a second, how many of all were no 2xx."""

    requests: int
    per_s: float
    errors: int


def full_throttle(
    port: int, ask: Ask, folder: Path, *, connections: int, seconds: float
) -> Throttle:
    before, after = body(ask, stream=False).split(MARK)
    headers = "".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n"
        for name, value in ask.headers.items()
    )
    script = folder / "wrk.lua"
    script.write_text(SCRIPT % (json.dumps(before), json.dumps(after), headers))
    options = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s"]
    where = f"http://127.0.0.1:{port}{ask.path}"
    done = subprocess.run(  # noqa: S603 - our own command
        ["taskset", "-c", str(LOAD_CORE), "wrk", *options, "-s", str(script), where],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    return read_wrk(done.stdout)


def read_wrk(text: str) -> Throttle:
    requests = re.search(r"(\d+) requests in", text)
    per_s = re.search(r"Requests/sec:\s*([\d.]+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = int(refused.group(1)) if refused else 0
    errors += sum(int(group) for group in broken.groups()) if broken else 0
    if requests is None or per_s is None:
        raise ValueError(f"wrk said something else: {text[:200]}")
    return Throttle(int(requests.group(1)), float(per_s.group(1)), errors)


@dataclass(frozen=True)
class LoadJob:
    """What the generator's process does. per_s: 0 for as fast as they are answered."""

    port: int
    path: str
    headers: dict[str, str]
    body: str
    connections: int
    seconds: float
    per_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """latencies_ms: sorted, from when a request was due to its first chunk. chunks: how many.

    seconds: that a connection was at work, in the mean; at a set rate, that all took.
    """

    seconds: float
    latencies_ms: Sequence[float]
    chunks: int
    errors: int

    def percentile_ms(self, share: float) -> float:
        count = len(self.latencies_ms)
        return self.latencies_ms[min(count - 1, int(share * count))] if count else math.nan


async def generated(job: LoadJob) -> Outcome:
    """Run the job in a process of its own, on the load's core."""
    command = [sys.executable, "-m", "benchmarks.router.load", json.dumps(asdict(job))]
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(LOAD_CORE), *command, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(job.seconds + 60):
        output, _ = await process.communicate()
    return Outcome(**json.loads(output))


EVENT = b"data: {"


class Client(asyncio.Protocol):
    """One connection, one request at a time. `first_s`: when its first body byte came."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, head: bytes, body: bytes) -> None:
        """Sends them as two packets, as the official clients do."""
        self.status = self.events = 0
        self.first_s = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(head)
        await asyncio.sleep(0)  # what is written in one turn of the loop is sent as one
        self._transport.write(body)
        await self._done

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if not self.first_s:
            self.first_s = perf_counter()
        self.events += body.count(EVENT)

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("closed"))

    def close(self) -> None:
        self._transport.close()


class Generator:
    def __init__(self, job: LoadJob) -> None:
        self._job = job
        self._free: deque[Client] = deque()
        self._count = 0
        self._latencies_ms: list[float] = []
        self._chunks = self._errors = 0
        head = f"POST {job.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json"
        head += "".join(f"\r\n{name}: {value}" for name, value in job.headers.items())
        self._head = head.encode()

    def _next(self) -> tuple[bytes, bytes]:
        """Head and body of one request."""
        self._count += 1
        body = self._job.body.replace(MARK, f"user-{self._count}").encode()
        return b"%s\r\ncontent-length: %d\r\n\r\n" % (self._head, len(body)), body

    async def _client(self) -> Client:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Client, "127.0.0.1", self._job.port))[1]

    async def _one(self, due_s: float) -> None:
        client = self._free.popleft() if self._free else await self._client()
        try:
            await client.ask(*self._next())
        except (ConnectionError, httptools.HttpParserError):
            self._errors += 1
            client.close()
            return
        self._free.append(client)
        self._errors += client.status != 200
        self._chunks += client.events
        self._latencies_ms.append((client.first_s - due_s) * 1000)

    async def run(self) -> Outcome:
        for _ in range(self._job.connections):
            self._free.append(await self._client())
        began = perf_counter()
        if self._job.per_s:
            await self._at_a_rate(began)
        else:
            clients = range(self._job.connections)
            async with asyncio.TaskGroup() as group:
                loops = [group.create_task(self._again_and_again()) for _ in clients]
            # Of each its own: a client that begins a long stream just before the end would
            # else have all others counted as idle until that one is over.
            seconds = statistics.fmean(loop.result() for loop in loops)
            return self._outcome(seconds)
        return self._outcome(perf_counter() - began)

    def _outcome(self, seconds: float) -> Outcome:
        return Outcome(seconds, sorted(self._latencies_ms), self._chunks, self._errors)

    async def _again_and_again(self) -> float:
        """Asks until the job's time is over; the seconds from the first question to the last
        answer.
        """
        began = perf_counter()
        while perf_counter() < began + self._job.seconds:
            await self._one(perf_counter())
        return perf_counter() - began

    async def _at_a_rate(self, began: float) -> None:
        """Requests start when they are due, whether or not the earlier ones have ended."""
        async with asyncio.TaskGroup() as group:
            for number in range(int(self._job.per_s * self._job.seconds)):
                due = began + number / self._job.per_s
                await asyncio.sleep(max(0.0, due - perf_counter()))
                group.create_task(self._one(due))


if __name__ == "__main__":
    job = LoadJob(**json.loads(sys.argv[1]))
    print(json.dumps(asdict(uvloop.run(Generator(job).run()))))
