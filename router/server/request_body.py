"""Reads a request's whole body and undoes its content encodings, or refuses it.

A body that decodes to more than the limit is cut off there, so a small compressed body
cannot fill the memory. Each refusal is a whole reply. This module reads no
JSON: `router.frame.body` does.
"""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import brotli
import zstandard

from router.frame.asgi import (
    BodyTooLarge,
    Receive,
    Scope,
    buffered_body,
    header,
    read_body,
)
from router.frame.limits import Timers
from router.frame.replies import CLOSE, Header, Reply, error_reply

_IDENTITY: Final = frozenset({"", "identity"})
_RAW = -zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_GZIP = 16 + zlib.MAX_WBITS
# RFC 8878 requires at least 8 MiB. A larger window would let senders fill the memory.
_ZSTD_WINDOW: Final = 1 << 23
# Limits the number of members, because decoding a member copies the rest of the body.
MOST_MEMBERS: Final = 100


class CodingUnknown(Exception):
    """The router does not support the body's encoding, or the body does not match it."""


class BodyCut(Exception):
    """The encoded body ends before its encoding does."""


def body_codings(scope: Scope) -> list[str]:
    """Returns the body's encodings in the order in which they were applied, without
    `identity`.
    """
    value = header(scope, b"content-encoding") or b""
    names = (name.strip().lower() for name in value.decode("latin-1").split(","))
    return [name.removeprefix("x-") for name in names if name not in _IDENTITY]


def decode_body(
    body: bytes,
    codings: list[str],
    limit: int,
) -> bytes:
    """Decodes a body, up to `limit` bytes. Raises CodingUnknown, BodyCut, BodyTooLarge."""
    for name in reversed(codings):
        decode = _DECODERS.get(name)
        if decode is None:
            raise CodingUnknown(name)
        try:
            body, is_whole = decode(body, limit + 1)
        except (zlib.error, zstandard.ZstdError, brotli.error) as error:
            raise CodingUnknown(name) from error
        if len(body) > limit:
            raise BodyTooLarge
        if not is_whole:
            raise BodyCut(name)
    return body


def _decode_zlib(
    bits: int,
    body: bytes,
    max_bytes: int,
) -> tuple[bytes, bool]:
    """Returns at most `max_bytes` decoded bytes, and whether the body is complete.

    Args:
        bits: zlib's window bits, which select the format.
    """
    decoded = b""
    for _ in range(MOST_MEMBERS):
        decoder = zlib.decompressobj(bits)
        decoded += decoder.decompress(body, max_bytes - len(decoded))
        body = decoder.unused_data
        # A gzip body may consist of several members.
        if not (decoder.eof and body) or len(decoded) >= max_bytes:
            return decoded, decoder.eof
    raise zlib.error("too many members")


def _decode_deflate(body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    try:
        return _decode_zlib(_ZLIB, body, max_bytes)
    except zlib.error:
        return _decode_zlib(
            _RAW, body, max_bytes
        )  # some clients send deflate without zlib's frame


def _decode_zstd(body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """Returns at most `max_bytes` decoded bytes, and whether the last frame is complete."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    decoded = decompressor.stream_reader(body, read_across_frames=True).read(max_bytes)
    if len(decoded) >= max_bytes:
        return decoded, True
    # stream_reader cannot detect a truncated frame; decompressobj can, and the size is bounded.
    for _ in range(MOST_MEMBERS):
        if not body:
            return decoded, True
        frame = decompressor.decompressobj()
        frame.decompress(body)
        if not frame.eof:
            return decoded, False
        body = frame.unused_data
    raise zstandard.ZstdError("too many frames")


def _decode_brotli(body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    decompressor = brotli.Decompressor()
    decoded = bytes(decompressor.process(body, output_buffer_limit=max_bytes))
    while len(decoded) < max_bytes and not decompressor.can_accept_more_data():
        decoded += decompressor.process(b"", output_buffer_limit=max_bytes - len(decoded))
    return decoded, decompressor.is_finished()


_DECODERS: Final[Mapping[str, Callable[[bytes, int], tuple[bytes, bool]]]] = {
    "zstd": _decode_zstd,
    "gzip": partial(_decode_zlib, _GZIP),
    "deflate": _decode_deflate,
    "br": _decode_brotli,
}
SUPPORTED_CODINGS: Final = ", ".join(_DECODERS)


ACCEPTED: Final[Header] = (b"accept-encoding", SUPPORTED_CODINGS.encode())


def media_type(scope: Scope) -> bytes:
    """Returns the content type without parameters, in lower case; JSON if the client names
    none.
    """
    kind = header(scope, b"content-type") or b"application/json"
    return kind.split(b";", 1)[0].strip().lower()


def is_json(scope: Scope) -> bool:
    return media_type(scope) == b"application/json"


def is_plain_json(scope: Scope) -> bool:
    """Returns whether the head announces JSON without an encoding."""
    return is_json(scope) and not body_codings(scope)


async def read_request_body(
    scope: Scope,
    receive: Receive,
    timers: Timers,
    limit: int,
    *,
    any_type: bool = False,
    setting: str = "",
) -> bytes | Reply:
    """Reads a body, or refuses it.

    Args:
        setting: the name of the limit.

    Raises ClientDisconnected.
    """
    if not (any_type or is_json(scope)):
        return error_reply(415, "send application/json", "unsupported_media_type")
    try:
        body = buffered_body(scope, limit)
        body = await read_body(receive, limit, timers) if body is None else body
        return decode_body(body, body_codings(scope), limit)
    except CodingUnknown as error:
        message = (
            f"the body's encoding {error} is not supported: send one of {SUPPORTED_CODINGS}"
        )
        return error_reply(415, message, "unsupported_content_encoding", headers=(ACCEPTED,))
    except BodyCut as error:
        return error_reply(400, f"the body's encoding {error} ends too early", "body_cut")
    except BodyTooLarge:
        setting_text = f" ({setting})" if setting else ""
        message = f"the body is larger than {limit} bytes{setting_text}"
        return error_reply(413, message, "request_too_large", headers=(CLOSE,))
    except TimeoutError:
        message = "the body did not arrive in time"
        return error_reply(408, message, "request_timeout", headers=(CLOSE,))
