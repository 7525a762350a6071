"""A known head answers for a request only where the parser would read the same."""

from typing import Any

import httptools
from hypothesis import given
from hypothesis import strategies as st

from router.server.known_head import MAX_KNOWN_BYTES, KnownHead

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nContent-Length: %b\r\nX-A: 1\r\n\r\n"


class Parsed:
    """What the parser reads of one message."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.url = self.body = b""
        self.complete = 0
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.scope: dict[str, Any] = {"headers": self.headers, "path": self.url}

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def request(body: bytes, head: bytes = HEAD) -> bytes:
    return head % b"%d" % len(body) + body


def known(data: bytes) -> KnownHead | None:
    parsed = Parsed(data)
    return KnownHead.learn(data, parsed.scope, len(parsed.body))


def test_any_other_bytes_are_left_to_the_parser() -> None:
    head = known(request(b"{}"))
    assert head is not None
    whole = request(b"12345")
    other_head = HEAD.replace(b"X-A: 1", b"X-A: 2")
    for data in (
        b"",
        whole[:-1],  # not all of it is here
        whole + b"P",  # or more than that
        whole + whole,
        whole[:20],
        request(b"12345", other_head),
        HEAD % b"+5" + b"12345",
        HEAD % b" 5" + b"12345",
        HEAD % b"5 " + b"12345",
        HEAD % b"" + b"12345",
        HEAD % "٥".encode() + b"12345",
        HEAD % b"0000000005" + b"12345",  # too many digits
        HEAD % b"5\r\nTransfer-Encoding: chunked" + b"12345",
    ):
        assert head.read(data) is None, data
        assert head.begins(data, 100) is (data == whole[:-1]), data


def test_a_head_whose_next_may_mean_something_else_is_not_learned() -> None:
    for data in (
        b"GET / HTTP/1.1\r\nHost: r\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        request(b"{}", HEAD.replace(b"X-A: 1", b"Expect: 100-continue")),
        request(b"{}", HEAD.replace(b"X-A: 1", b"X-A: " + b"a" * MAX_KNOWN_BYTES)),
        b"\r\n\r\n" + request(b"{}"),  # which a parser passes over
        request(b"{}", HEAD.replace(b"Host: r", b"X-Length: 2")),  # another name before it
        request(b"{}", HEAD.replace(b"Content-Length: ", b"Content-Length:")),
    ):
        assert known(data) is None, data


_NAMES = st.sampled_from([b"content-length", b"Content-Length", b"X-Length", b"Te", b"Host"])
_LINES = st.lists(
    st.tuples(_NAMES, st.sampled_from([b"1", b"2", b"12", b"a", b""])), max_size=4
)


@given(_LINES, _LINES, st.binary(max_size=20), st.binary(max_size=40), st.integers(0, 20))
def test_whatever_is_read_by_a_known_head_the_parser_reads_as_well(
    before: list[tuple[bytes, bytes]],
    after: list[tuple[bytes, bytes]],
    first: bytes,
    second: bytes,
    came: int,
) -> None:
    """came: bytes of the first body that the head was learned with."""

    def written(body: bytes) -> bytes:
        lines = [*before, (b"Content-Length", b"%d" % len(body)), *after]
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        return b"POST / HTTP/1.1\r\n%b\r\n%b" % (head, body)

    data = written(first)
    data = data[: len(data) - len(first[came:])]
    try:
        parsed = Parsed(data)
    except httptools.HttpParserError:
        return
    if parsed.complete > 1:
        return
    head = KnownHead.learn(data, parsed.scope, len(parsed.body))
    if head is None:
        return
    other = written(second)
    read, reference = head.read(other), Parsed(other)
    assert read == (reference.scope, reference.body)
    assert reference.complete == 1
    for cut in range(len(other)):
        begun = Parsed(other[:cut])
        if head.begins(other[:cut], len(second)):
            assert (begun.scope, begun.complete) == (reference.scope, 0)
        else:
            assert not begun.body
