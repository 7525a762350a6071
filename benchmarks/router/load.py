"""Load from one core: wrk at full throttle, our own generator at a set rate and for streams."""

import asyncio
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.router.machine import LOAD_CORE
from benchmarks.router.peers.peer import Ask

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
    command = [sys.executable, "-m", "benchmarks.router.generator", json.dumps(asdict(job))]
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(LOAD_CORE), *command, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(job.seconds + 60):
        output, _ = await process.communicate()
    return Outcome(**json.loads(output))
