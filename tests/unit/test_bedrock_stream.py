"""AWS's event stream: cut anywhere, broken, and no such stream at all."""

import json
from importlib import import_module

import pytest

from harness.domain.reliability.failures import FailureClass
from router.frame.failure import UpstreamFailed
from router.upstream.translate.bedrock import EventMessages
from tests.wire.bedrock import framed

FRAMES = import_module("botocore.eventstream")
pytestmark = pytest.mark.req("B7")


def test_a_message_comes_out_when_its_last_byte_is_there() -> None:
    messages = EventMessages(FRAMES)
    raw = framed("messageStart", {"role": "assistant"})
    found = [message for at in range(len(raw)) for message in messages.read(raw[at : at + 1])]
    assert [json.loads(message) for message in found] == [
        {"name": "messageStart", "body": {"role": "assistant"}}
    ]


def test_an_exception_within_the_stream_has_its_name() -> None:
    raw = framed("throttlingException", {"message": "Too many"}, "exception")
    [found] = EventMessages(FRAMES).read(raw)
    assert json.loads(found)["name"] == "throttlingException"


@pytest.mark.parametrize("raw", [b"data: {}\n\n" * 3, framed("a", {})[:-1] + b"x"])
def test_what_is_no_such_stream_is_malformed(raw: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        list(EventMessages(FRAMES).read(raw))
    assert caught.value.failure is FailureClass.MALFORMED
