"""A provider of answers of one size, whole or streamed: `… big_answers PORT BYTES`."""

import asyncio
import json
import sys
from functools import partial
from typing import Final

EVENT_BYTES: Final = 16 * 1024
HEAD: Final = "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n\r\n"
DONE: Final = b"data: [DONE]\n\n"


def event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**data, "choices": [choice]}).encode() + b"\n\n"


def answer(size: int) -> bytes:
    message = {"role": "assistant", "content": "word " * (size // 5)}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


EVENT: Final = event("word " * (EVENT_BYTES // 5))


async def serve(
    size: int, whole: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            stream = bool(json.loads(await reader.readexactly(length)).get("stream"))
            kind = "text/event-stream" if stream else "application/json"
            writer.write(HEAD.format(kind).encode())
            events = [*[EVENT] * (size // EVENT_BYTES), event("", "stop"), DONE]
            for piece in events if stream else [whole]:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main(port: int, size: int) -> None:
    whole = answer(size)
    server = await asyncio.start_server(partial(serve, size, whole), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
