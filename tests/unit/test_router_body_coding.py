"""A request's coding is undone or named, never read as JSON."""

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from router.frame.asgi import BodyTooLarge
from router.server.request_body import BodyCut, CodingUnknown, decode_body

LIMIT = 100_000


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def in_two_frames(code: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda body: code(body[:3]) + code(body[3:])


zstd = zstandard.ZstdCompressor(write_content_size=False).compress
CODERS = [
    ("gzip", gzip.compress),
    ("gzip", in_two_frames(gzip.compress)),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd),
    ("zstd", in_two_frames(zstd)),
    ("br", brotli.compress),
]


@given(body=st.binary(max_size=2_000), codings=st.lists(st.sampled_from(CODERS), max_size=3))
def test_what_any_codings_made_of_a_body_is_undone(
    body: bytes, codings: list[tuple[str, Callable[[bytes], bytes]]]
) -> None:
    coded = body
    for _, code in codings:
        coded = code(coded)

    assert decode_body(coded, [name for name, _ in codings], LIMIT) == body


@pytest.mark.parametrize(("name", "code"), CODERS)
def test_a_body_that_grows_over_the_limit_is_refused(
    name: str, code: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(BodyTooLarge):
        decode_body(code(bytes(50_000_000)), [name], LIMIT)


@pytest.mark.parametrize(("name", "code"), CODERS)
def test_a_cut_body_is_named(name: str, code: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BodyCut, match=name):
        decode_body(code(b"hello, " * 100)[:-2], [name], LIMIT)


@pytest.mark.parametrize("name", ["br", "gzip", "deflate", "zstd", "compress", "utf-8"])
def test_a_body_that_is_not_in_its_coding_is_refused(name: str) -> None:
    with pytest.raises(CodingUnknown, match=name):
        decode_body(b'{"model": "r"}', [name], LIMIT)
