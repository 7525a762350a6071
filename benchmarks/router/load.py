"""A light load generator: raw sockets, a fixed number of connections, one request each."""

import asyncio
import time
from dataclasses import dataclass, field

BODY = (
    b'{"model":"support","user":"user-%d",%s"messages":'
    b'[{"role":"system","content":"Be brief."},'
    b'{"role":"user","content":"' + b"What is the answer? " * 20 + b'"}],"temperature":0.2}'
)
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %s\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
)


@dataclass
class Result:
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    errors: int = 0

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def run(
    port: int, key: bytes, *, requests: int, connections: int, stream: bool
) -> Result:
    result = Result()
    numbers = iter(range(requests))
    extra = b'"stream":true,' if stream else b""

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            body = BODY % (number, extra)
            began = time.perf_counter()
            writer.write(HEAD % (key, len(body)) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
            result.latencies_ms.append((time.perf_counter() - began) * 1000)
            result.errors += not head.startswith(b"HTTP/1.1 200")
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    result.seconds = time.perf_counter() - began
    return result
