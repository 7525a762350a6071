"""Where a request goes, and what its head says."""

import pytest

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.target import Provider
from router.frame.failure import UpstreamFailed
from router.upstream.origin_pool import interleave_addresses
from router.upstream.pool import build_head

pytestmark = pytest.mark.req("A5")


def provider(base: str, **headers: str) -> Provider:
    return Provider("up", "openai", base, "UP_KEY", headers)


def test_the_head_names_host_path_key_and_length() -> None:
    call = build_head(provider("https://api.test/v1/", **{"X-Team": "a"}), "/chat", "s3cret")

    assert (call.host, call.port, call.secure) == ("api.test", 443, True)
    assert call.head(stream=True, body_bytes=12).split(b"\r\n") == [
        b"POST /v1/chat HTTP/1.1",
        b"Host: api.test",
        b"accept: text/event-stream",
        b"content-type: application/json",
        b"accept-encoding: identity",
        b"user-agent: swapgate",
        b"authorization: Bearer s3cret",
        b"x-team: a",
        b"Content-Length: 12",
        b"",
        b"",
    ]
    assert b"accept: application/json" in call.head(stream=False, body_bytes=0)


def test_extra_headers_win_whatever_their_case() -> None:
    call = build_head(provider("http://h", Authorization="mine"), "/chat", "s3cret")

    head = call.head(stream=False, body_bytes=0)
    assert b"authorization: mine\r\n" in head
    assert b"s3cret" not in head


@pytest.mark.parametrize(
    ("base", "host", "port", "line", "named"),
    [
        ("http://h:81", "h", 81, b"POST /chat ", b"Host: h:81\r\n"),
        ("http://[::1]:81/v1", "::1", 81, b"POST /v1/chat ", b"Host: [::1]:81\r\n"),
        ("http://bücher.test", "xn--bcher-kva.test", 80, b"POST /chat ", b"Host: xn--"),
        ("http://h/a b/ü", "h", 80, b"POST /a%20b/%C3%BC/chat ", b"Host: h\r\n"),
        ("http://h/a%20b", "h", 80, b"POST /a%20b/chat ", b"Host: h\r\n"),
    ],
)
def test_addresses_of_every_kind(
    base: str, host: str, port: int, line: bytes, named: bytes
) -> None:
    call = build_head(provider(base), "/chat", "")

    assert (call.host, call.port) == (host, port)
    head = call.head(stream=False, body_bytes=0)
    assert head.startswith(line)
    assert named in head


@pytest.mark.parametrize(
    "base", ["", "h", "ftp://h", "http://", "http://h:99999", "http://h:x", "http://u:p@h/v1"]
)
def test_what_is_no_address_is_a_connect_failure_without_secrets(base: str) -> None:
    with pytest.raises(UpstreamFailed, match="provider 'up'") as failed:
        build_head(provider(base), "/chat", "s3cret")
    assert failed.value.failure is FailureClass.CONNECT
    assert "u:p" not in str(failed.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "a\r\ny: z"),
        ("x\r\ny", "z"),
        ("x y", "z"),
        ("", "z"),
        ("x", "\0"),
        ("x", "日"),
        ("Content-Length", "5"),
        ("transfer-encoding", "chunked"),
    ],
)
def test_a_header_cannot_smuggle(name: str, value: str) -> None:
    with pytest.raises(UpstreamFailed, match="cannot be sent"):
        build_head(provider("http://h", **{name: value}), "/chat", "")
    with pytest.raises(UpstreamFailed, match="'authorization'"):
        build_head(provider("http://h"), "/chat", "a\r\nx: y")


def test_the_families_take_turns() -> None:
    found = [(6, "a"), (6, "b"), (6, "b"), (4, "c"), (4, "d")]

    assert interleave_addresses(found) == ["a", "c", "b", "d"]
