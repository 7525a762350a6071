"""Clients that read slowly: `… slow_readers_process PORT plain|stream`."""

import sys
import time

from benchmarks.router import load
from benchmarks.router.peers.peer import Ask
from benchmarks.router.slow_readers import BYTES_PER_S, HEADERS, PATH, READERS, connect


def main(port: int, *, stream: bool) -> None:
    body = load.body(Ask(model="big", headers=HEADERS), stream=stream).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{lines}"
    ask = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    readers = [connect(port) for _ in range(READERS)]
    print("connected", flush=True)
    sys.stdin.readline()  # until it is time
    for reader in readers:
        reader.sendall(ask)
    while True:
        for reader in readers:
            reader.recv(BYTES_PER_S)
        time.sleep(1.0)


if __name__ == "__main__":
    main(int(sys.argv[1]), stream=sys.argv[2] == "stream")
