"""Sends users' traffic by the official OpenAI client until SIGTERM, and writes a line for each
request: `python -m benchmarks.gameday.traffic URL FILE PER_S ROUTE…`, the key in SWAPPROOF_KEY.

The client does not retry, so that the file has every failure that a user could see.
"""

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

import openai
from openai.types.chat import ChatCompletionMessageParam

from benchmarks.gameday.processes import now_s

PATIENCE_S: Final = 130.0  # longer than the balancer's
MOST_UNDER_WAY: Final = 300
# Every second user of a route asks again after this many requests of all users. A canary counts
# a caller once a day, so new users must come until the end; two more than a multiple of four,
# since the users of requests 0 and 1 of each four are the new ones.
RETURN_AFTER: Final = 5002


@dataclass(frozen=True)
class Request:
    """A request and its result. start_s, end_s: Unix time. error: empty for an answer."""

    number: int
    route: str
    stream: bool
    start_s: float
    end_s: float
    error: str
    target: str = ""
    arm: str = ""
    id: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.error)


def read_requests(file: Path) -> list[Request]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [Request(**json.loads(line)) for line in lines]


def user_of(number: int) -> int:
    """Returns the number of the first request of the user who sends this one."""
    returns = number % 4 > 1 and number >= RETURN_AFTER
    return number - RETURN_AFTER if returns else number


async def answered(
    client: openai.AsyncOpenAI,
    route: str,
    number: int,
    *,
    stream: bool,
) -> dict[str, str]:
    """Reads a whole answer and returns its headers. Raises the client's errors."""
    create = client.chat.completions.with_raw_response.create
    words = f"Ticket {number}: where is my order? In 12 words."
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": words}]
    user = f"user-{user_of(number)}"
    if stream:
        streamed = await create(
            model=route,
            messages=asked,
            user=user,
            stream=True,
        )
        pieces = [c.choices[0].delta.content async for c in streamed.parse() if c.choices]
        text = "".join(piece or "" for piece in pieces)
        headers = streamed.headers
    else:
        plain = await create(model=route, messages=asked, user=user)
        text = plain.parse().choices[0].message.content or ""
        headers = plain.headers
    if not text:
        raise ValueError("an empty answer")
    return dict(headers)


async def ask(
    client: openai.AsyncOpenAI,
    route: str,
    number: int,
    file: IO[str],
) -> None:
    stream = number % 2 == 0
    start_s = now_s()
    error = ""
    headers = dict[str, str]()
    try:
        headers = await answered(client, route, number, stream=stream)
    except Exception as raised:  # noqa: BLE001 - every kind is a failed request
        error = f"{type(raised).__name__}: {raised}"[:300]
    told = (headers.get(f"x-swapproof-{what}", "") for what in ("target", "arm", "request-id"))
    done = Request(number, route, stream, start_s, now_s(), error, *told)
    file.write(json.dumps(asdict(done)) + "\n")


async def pour(
    url: str,
    path: Path,
    per_s: float,
    routes: list[str],
) -> None:
    """Starts requests at the rate, but skips requests that are over 0.5 s late."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    limits = openai.DefaultAsyncHttpxClient(timeout=PATIENCE_S)
    key = os.environ["SWAPPROOF_KEY"]
    tasks: set[asyncio.Task[None]] = set()
    with path.open("a", encoding="utf-8", buffering=1) as file:
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key=key,
            max_retries=0,
            http_client=limits,
        ) as client:
            due = time.monotonic()
            for number in itertools.count():
                due = max(due + 1 / per_s, time.monotonic() - 0.5)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if stopping.is_set():
                    break
                if len(tasks) < MOST_UNDER_WAY:
                    route = routes[number % len(routes)]
                    task = asyncio.create_task(ask(client, route, number, file))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)


def main() -> None:
    url, file, per_s, *routes = sys.argv[1:]
    asyncio.run(pour(url, Path(file), float(per_s), routes))


if __name__ == "__main__":
    main()
