"""Carries out the faults that replace a whole answer: error status, garbage, HTML page, huge
body, endless header, reset or hang before the first byte. Faults within an answer: see
delivery.py.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping

from evals.sim.faults import Fault, FaultKind
from evals.sim.protocols.dialect import EndpointDialect
from evals.sim.protocols.http_exchange import HttpExchange, encoded
from evals.sim.protocols.requests import no_such_model

PIECE = b" " * 65_536
NESTING = 10_000
PAGE = b"<!doctype html><title>Bad gateway</title><h1>502 Bad gateway</h1><p>simulated</p>"
SIMULATED = "This error is simulated by a fault switch."
JSON = "application/json"


async def replace_answer(
    exchange: HttpExchange, fault: Fault, model: str, dialect: EndpointDialect
) -> bool:
    """Carries out a fault that leaves nothing of the answer; False if an answer follows."""
    exchange.headers = {**exchange.headers, **fault.headers}
    match fault.kind:
        case FaultKind.STATUS:
            error = dialect.error(fault.status, fault.message or SIMULATED, fault.code, None)
            await exchange.json(fault.status, error)
        case FaultKind.NOT_FOUND:
            missing = no_such_model(model)
            error = dialect.error(404, missing.message, missing.code, missing.param)
            await exchange.json(404, error)
        case FaultKind.GARBAGE:
            await exchange.whole(200, GARBAGE[fault.variant], JSON)
        case FaultKind.HTML:
            await exchange.whole(fault.status, PAGE, "text/html; charset=utf-8")
        case FaultKind.HUGE:
            await huge(exchange, fault)
        case FaultKind.ENDLESS_HEADER:
            await endless_header(exchange, fault)
        case FaultKind.RESET | FaultKind.CLOSE if not (fault.after_chunks or fault.role_first):
            await exchange.break_off(reset=fault.kind is FaultKind.RESET)
        case FaultKind.HANG:
            await exchange.pause(fault.delay_s)
            return False
        case _:
            return False
    return True


async def huge(exchange: HttpExchange, fault: Fault) -> None:
    """Sends as many blanks as asked for before an object; the memory used here stays small."""
    packed = fault.variant == "gzip"
    if packed:
        exchange.headers = {**exchange.headers, "content-encoding": "gzip"}
    await exchange.start(200, JSON)
    for part in gzipped(fault.size_bytes) if packed else blanks(fault.size_bytes):
        await exchange.write(part)
        await exchange.give_way()
    await exchange.write(b"", last=True)


def blanks(size: int) -> Iterator[bytes]:
    for _ in range(size // len(PIECE)):
        yield PIECE
    yield b"{}"


def gzipped(size: int) -> Iterator[bytes]:
    """Yields so many blanks as one gzip member (RFC 1952), about a thousandth as long."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    piece = packer.compress(PIECE) + packer.flush(zlib.Z_FULL_FLUSH)
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    checksum, total = 0, 0
    for part in blanks(size):
        checksum, total = zlib.crc32(part, checksum), total + len(part)
        # After a full flush equal input gives equal output: it need not be packed again.
        yield piece if part is PIECE else packer.compress(part) + packer.flush()
    yield struct.pack("<II", checksum, total % 2**32)


async def endless_header(exchange: HttpExchange, fault: Fault) -> None:
    line = b"x-endless: " + b"a" * 4096 + b"\r\n"
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
    for _ in range(fault.size_bytes // len(line)):
        await exchange.raw(line)
    await exchange.break_off(reset=False)


GARBAGE: Mapping[str, bytes] = {
    "text": b'{"id": "chatcmpl-sim", "choices": [{"mess',
    "nan": b'{"choices": [{"message": {"content": NaN}}], "usage": Infinity}',
    "nested": b"[" * NESTING + b"]" * NESTING,
    "no_choices": encoded({"id": "chatcmpl-sim", "object": "chat.completion", "choices": []}),
}
