"""Sends load from one core: wrk at full speed, `Generator` at a set rate or streamed."""

import asyncio
import itertools
import json
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import aiohttp
import uvloop

from benchmarks.router.processes import LOAD_CORE, Ask

# Every request has another user, so that the router makes a sticky choice for each.
BODY = (
    '{"model":"%s","user":"user-#",%s"messages":[{"role":"system","content":"Be brief."},'
    '{"role":"user","content":"%s"}],"temperature":0.2}'
)
QUESTION = "What is the answer? "
# repeats of the question; LARGE fills 1 MiB
USUAL = 20
LARGE = (1 << 20) // len(QUESTION)
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


def body(
    ask: Ask,
    *,
    stream: bool,
    repeats: int = USUAL,
) -> str:
    return BODY % (
        ask.model,
        '"stream":true,' if stream else "",
        QUESTION * repeats,
    )


@dataclass(frozen=True)
class Throttle:
    """wrk's result. errors: answers without a 2xx or 3xx status, and failed connections."""

    requests: int
    per_s: float
    errors: int


def full_throttle(
    port: int,
    ask: Ask,
    folder: Path,
    *,
    connections: int,
    seconds: float,
    repeats: int = USUAL,
) -> Throttle:
    before, after = body(ask, stream=False, repeats=repeats).split(MARK)
    headers = "".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n"
        for name, value in ask.headers.items()
    )
    script = folder / "wrk.lua"
    script.write_text(SCRIPT % (json.dumps(before), json.dumps(after), headers))
    options = [
        "-t1",
        f"-c{connections}",
        f"-d{seconds:.0f}s",
        "--timeout",
        "30s",
    ]
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
        raise ValueError(f"wrk's output has no number of requests: {text[:200]}")
    return Throttle(int(requests.group(1)), float(per_s.group(1)), errors)


@dataclass(frozen=True)
class LoadJob:
    """A job of the generator. per_s: 0 sends each request after the previous answer.

    at_once: sends one request on each connection at the same moment, and nothing else.
    """

    port: int
    path: str
    headers: dict[str, str]
    body: str
    connections: int
    seconds: float
    per_s: float = 0.0
    at_once: bool = False


@dataclass(frozen=True)
class Outcome:
    """The generator's result. latencies_ms: sorted, each from a request's due time to its first
    chunk. seconds: the mean busy time of a connection; at a set rate, the whole time.
    """

    seconds: float
    latencies_ms: Sequence[float]
    chunks: int
    errors: int

    def percentile_ms(self, share: float) -> float:
        count = len(self.latencies_ms)
        return self.latencies_ms[min(count - 1, int(share * count))] if count else math.nan


async def generated(job: LoadJob) -> Outcome:
    """Runs the job in its own process, on the load's core."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.router.load",
        json.dumps(asdict(job)),
    ]
    process = await asyncio.create_subprocess_exec(
        "taskset",
        "-c",
        str(LOAD_CORE),
        *command,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(job.seconds + 60):
        output, _ = await process.communicate()
    return Outcome(**json.loads(output))


EVENT = b"data: {"
# The contender accepts the connections of a burst in this time.
SETTLE_S = 0.3
BURST_S = 30.0


class Generator:
    def __init__(self, job: LoadJob, session: aiohttp.ClientSession) -> None:
        self._job = job
        self._session = session
        self._count = itertools.count(1)
        self._latencies_ms: list[float] = []
        self._chunks = self._errors = 0

    async def run(self) -> Outcome:
        began = perf_counter()
        async with asyncio.TaskGroup() as group:
            if self._job.per_s:
                await self._at_a_rate(group, began)
                loops = []
            else:
                clients = range(self._job.connections)
                loops = [group.create_task(self._again_and_again()) for _ in clients]
        # The mean of each client's own time. With the whole time, clients would count as idle
        # while a client finishes a long stream.
        own = [loop.result() for loop in loops] or [perf_counter() - began]
        latencies = sorted(self._latencies_ms)
        return Outcome(statistics.fmean(own), latencies, self._chunks, self._errors)

    async def _ask(self, due_s: float) -> None:
        body = self._job.body.replace(MARK, f"user-{next(self._count)}").encode()
        url = f"http://127.0.0.1:{self._job.port}{self._job.path}"
        first_s = 0.0
        try:
            async with self._session.post(url, data=body, headers=self._job.headers) as answer:
                async for part in answer.content.iter_any():
                    first_s = first_s or perf_counter()
                    self._chunks += part.count(EVENT)
        except aiohttp.ClientError:
            self._errors += 1
            return
        self._errors += answer.status != 200
        self._latencies_ms.append((first_s - due_s) * 1000)

    async def _again_and_again(self) -> float:
        """Sends requests for the job's time. Returns the seconds until the last answer."""
        began = perf_counter()
        while perf_counter() < began + self._job.seconds:
            await self._ask(perf_counter())
        return perf_counter() - began

    async def _at_a_rate(self, group: asyncio.TaskGroup, began: float) -> None:
        """Starts each request at its due time, without waiting for earlier answers."""
        for number in range(int(self._job.per_s * self._job.seconds)):
            due = began + number / self._job.per_s
            await asyncio.sleep(max(0.0, due - perf_counter()))
            group.create_task(self._ask(due))


class BurstStream(asyncio.Protocol):
    """One stream of a burst. first_s: when its first event arrived; 0 until then."""

    def __init__(self) -> None:
        self.first_s = 0.0
        self.chunks = 0
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        found = data.count(EVENT)
        self.chunks += found
        if found and not self.first_s:
            self.first_s = perf_counter()
        if b"[DONE]" in data and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a Protocol
        if not self.ended.done():
            self.ended.set_result(None)


async def burst(job: LoadJob) -> Outcome:
    """Sends one request on each connection at once. Each latency counts from the first request.

    The connections are open and the requests written out before, and a stream costs the load
    little: otherwise the load's own work, on the provider's core, is what the burst measures.
    """
    loop = asyncio.get_running_loop()
    requests = []
    streams = []
    for number in range(job.connections):
        text = job.body.replace(MARK, f"user-{number}").encode()
        headers = {"host": "load", "content-type": "application/json", **job.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {job.path} HTTP/1.1\r\n{lines}content-length: {len(text)}\r\n\r\n"
        transport, stream = await loop.create_connection(BurstStream, "127.0.0.1", job.port)
        requests.append((transport, head.encode() + text))
        streams.append(stream)
    await asyncio.sleep(SETTLE_S)
    began = perf_counter()
    for transport, request in requests:
        transport.write(request)
    async with asyncio.timeout(BURST_S):
        await asyncio.gather(*(stream.ended for stream in streams))
    seconds = perf_counter() - began
    for transport, _ in requests:
        transport.close()
    latencies = sorted((one.first_s - began) * 1000 for one in streams if one.first_s)
    chunks = sum(stream.chunks for stream in streams)
    return Outcome(seconds, latencies, chunks, job.connections - len(latencies))


async def generate(job: LoadJob) -> Outcome:
    if job.at_once:
        return await burst(job)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers={"content-type": "application/json"},
    ) as session:
        return await Generator(job, session).run()


if __name__ == "__main__":
    job = LoadJob(**json.loads(sys.argv[1]))
    print(json.dumps(asdict(uvloop.run(generate(job)))))
